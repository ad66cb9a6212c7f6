"""Plug-ins are found and built; a broken one is in the list, says why, and hides no other."""

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from trees import roots_in

from flyball.config import Sensing
from flyball.sensing import sensors as sensors_package
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


def test_a_broken_plugin_whose_name_is_taken_says_both(tmp_path: Path) -> None:
    plugins = [point("plugin", "fake_sensors:PluginSensor"), point("plugin", "no_such_module:X")]
    sensors = discover(roots_in(tmp_path), Sensing(), plugins=plugins)
    assert [s.name for s in sensors] == ["plugin", "plugin-2", "estimated"]
    with pytest.raises(SensorFailed, match=r"'plugin' is taken; .*ModuleNotFoundError"):
        sensors[1].read(1.0)


def test_every_module_of_sensors_is_an_entry_point_but_the_estimate() -> None:
    """Each is a file and a line: one without its line would never be read."""
    modules = {f"flyball.sensing.sensors.{p.stem}" for p in Path(sensors_package.__path__[0]).glob("[!_]*.py")}
    found = {p.value.partition(":")[0]: p.name for p in entry_points(group=GROUP) if p.value.startswith("flyball.")}
    assert set(found) == modules - {"flyball.sensing.sensors.estimated"}
    assert all(name == module.rpartition(".")[2] for module, name in found.items())


def test_every_sensor_keeps_the_protocol(tmp_path: Path) -> None:
    assert all(isinstance(sensor, Sensor) for sensor in discover(roots_in(tmp_path), Sensing()))
