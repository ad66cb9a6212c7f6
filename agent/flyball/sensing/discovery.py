"""The sensors of this machine.

entry points "flyball.sensors" -> Class(roots, settings) -> [Sensor], and the estimate last

A plug-in that cannot be imported or built stands in the list as a sensor that fails and says why; it hides no other.
No hardware is touched here: whether a sensor has anything to read shows at its first read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.board import Board, identify
from flyball.sensing.contract import GROUP, Roots, Sensor, SensorFailed
from flyball.sensing.sensors.estimated import EstimatedSensor

log = logging.getLogger(__name__)


class BrokenSensor:
    """In the place of a plug-in that could not be built."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason

    def read(self, now_s: float) -> Sequence[Reading]:
        raise SensorFailed(self.reason)


def discover(
    roots: Roots,
    settings: Sensing,
    *,
    board: Board | None = None,
    plugins: Iterable[EntryPoint] | None = None,
) -> list[Sensor]:
    """One sensor per installed plug-in, by name, then the power estimate. `board` and `plugins` are what this machine
    says unless given."""
    sensors: list[Sensor] = []
    taken = {EstimatedSensor.name}
    points = entry_points(group=GROUP) if plugins is None else plugins
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        sensor = _build(point, roots, settings)
        if sensor.name in taken:
            why = f"{point.value}: the name {sensor.name!r} is taken"
            why += f"; {sensor.reason}" if isinstance(sensor, BrokenSensor) else ""
            sensor = BrokenSensor(_free_name(point.name, taken), why)
        taken.add(sensor.name)
        sensors.append(sensor)
    sensors.append(EstimatedSensor(roots, settings, board or identify(roots)))
    return sensors


def _build(point: EntryPoint, roots: Roots, settings: Sensing) -> Sensor:
    try:
        sensor = point.load()(roots, settings)
    except (Exception, SystemExit) as error:
        # The boundary to foreign code: whatever it raises, the others go on.
        log.debug("the sensor %s cannot be built", point.name, exc_info=True)
        return BrokenSensor(point.name, f"{point.value} cannot be built: {type(error).__name__}: {error}")
    if not isinstance(sensor, Sensor) or not isinstance(sensor.name, str) or not sensor.name:
        return BrokenSensor(point.name, f"{point.value} is no sensor: expected `name` and `read(now_s)`")
    return sensor


def _free_name(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"
