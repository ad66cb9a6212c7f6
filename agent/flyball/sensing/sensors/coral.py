"""The Coral on PCIe: its temperature, where it slows down, and whether it lives.

/sys/class/apex/apex_N/{temp,trip_pointM_temp} (m degC), status -> C, a flag

Of the Coral on USB nothing is read: it has no telemetry. A link that has died still answers, with what its registers
read then (-89.7 C for all ones, 166.05 C for zeros): that is a failure here, never a figure. Never opens /dev/apex_N,
which counts as a user of the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.sysfs import parse_integer

PLAUSIBLE_C = (-40.0, 130.0)
TRIP_POINTS = (0, 1, 2)  # each one passed halves the clock: 500, 250, 125, 62.5 MHz
STATUSES = ("ALIVE", "DEAD", "LAMED", "DRIVER_EXITING")  # gasket_status_name_table in the driver's gasket_core.c


class CoralSensor:
    name = "coral"
    fastest_s = 0.5  # it changes over seconds

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._folder = roots.sys / "class/apex"
        self._read = roots.read
        self._seen: set[str] = set()

    def read(self, now_s: float) -> Sequence[Reading]:
        chips = sorted(self._folder.glob("apex_*"), key=lambda chip: (len(chip.name), chip.name))
        self._seen.update(chip.name for chip in chips)
        if not self._seen:
            raise Unavailable(f"{self._folder} has no Coral (one on USB has no telemetry)")
        gathering = Gathering(self.name, now_s)
        for name in sorted(self._seen.difference(chip.name for chip in chips)):
            gathering.problems.append(f"{name}: its device is gone")
        for chip in chips:
            self._add(gathering, chip)
        return gathering.result()

    def _add(self, gathering: Gathering, chip: Path) -> None:
        with gathering.attempt(f"{chip.name} status"):
            gathering.add("alarm", chip.name, parse_status(self._read(chip / "status")), "chip")
        with gathering.attempt(f"{chip.name} temp"):
            gathering.add("temperature", chip.name, parse_temp_c(self._read(chip / "temp")), "zone")
            for trip in TRIP_POINTS:  # only over a link that lives: over a dead one they tell the same once more
                with gathering.attempt(f"{chip.name} trip_point{trip}_temp"):
                    limit_c = parse_temp_c(self._read(chip / f"trip_point{trip}_temp"))
                    gathering.add("temperature_limit", f"{chip.name}/trip{trip}", limit_c, "zone")


def parse_temp_c(text: str) -> float:
    """Thousandths of a degree, in C. Raises ValueError for what the chip cannot have."""
    temp_c = parse_integer(text) / 1000
    if not PLAUSIBLE_C[0] <= temp_c <= PLAUSIBLE_C[1]:
        expected = f"expected {PLAUSIBLE_C[0]:g} to {PLAUSIBLE_C[1]:g} C, found {temp_c:g} C"
        raise ValueError(f"{expected}: dead link, reset the device or reseat the card")
    return temp_c


def parse_status(text: str) -> int:
    """0 for ALIVE, 1 for every other status. Raises ValueError for a word that the driver does not have."""
    status = text.strip()
    if status not in STATUSES:
        raise ValueError(f"expected one of {', '.join(STATUSES)}, found {status[:40]!r}")
    return int(status != "ALIVE")
