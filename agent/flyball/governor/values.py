"""What one decision looks at, as frozen values.

survey.py -> View(Machine, LadderViews) -> policy.choose

Seconds, bytes, watts, joules and degrees Celsius throughout. A float that is not finite, or larger than anything
measured, is taken for unknown (None), so that nothing behind these values meets a NaN. A View can be written down as
JSON and read back: a recorded log is a row of them. Never reads a clock, a sensor or the configuration file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from flyball import config

Constraint = Literal["latency", "temperature", "memory", "power", "energy"]
HARD: frozenset[Constraint] = frozenset({"temperature", "memory"})  # they hold against a pin too
MIB = 1 << 20
ABSOLUTE_ZERO_C = -273.15
LARGEST = 1e15  # of any figure here: what is beyond it was not measured, and its square is still a number
SHORTEST_S = 1e-9
QUANTILE = 0.95


def _forget_odd(value: msgspec.Struct, fields: Iterable[str]) -> None:
    for name in fields:
        number = getattr(value, name)
        if number is not None and not 0.0 <= number <= LARGEST:
            msgspec.structs.force_setattr(value, name, None)


class Rung(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rung of a ladder, as this machine knows it. `usable` is False where no accelerator can run it; `failed` says
    that its last opening failed, which may pass. `resident` rungs are open already, so that their memory is taken. For
    `leave_alone_s` the engine asks not to be sent back to it.

    The rest is its profile at rest, None where it was never measured: `work_s` is the mean time that one inference
    keeps its accelerator, decoding included and queueing not; `spread` its relative standard deviation; `joules` what
    one inference takes beyond what the idle machine does; `load_s` from nothing to the first answer."""

    name: str
    accuracy: float | None = None
    accelerator: str = "cpu"
    usable: bool = True
    failed: bool = False
    error: str = ""
    resident: bool = False
    leave_alone_s: float = 0.0
    work_s: float | None = None
    spread: float | None = None
    joules: float | None = None
    rss_bytes: float | None = None
    load_s: float | None = None

    def __post_init__(self) -> None:
        _forget_odd(self, ("accuracy", "work_s", "spread", "joules", "rss_bytes", "load_s"))
        if self.work_s is not None and self.work_s < SHORTEST_S:
            msgspec.structs.force_setattr(self, "work_s", None)  # nothing takes no time: it was not measured


class Seen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one ladder's requests were like. `arrivals_per_s` counts all that came, refused ones too, callers' mistakes
    not. `answers`, `work_mean_s`, `work_std_s` and `late` are of the active rung since the last look; `p50_s`, `p95_s`
    (of whole latencies), `window_answers` and `window_late` of the window. `late` is the share that missed the
    deadline, or was refused because it would have. None without answers."""

    arrivals_per_s: float | None = None
    answers: int = 0
    work_mean_s: float | None = None
    work_std_s: float | None = None
    late: float | None = None
    window_answers: int = 0
    window_late: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    pending: int = 0
    answers_per_s: float | None = None

    def __post_init__(self) -> None:
        _forget_odd(self, ("arrivals_per_s", "work_mean_s", "work_std_s", "late", "window_late", "p50_s", "p95_s"))
        _forget_odd(self, ("p99_s", "answers_per_s"))


class Limits(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True):
    """What must hold; None = no such limit. Of all requests, the share `quantile` is to be answered within
    `deadline_s`. `power_w` and `energy_j_per_h` are the machine's, whichever ladders share it."""

    deadline_s: float | None = None
    quantile: float = QUANTILE
    temperature_c: float | None = None
    memory_available_bytes: float | None = None
    power_w: float | None = None
    energy_j_per_h: float | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        fields = ("deadline_s", "temperature_c", "memory_available_bytes", "power_w", "energy_j_per_h", "accuracy")
        _forget_odd(self, fields)
        if not 0.0 < self.quantile < 1.0:
            msgspec.structs.force_setattr(self, "quantile", QUANTILE)  # none is unknown: a deadline has one


