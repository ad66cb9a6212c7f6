"""Which limits are broken now, by what was measured, and which could not be limits at all.

Machine + Seen + Limits -> one Check per limit; what somebody wrote down as limits -> mistakes. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.values import LARGEST, MIB, Constraint, LadderView, Machine

QUANTILES = (0.5, 0.9999)  # as config.Limits has it: at 1 no request at all may be late, which nothing can promise
CLEARLY = 3.0  # standard deviations of a share that is just allowed; late requests come in clusters


class Check(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`broken` is None where it cannot be told. `text` says how it stands, for people. `bearable` marks a breach of
    the margin only, not of the limit itself."""

    constraint: Constraint
    broken: bool | None
    text: str
    bearable: bool = False


def check(machine: Machine, ladder: LadderView, rules: Rules, power_w: float | None) -> tuple[Check, ...]:
    """One Check for every limit that is set. `power_w` is the machine's, smoothed."""
    limits, checks = ladder.limits, []
    if limits.deadline_s is not None:
        checks.append(_latency(ladder, limits.deadline_s, limits.quantile))
    if limits.temperature_c is not None:
        checks.append(_temperature(machine, limits.temperature_c, rules.temperature_margin_c))
    if limits.memory_available_bytes is not None:
        checks.append(_memory(machine, limits.memory_available_bytes))
    if limits.power_w is not None:
        checks.append(_power("power", machine, power_w, limits.power_w, "W"))
    if limits.energy_j_per_h is not None:
        checks.append(_power("energy", machine, power_w, limits.energy_j_per_h / 3600.0, "W (Wh per hour)"))
    return tuple(checks)


def _latency(ladder: LadderView, deadline_s: float, quantile: float) -> Check:
    # The newest answers must be late too: one late answer stays in an overlapping window for many periods, and a load
    # that has ended would be held against the rung for as long.
    seen, allowed = ladder.seen, 1.0 - quantile
    if seen.late is None or seen.window_late is None or not seen.window_answers:
        return Check(constraint="latency", broken=None, text="no new answers to measure latency by")
    chance = CLEARLY * math.sqrt(allowed * quantile / seen.window_answers)
    p95 = "" if seen.p95_s is None else f"latency p95 {milliseconds(seen.p95_s)}, "
    text = f"{p95}{seen.window_late:.1%} of {seen.window_answers} later than {milliseconds(deadline_s)}"
    broken = seen.late > allowed and seen.window_late > allowed + chance
    return Check(constraint="latency", broken=broken, text=f"{text}, {allowed:.1%} allowed" if broken else text)


def _temperature(machine: Machine, limit_c: float, margin_c: float) -> Check:
    if not machine.zones:
        return Check(constraint="temperature", broken=None, text="no temperature reading")
    hottest = max(machine.zones, key=machine.zones.__getitem__)
    temp_c = machine.zones[hottest]
    text = f"temperature {temp_c:.1f} °C ({hottest})"
    if temp_c <= limit_c - margin_c:
        return Check(constraint="temperature", broken=False, text=text)
    bearable = temp_c <= limit_c
    over = f"within {margin_c:g} °C of" if bearable else "over"
    text = f"{text} {over} the limit {limit_c:.1f} °C"
    return Check(constraint="temperature", broken=True, text=text, bearable=bearable)


def _memory(machine: Machine, limit_bytes: float) -> Check:
    available = machine.memory_available_bytes
    if available is None:
        return Check(constraint="memory", broken=None, text="no reading of available memory")
    text = f"available memory {mebibytes(available)}"
    if available >= limit_bytes:
        return Check(constraint="memory", broken=False, text=text)
    return Check(constraint="memory", broken=True, text=f"{text} under the limit {mebibytes(limit_bytes)}")


def _power(constraint: Constraint, machine: Machine, power_w: float | None, limit_w: float, unit: str) -> Check:
    if machine.power_w is None or power_w is None:
        return Check(constraint=constraint, broken=None, text="no reading of the machine's power")
    text = f"{'estimated ' if machine.estimated else ''}power {power_w:.2f} W"
    if power_w <= limit_w or machine.power_w <= limit_w:  # the mean still holds what another rung took
        return Check(constraint=constraint, broken=False, text=text)
    return Check(constraint=constraint, broken=True, text=f"{text} over the limit {limit_w:.2f} {unit}")


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """Limits as they were written down: values.Limits takes what is out of range for unknown, which would lift a limit
    that somebody meant."""

    limits: Mapping[str, float | None] = {}


def mistakes(limits: Mapping[str, float | None]) -> list[str]:
    """A sentence for every value, by the names of values.Limits, that cannot be one: the one rule for traces and
    recordings. 0 is none either, as in the configuration."""
    return [f"limits.{name}: {wrong}" for name, value in limits.items() if (wrong := _mistake(name, value))]


def _mistake(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "quantile":
        low, high = QUANTILES
        return "" if low <= value <= high else f"expected {low:g} to {high:g}, found {value:g}"
    most = 1.0 if name == "accuracy" else LARGEST
    if 0.0 < value <= most:
        return ""
    return f"expected more than 0, at most {most:g}, found {value:g}; without a limit, leave it out"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds * 1e3:.0f} ms"


def mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / MIB:.0f} MiB"


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
