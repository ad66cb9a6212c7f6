"""Temperatures of the kernel's thermal zones.

/sys/class/thermal/thermal_zone*/{type,temp} (m degC) -> one reading per zone (C)

A zone that is powered down is left out, never 0. One that was here and is gone has failed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import ascii_letters

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Roots, SensorFailed, Unavailable
from flyball.sensing.sysfs import GATED, Reader, describe, optional_text, parse_integer

PLAUSIBLE_C = (-40.0, 150.0)


class ThermalSensor:
    name = "thermal"
    fastest_s = 0.5  # what it tells changes over seconds, and a read of cold files takes 0.3 ms of a core

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._folder = roots.sys / "class/thermal"
        self._read = roots.read
        self._zones: dict[Path, tuple[str, str]] = {}  # zone -> (type, name of its readings)
        self._seen = False
        self._most: Counter[str] = Counter()  # by type: how many zones there were at once
        self._gone: tuple[str, ...] = ()

    def read(self, now_s: float) -> Sequence[Reading]:
        self._find_zones()
        if not self._zones:
            if self._seen:
                raise SensorFailed(f"{self._folder}: the thermal zones that were here are gone")
            raise Unavailable(f"{self._folder} has no thermal zone")
        self._seen = True
        readings: list[Reading] = []
        problems = [f"{kind}: its zone is gone" for kind in self._gone]
        for zone, (kind, name) in self._zones.items():
            try:
                temp_c = zone_temp_c(kind, self._read(zone / "temp"))
            except OSError as error:
                if error.errno not in GATED:
                    problems.append(f"{zone.name} ({kind}): {describe(error)}")
                continue
            except ValueError as error:
                problems.append(f"{zone.name} ({kind}): {describe(error)}")
                continue
            if temp_c is not None:
                readings.append(
                    Reading(
                        quantity="temperature",
                        name=name,
                        value=temp_c,
                        unit="C",
                        scope="zone",
                        sensor=self.name,
                        t_s=now_s,
                    )
                )
        if problems:
            raise SensorFailed("; ".join(problems), readings)
        return readings

    def _find_zones(self) -> None:
        """Listed at every read (a module may bring a zone); the types are read when the list has changed."""
        try:
            names = os.listdir(self._folder)  # a glob takes as long as reading five zones
        except OSError:
            names = []
        ordered = sorted((name for name in names if name.startswith("thermal_zone")), key=lambda n: (len(n), n))
        zones = [self._folder / name for name in ordered]
        if zones == list(self._zones):
            return
        self._zones = names_by_type(zones, self._read)
        here = Counter(kind for zone, (kind, _) in self._zones.items() if kind != zone.name)  # a type that was read
        self._most |= here  # the larger of both counts
        self._gone = tuple(sorted((self._most - here).elements()))


def names_by_type(folders: Sequence[Path], read: Reader) -> dict[Path, tuple[str, str]]:
    """Of thermal zones or cooling devices: folder -> (type, name of its readings). The name is the type, with the
    folder's number where several have that type: two zones may be called "acpitz"."""
    kinds = [optional_text(folder / "type", read) or folder.name for folder in folders]
    count = Counter(kinds)
    return {
        folder: (kind, kind if count[kind] == 1 else f"{kind}-{folder.name.lstrip(ascii_letters + '_')}")
        for folder, kind in zip(folders, kinds, strict=True)
    }


def zone_temp_c(kind: str, text: str) -> float | None:
    """The content of a zone's `temp`; None for a zone that measures nothing. Raises ValueError."""
    milli_c = parse_integer(text)
    if kind == "PMIC-Die" and milli_c == 100_000:  # Jetson Nano: a constant, not a temperature
        return None
    temp_c = milli_c / 1000
    if not PLAUSIBLE_C[0] <= temp_c <= PLAUSIBLE_C[1]:
        raise ValueError(f"expected {PLAUSIBLE_C[0]:g} to {PLAUSIBLE_C[1]:g} C, found {temp_c:g} C")
    return temp_c
