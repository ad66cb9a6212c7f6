"""How hard the kernel cools or throttles, and the temperatures at which it begins to.

/sys/class/thermal/cooling_deviceN/{type,cur_state,max_state} -> ratio of what it can
/sys/class/thermal/thermal_zoneN/trip_point_M_{temp,type} (m degC) -> limits (C) named "<zone>/<type>"

Zones are named as thermal.py names them. Never sets a state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Gathering, Roots, SensorFailed, Unavailable
from flyball.sensing.sensors.thermal import names_by_type
from flyball.sensing.sysfs import Reader, optional_text, parse_integer

RESCAN_S = 60.0  # types, trip points and highest states hardly ever change
MOST_DEVICES = 64  # a server has one per processor; more would crowd out the other sensors' readings
TRIP_TYPES = ("passive", "hot", "critical")  # "active" only starts a fan
HIGHEST_TRIP_C = 200.0
NOT_ACTIVE = -1  # intel_powerclamp's cur_state while it does nothing that it could tell of

# What one zone has: (name of the limit, C).
Limits = list[tuple[str, float]]


class CoolingSensor:
    name = "cooling"
    fastest_s = 0.5  # it changes over seconds

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._folder = roots.sys / "class/thermal"
        self._read = roots.read
        self._devices: dict[Path, tuple[str, int]] = {}  # device -> (name, highest state)
        self._limits: Limits = []
        self._problems: list[str] = []  # of the last scan: told at every read until the next
        self._seen = False
        self._scan_due_s = float("-inf")

    def read(self, now_s: float) -> Sequence[Reading]:
        if now_s >= self._scan_due_s:
            self._scan(now_s)
        if not (self._devices or self._limits or self._problems):
            if self._seen:
                raise SensorFailed(f"{self._folder}: the cooling devices and trip points that were here are gone")
            raise Unavailable(f"{self._folder} has no cooling device and no trip point")
        self._seen = True
        gathering = Gathering(self.name, now_s)
        gathering.problems += self._problems
        for device, (name, highest) in self._devices.items():
            with gathering.attempt(f"{name} ({device})"):
                try:
                    ratio = cooling_ratio(self._read(device / "cur_state"), highest)
                except FileNotFoundError:
                    self._scan_due_s = now_s  # it may have come back under another number
                    raise
                if ratio is not None:
                    gathering.add("cooling", name, ratio, "zone")
        for name, limit_c in self._limits:
            gathering.add("temperature_limit", name, limit_c, "zone")
        return gathering.result()

    def _scan(self, now_s: float) -> None:
        troubles = Gathering(self.name, now_s)
        zones = names_by_type(_numbered(self._folder, "thermal_zone"), self._read)
        self._limits = []
        for zone, (_, zone_name) in zones.items():
            self._limits += find_limits(zone, zone_name, self._read, troubles)
        devices = names_by_type(_numbered(self._folder, "cooling_device")[:MOST_DEVICES], self._read)
        self._devices = {}
        for device, (_, name) in devices.items():
            with troubles.attempt(f"{name} ({device / 'max_state'})"):
                highest = parse_integer(self._read(device / "max_state"))
                if highest > 0:  # 0: it has one state only
                    self._devices[device] = (name, highest)
        self._problems = troubles.problems
        self._scan_due_s = now_s + RESCAN_S


def find_limits(zone: Path, zone_name: str, read: Reader, troubles: Gathering) -> Limits:
    """The trip points of a zone that say something, in their order; what cannot be read goes to `troubles`. Several of
    one type are told apart by the number of the trip point."""
    found: list[tuple[str, str, float]] = []
    for path in sorted(zone.glob("trip_point_*_temp"), key=lambda path: (len(path.name), path.name)):
        number = path.name.split("_")[2]
        kind = optional_text(zone / f"trip_point_{number}_type", read).strip()
        if kind not in TRIP_TYPES:
            continue
        with troubles.attempt(f"{zone_name}/{kind} ({path})"):
            limit_c = trip_c(read(path))
            if limit_c is not None:
                found.append((kind, number, limit_c))
    count = Counter(kind for kind, _, _ in found)
    return [(f"{zone_name}/{kind}" + (f"-{no}" if count[kind] > 1 else ""), limit_c) for kind, no, limit_c in found]


def trip_c(text: str) -> float | None:
    """None for the fillers of trip points that are not set: -274000 (THERMAL_TEMP_INVALID), 0, the largest integer.
    Raises ValueError for what is no integer."""
    limit_c = parse_integer(text) / 1000
    return limit_c if 0 < limit_c <= HIGHEST_TRIP_C else None


def cooling_ratio(text: str, highest: int) -> float | None:
    """`cur_state` as a share of `max_state` (> 0). Raises ValueError."""
    state = parse_integer(text)
    if state == NOT_ACTIVE:
        return None
    if not 0 <= state <= highest:
        raise ValueError(f"expected a cur_state of 0 to {highest} (max_state), found {state}")
    return state / highest


def _numbered(folder: Path, prefix: str) -> list[Path]:
    return sorted(folder.glob(f"{prefix}[0-9]*"), key=lambda path: (len(path.name), path.name))
