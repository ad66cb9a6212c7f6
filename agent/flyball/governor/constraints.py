"""Which limits are broken now.

Observation + Limits -> one Check per limit. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyball.config import Governor as Rules
from flyball.governor.values import MIB, Constraint, Limits, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`broken` is None where it cannot be told. `text` says how it stands, for people. `bearable` marks a breach of
    the margin only, not of the limit itself."""

    constraint: Constraint
    broken: bool | None
    text: str
    bearable: bool = False


def check(seen: Observation, limits: Limits, rules: Rules) -> tuple[Check, ...]:
    """One Check for every limit that is set."""
    checks = []
    if limits.latency_p95_s is not None:
        checks.append(_latency(seen, limits.latency_p95_s))
    if limits.temperature_c is not None:
        checks.append(_temperature(seen, limits.temperature_c, rules.temperature_margin_c))
    if limits.memory_available_bytes is not None:
        checks.append(_memory(seen, limits.memory_available_bytes))
    return tuple(checks)


def _latency(seen: Observation, limit_s: float) -> Check:
    # The newest answers must be late too: one late answer stays in an overlapping window for many periods, and a load
    # that has ended would be held against the rung for as long.
    if seen.p95_s is None or seen.newest_p95_s is None:
        return Check(constraint="latency", broken=None, text="no new answers to measure latency by")
    if seen.p95_s > limit_s and seen.newest_p95_s > limit_s:
        text = f"latency p95 {milliseconds(seen.p95_s)} over the limit {milliseconds(limit_s)}"
        return Check(constraint="latency", broken=True, text=text)
    return Check(constraint="latency", broken=False, text=f"latency p95 {milliseconds(seen.p95_s)}")


def _temperature(seen: Observation, limit_c: float, margin_c: float) -> Check:
    if seen.temperature_c is None:
        return Check(constraint="temperature", broken=None, text="no temperature reading")
    where = f" ({seen.hottest_zone})" if seen.hottest_zone else ""
    text = f"temperature {seen.temperature_c:.1f} °C{where}"
    if seen.temperature_c <= limit_c - margin_c:
        return Check(constraint="temperature", broken=False, text=text)
    bearable = seen.temperature_c <= limit_c
    over = f"within {margin_c:g} °C of" if bearable else "over"
    return Check(
        constraint="temperature", broken=True, text=f"{text} {over} the limit {limit_c:.1f} °C", bearable=bearable
    )


def _memory(seen: Observation, limit_bytes: float) -> Check:
    if seen.memory_available_bytes is None:
        return Check(constraint="memory", broken=None, text="no reading of available memory")
    text = f"available memory {mebibytes(seen.memory_available_bytes)}"
    if seen.memory_available_bytes >= limit_bytes:
        return Check(constraint="memory", broken=False, text=text)
    return Check(constraint="memory", broken=True, text=f"{text} under the limit {mebibytes(limit_bytes)}")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds * 1e3:.0f} ms"


def mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / MIB:.0f} MiB"


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
