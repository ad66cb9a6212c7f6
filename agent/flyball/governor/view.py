"""What the governor looks at when it decides, as values. Nothing here decides or reads.

Latencies are in seconds, memory in bytes, utilization a ratio 0..1; None is always "not known".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flyball.config import Governor as Settings
from flyball.config import Limits
from flyball.ports import LatencyWindow


class RungView(msgspec.Struct, frozen=True, kw_only=True):
    """One rung, strongest first in its list. `why_not` is empty when the rung can be chosen."""

    name: str
    accuracy: float | None = None
    why_not: str = ""
    profiled_p50_s: float | None = None
    resident_bytes: int | None = None


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """`window` is the active rung's; its percentiles are None when nothing was answered in that time."""

    window: LatencyWindow
    cpu: float | None = None
    memory_available_bytes: float | None = None
    temperature_c: float | None = None
    zone: str = ""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold. `temperature_c` is the limit less the margin."""

    latency_p95_s: float | None = None
    temperature_c: float | None = None
    memory_available_bytes: float | None = None
    accuracy_floor: float | None = None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The last calm window of a rung while it was active: no limit was broken."""

    p50_s: float
    p95_s: float


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be remembered between two decisions.

    broken: the constraint that was broken in each of the last periods, "" for none, the newest last.
    clear: periods in a row in which the next stronger rung looked safe.
    breach_cpu, breach_s: processor utilization and time at the last step down because of latency.
    climbed_to, climbed_s: the last step up; failures: steps up in a row that had to be taken back.
    """

    active: str
    since_s: float
    broken: tuple[str, ...] = ()
    clear: int = 0
    seen: Mapping[str, Seen] = {}
    breach_cpu: float | None = None
    breach_s: float | None = None
    climbed_to: str = ""
    climbed_s: float = 0.0
    failures: int = 0


def bounds(limits: Limits, settings: Settings, accuracy_floor: float | None) -> Bounds:
    heat = limits.temperature_c
    memory = limits.memory_available_mib
    return Bounds(
        latency_p95_s=None if limits.latency_p95_ms is None else limits.latency_p95_ms / 1e3,
        temperature_c=None if heat is None else heat - settings.temperature_margin_c,
        memory_available_bytes=None if memory is None else memory * (1 << 20),
        accuracy_floor=accuracy_floor,
    )
