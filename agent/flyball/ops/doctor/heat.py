"""How near the machine's thermal zones are to where it slows down or switches itself off.

/sys/class/thermal/thermal_zone*/{temp, trip_point_N_temp, trip_point_N_type} -> Verdict
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flyball.ops.doctor.finding import Verdict, error, ok, unknown, warning
from flyball.ops.doctor.machine import Machine
from flyball.sensing.sensors.thermal import zone_temp_c
from flyball.sensing.sysfs import GATED, describe, optional_text, parse_integer

NEAR_C = 5.0
SLOWS, STOPS = ("passive", "hot"), ("critical",)  # "active" starts a fan, as it should
_COOLING = "# a heat sink or fan, more room around the board, or a rung that takes less"


def check_trip_points(machine: Machine) -> Verdict:
    """The zone with the least room tells the verdict."""
    read = machine.roots.read
    room: list[tuple[float, str, str, float, float]] = []
    problems: list[str] = []
    for zone in sorted((machine.roots.sys / "class/thermal").glob("thermal_zone*")):
        kind = optional_text(zone / "type", read) or zone.name
        try:
            temp_c = zone_temp_c(kind, read(zone / "temp"))
        except (OSError, ValueError) as problem:
            if not (isinstance(problem, OSError) and problem.errno in GATED):
                problems.append(f"{zone.name} ({kind}): {describe(problem)}")
            continue
        if temp_c is not None:
            room += [(trip_c - temp_c, name, kind, temp_c, trip_c) for name, trip_c in _trips(machine, zone)]
    stops = min((entry for entry in room if entry[1] in STOPS), default=None)
    slows = min((entry for entry in room if entry[1] in SLOWS), default=None)
    if stops is not None and stops[0] <= NEAR_C:
        return error(f"{stops[2]} is at {stops[3]:.0f} C; the machine switches off at {stops[4]:.0f} C", _COOLING)
    if slows is not None and slows[0] <= NEAR_C:
        return warning(f"{slows[2]} is at {slows[3]:.0f} C; the machine slows down from {slows[4]:.0f} C on", _COOLING)
    if problems:
        return unknown("; ".join(problems))
    if not room:
        return unknown("no thermal zone tells its trip points")
    least = min(room)
    return ok(f"{least[2]} has {least[0]:.0f} C left to its trip point of {least[4]:.0f} C")


def _trips(machine: Machine, zone: Path) -> Iterator[tuple[str, float]]:
    """(type, C) of every trip point that says something."""
    for file in sorted(zone.glob("trip_point_*_temp")):
        kind = optional_text(file.with_name(file.name.removesuffix("temp") + "type"), machine.roots.read)
        try:
            trip_c = parse_integer(machine.roots.read(file)) / 1000
        except (OSError, ValueError):
            continue  # a trip that the firmware has switched off
        if trip_c > 0 and kind in SLOWS + STOPS:  # 0 and -274 stand for "not used"
            yield kind, trip_c
