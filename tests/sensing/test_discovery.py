"""Plug-ins are found and built; a broken one is in the list, says why, and hides no other."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from trees import roots_in

from flyball.config import Sensing
from flyball.sensing.contract import GROUP, Sensor, SensorFailed
from flyball.sensing.discovery import discover


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=GROUP)


def test_the_installed_sensors_are_found_and_the_estimate_is_last(tmp_path: Path) -> None:
    names = [sensor.name for sensor in discover(roots_in(tmp_path), Sensing())]
    assert {"host", "hwmon", "thermal"} <= set(names)
    assert names[-1] == "estimated"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("no_such_module:X", "ModuleNotFoundError"),
        ("fake_sensors:Missing", "AttributeError"),
        ("fake_sensors:RaisingSensor", "no libvendor.so here"),
        ("fake_sensors:ExitingSensor", "SystemExit"),
        ("fake_sensors:NoSensor", "is no sensor"),
        ("fake_sensors:reading", "TypeError"),
        ("not an entry point", "cannot be built"),
    ],
)
def test_a_broken_plugin_says_why_and_hides_no_other(value: str, says: str, tmp_path: Path) -> None:
    plugins = [point("bad", value), point("good", "fake_sensors:PluginSensor")]
    sensors = discover(roots_in(tmp_path), Sensing(), plugins=plugins)
    assert [s.name for s in sensors] == ["bad", "plugin", "estimated"]
    with pytest.raises(SensorFailed, match=says):
        sensors[0].read(1.0)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    plugins = [point("a", "fake_sensors:PluginSensor"), point("b", "fake_sensors:PluginSensor")]
    plugins.append(point("estimated", "fake_sensors:RaisingSensor"))
    sensors = discover(roots_in(tmp_path), Sensing(), plugins=plugins)
    assert [s.name for s in sensors] == ["plugin", "b-2", "estimated-2", "estimated"]
    with pytest.raises(SensorFailed, match="'plugin' is taken"):
        sensors[1].read(1.0)


def test_every_sensor_keeps_the_protocol(tmp_path: Path) -> None:
    assert all(isinstance(sensor, Sensor) for sensor in discover(roots_in(tmp_path), Sensing()))
