"""What one decision looks at, as frozen values.

survey.py -> View(rungs, Observation) -> policy.choose

Seconds, bytes and degrees Celsius throughout. A float that is not finite is taken for unknown (None), so that
nothing behind these values meets a NaN. Never reads a clock, a sensor or the configuration file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from flyball import config

Constraint = Literal["latency", "temperature", "memory"]
HARD: frozenset[Constraint] = frozenset({"temperature", "memory"})  # they hold against a pin too
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One rung of the ladder, as this machine knows it. `usable` is False where no accelerator can run it; `failed`
    says that its last opening failed, which may pass. `resident` rungs are open already, so that their memory is
    taken. The profile is the median of its warm-up; None until it was opened once. For `leave_alone_s` the engine asks
    not to be sent back to it."""

    name: str
    accuracy: float | None = None
    usable: bool = True
    failed: bool = False
    error: str = ""
    resident: bool = False
    profiled_p50_s: float | None = None
    rss_bytes: float | None = None
    leave_alone_s: float = 0.0

    def __post_init__(self) -> None:
        _forget_odd(self, ("accuracy", "profiled_p50_s", "rss_bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was measured. `p50_s` and `p95_s` are of the active rung's `answers` in the last `window_s`, `newest_p95_s`
    of those since the last look; None without answers. The temperature is the hottest zone's; `zones` are those that
    are accounted for: read now, or switched off. The utilization is of all processors, 0..1. None = not known now."""

    window_s: float = 0.0
    answers: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    newest_p95_s: float | None = None
    temperature_c: float | None = None
    hottest_zone: str = ""
    zones: frozenset[str] = frozenset()
    memory_available_bytes: float | None = None
    cpu_utilization: float | None = None

    def __post_init__(self) -> None:
        _forget_odd(self, ("p50_s", "p95_s", "newest_p95_s", "memory_available_bytes", "cpu_utilization"))
        _forget_odd(self, ("temperature_c",), lowest=-273.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One ladder at one moment. Rungs stand in the ladder's declared order, strongest first; `active` is None while
    there is none, `error` then says why. `accuracy_floor` is the manifest's."""

    ladder: str
    now_s: float
    wall_s: float
    active: str | None
    rungs: tuple[Rung, ...]
    seen: Observation
    accuracy_floor: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What must hold; None = no such limit."""

    latency_p95_s: float | None = None
    temperature_c: float | None = None
    memory_available_bytes: float | None = None

    def __post_init__(self) -> None:
        _forget_odd(self, ("latency_p95_s", "temperature_c", "memory_available_bytes"))

    @classmethod
    def of(cls, settings: config.Config, ladder: str) -> Limits:
        """`[ladder.NAME.limits]` key by key over `[governor.limits]`."""
        general = settings.governor.limits
        own = (settings.ladder[ladder].limits if ladder in settings.ladder else None) or config.LadderLimits()
        latency_ms = _first(own.latency_p95_ms, general.latency_p95_ms)
        memory_mib = _first(own.memory_available_mib, general.memory_available_mib)
        return cls(
            latency_p95_s=None if latency_ms is None else latency_ms / 1e3,
            temperature_c=_first(own.temperature_c, general.temperature_c),
            memory_available_bytes=None if memory_mib is None else memory_mib * MIB,
        )


def _first(own: float | None, general: float | None) -> float | None:
    return general if own is None else own


def _forget_odd(value: object, fields: Iterable[str], lowest: float = 0.0) -> None:
    for name in fields:
        number = getattr(value, name)
        if number is not None and not (math.isfinite(number) and number >= lowest):
            object.__setattr__(value, name, None)
