"""What a sensor must offer, and the only module that a third-party sensor imports besides `flyball.ports`.

kernel file or device -> Sensor.read(now) -> readings, or Unavailable, or SensorFailed

A sensor class is registered under the entry point group "flyball.sensors" and built as `Class(roots, settings)`.
Building it touches no hardware. `read` is called from one thread at a time, a thread that only this sensor has, so it
may block; it never sleeps or writes, and starts no process (but for vcgencmd, where a Raspberry Pi has no mailbox
device). It never invents a figure: what could not be read is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from flyball.config import Sensing
from flyball.ports import UNITS, Quantity, Reading, Scope
from flyball.sensing.sysfs import GATED, Reader, describe, read_text

GROUP = "flyball.sensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the kernel's files lie. A captured tree in their place is a test case (`flyball.sensing.tree`).

    `read` gives the text of a file (OSError, ValueError). `firmware` answers a command of the Raspberry Pi's firmware
    (OSError); None stands for the machine's own.
    """

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    etc: Path = Path("/etc")
    var: Path = Path("/var")
    read: Reader = read_text
    firmware: Callable[[str], str] | None = None


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
    """A class attribute `fastest_s`, where there is one, is the shortest period at which the hardware may be asked;
    `phase`, 0 to 1, the share of its period by which it is read later than the others."""

    name: str

    def read(self, now_s: float) -> Sequence[Reading]:
        """Readings stamped `now_s` (monotonic seconds), `sensor` set to this sensor's name; names are unique within a
        quantity. Empty when there is nothing to say yet (a difference needs two reads).

        Raises Unavailable, SensorFailed; anything else counts as SensorFailed.
        """
        ...


SensorFactory: TypeAlias = Callable[[Roots, Sensing], Sensor]


class Gathering:
    """The readings and the troubles of one read.

    gathering = Gathering(self.name, now_s)
    for path in paths:
        with gathering.attempt(f"fan ({path})"):                       # OSError and ValueError become troubles
            gathering.add("fan", path.name, parse_integer(read(path)) / 255, "chip")
    return gathering.result()                                          # raises SensorFailed when there were any
    """

    def __init__(self, sensor: str, now_s: float) -> None:
        self._sensor = sensor
        self._now_s = now_s
        self.readings: list[Reading] = []
        self.problems: list[str] = []

    def add(self, quantity: Quantity, name: str, value: float, scope: Scope, uncertainty: float | None = None) -> None:
        self.readings.append(
            Reading(
                quantity=quantity,
                name=name,
                value=float(value),
                unit=UNITS[quantity],
                scope=scope,
                sensor=self._sensor,
                t_s=self._now_s,
                uncertainty=uncertainty,
            )
        )

    @contextmanager
    def attempt(self, where: str) -> Iterator[None]:
        """What is gated by the hardware is left out; what fails is told with `where`, and the next part goes on."""
        try:
            yield
        except OSError as error:
            if error.errno not in GATED:
                self.problems.append(f"{where}: {describe(error)}")
        except (ValueError, OverflowError) as error:
            self.problems.append(f"{where}: {describe(error)}")

    def result(self) -> Sequence[Reading]:
        """Raises SensorFailed, with what could be read nonetheless."""
        if self.problems:
            raise SensorFailed("; ".join(self.problems), self.readings)
        return self.readings
