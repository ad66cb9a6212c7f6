"""What a sensor must offer, and the only module that a third-party sensor imports besides `flyball.ports`.

kernel file or device -> Sensor.read(now) -> readings, or Unavailable, or SensorFailed

A sensor class is registered under the entry point group "flyball.sensors" and built as `Class(roots, settings)`.
Building it touches no hardware. `read` is called from one thread at a time, a thread that only this sensor has, so it
may block; it never sleeps, starts a process or writes. It never invents a figure: what could not be read is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from flyball.config import Sensing
from flyball.ports import Reading

GROUP = "flyball.sensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the kernel's files lie. A captured tree in their place is a test case."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")


class Unavailable(Exception):
    """The hardware or the kernel's file for it is not here. Nothing is wrong; the sampler looks again rarely."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class SensorFailed(Exception):
    """It is here, or was, and could not be read. `reason` says what, where and how. `readings` are those that came
    out nonetheless: one broken rail takes nothing from its neighbours."""

    def __init__(self, reason: str, readings: Sequence[Reading] = ()) -> None:
        self.reason = reason
        self.readings = tuple(readings)
        super().__init__(reason)


@runtime_checkable
class Sensor(Protocol):
    name: str

    def read(self, now_s: float) -> Sequence[Reading]:
        """Readings stamped `now_s` (monotonic seconds), `sensor` set to this sensor's name; names are unique within a
        quantity. Empty when there is nothing to say yet (a difference needs two reads).

        Raises Unavailable, SensorFailed; anything else counts as SensorFailed.
        """
        ...


SensorFactory: TypeAlias = Callable[[Roots, Sensing], Sensor]
