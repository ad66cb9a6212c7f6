"""What the checks see and expect, printed as it happens.

sensor -> read -> a line of the transcript; expectation -> "ok" or "FAIL", counted -> exit code
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Roots, Sensor, SensorFailed, Unavailable
from flyball.sensing.discovery import discover

LATER_S = 61.0  # hwmon looks for new devices once a minute


class Transcript:
    def __init__(self) -> None:
        self.failed = 0
        self.passed = 0

    def step(self, title: str) -> None:
        print(f"\n== {title}", flush=True)

    def saw(self, text: str) -> None:
        print(f"     {text}", flush=True)

    def expect(self, holds: bool, text: str) -> None:
        self.passed += holds
        self.failed += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {text}", flush=True)

    def end(self) -> int:
        """The exit code."""
        print(f"\n{self.passed} expectations held, {self.failed} did not", flush=True)
        return 1 if self.failed else 0


class Machine:
    """The sensors as the daemon builds them, read one after the other."""

    def __init__(self, transcript: Transcript) -> None:
        self.sensors = {sensor.name: sensor for sensor in discover(Roots(), Sensing())}
        self._out = transcript

    def read(self, name: str, later_s: float = 0.0) -> tuple[str, str, dict[str, Reading]]:
        """State, reason, readings by name; told in the transcript. `later_s`: as if so much time had passed."""
        state, reason, found = attempt(self.sensors[name], later_s)
        readings = {reading.name: reading for reading in found}
        shown = ", ".join(f"{r.name} {r.value:.6g} {r.unit}" for r in found)
        self._out.saw(f"{name}: {state}{': ' if reason else ''}{reason}")
        self._out.saw(f"{' ' * len(name)}  {shown or 'no reading'}")
        return state, reason, readings

    def read_until_ok(self, name: str) -> tuple[str, dict[str, Reading]]:
        """How many reads it took, in words, and the readings of the last."""
        for read in range(1, 4):
            state, _, readings = self.read(name)
            if state == "ok":
                return f"read {read}", readings
        self._out.saw(f"(not back in 3 reads; {LATER_S:g} s later)")
        state, _, readings = self.read(name, LATER_S)
        return (f"{LATER_S:g} s later", readings) if state == "ok" else ("never", {})


def attempt(sensor: Sensor, later_s: float = 0.0) -> tuple[str, str, Sequence[Reading]]:
    try:
        return "ok", "", sensor.read(time.monotonic() + later_s)
    except Unavailable as error:
        return "unavailable", error.reason, ()
    except SensorFailed as error:
        return "failed", error.reason, error.readings


def near(readings: dict[str, Reading], wanted: dict[str, float]) -> bool:
    return all(name in readings and abs(readings[name].value - value) < 5e-4 for name, value in wanted.items())