class Machine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the sensors say now; None = not known now.

    `contention`: tasks other than Flyball's own that are running or ready to run, per processor. `clock`: the
    processors' frequency as a share of the highest. `zones` are the temperatures read now; `off` those that were read
    once and whose sensor leaves them out without complaint. `power_w` is the machine's total, `estimated` when it comes
    from a model. `throttled` names what slows the machine down now, empty when nothing does or, without
    `tells_throttling`, nobody knows. What follows it is only
    for the rules of the configuration; `hour` is local, None while the clock is not synchronized."""

    cpus: int = 1
    contention: float | None = None
    cpu_utilization: float | None = None
    clock: float | None = None
    zones: Mapping[str, float] = {}
    off: tuple[str, ...] = ()
    power_w: float | None = None
    estimated: bool = False
    memory_available_bytes: float | None = None
    memory_pressure: float | None = None
    throttled: tuple[str, ...] = ()
    tells_throttling: bool = False
    gpu_utilization: float | None = None
    cpu_pressure: float | None = None
    under_voltage: bool | None = None
    load_score: float | None = None
    hour: float | None = None

    def __post_init__(self) -> None:
        known = ("contention", "cpu_utilization", "clock", "power_w", "memory_available_bytes", "memory_pressure")
        _forget_odd(self, known)
        _forget_odd(self, ("gpu_utilization", "cpu_pressure", "load_score", "hour"))
        odd = [name for name, temp_c in self.zones.items() if not ABSOLUTE_ZERO_C < temp_c <= LARGEST]
        if odd:
            kept = {name: temp_c for name, temp_c in self.zones.items() if name not in odd}
            msgspec.structs.force_setattr(self, "zones", kept)


class LadderView(msgspec.Struct, frozen=True, kw_only=True):
    """One ladder at one moment. Rungs stand in the ladder's declared order, strongest first; `active` is None while
    there is none, `error` then says why."""

    name: str
    active: str | None
    rungs: tuple[Rung, ...]
    seen: Seen = Seen()
    limits: Limits = Limits()
    error: str = ""

    def active_index(self) -> int | None:
        """None where the active rung is none of these."""
        for index, rung in enumerate(self.rungs):
            if rung.name == self.active:
                return index
        return None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and its ladders at one moment. `now_s` is monotonic."""

    now_s: float
    wall_s: float
    machine: Machine = Machine()
    ladders: tuple[LadderView, ...] = ()


def limits_of(settings: config.Config, ladder: str, floor: float | None = None) -> Limits:
    """`[ladder.NAME.limits]` key by key over `[governor.limits]`; the higher of the accuracy floors."""
    general = settings.governor.limits
    own = (settings.ladder[ladder].limits if ladder in settings.ladder else None) or config.LadderLimits()
    deadline_ms, quantile = _deadline(own, own.quantile or general.quantile)
    if deadline_ms is None:
        deadline_ms, quantile = _deadline(general, own.quantile or general.quantile)
    memory_mib = _first(own.memory_available_mib, general.memory_available_mib)
    floors = [value for value in (floor, _first(own.accuracy, general.accuracy)) if value is not None]
    return Limits(
        deadline_s=None if deadline_ms is None else deadline_ms / 1e3,
        quantile=quantile,
        temperature_c=_first(own.temperature_c, general.temperature_c),
        memory_available_bytes=None if memory_mib is None else memory_mib * MIB,
        power_w=general.power_w,
        energy_j_per_h=None if general.energy_wh_per_h is None else general.energy_wh_per_h * 3600.0,
        accuracy=max(floors, default=None),
    )


def _deadline(limits: config.Limits | config.LadderLimits, quantile: float) -> tuple[float | None, float]:
    return (limits.latency_p95_ms, 0.95) if limits.latency_p95_ms is not None else (limits.deadline_ms, quantile)


def _first(own: float | None, general: float | None) -> float | None:
    return general if own is None else own
