"""The Coral on PCIe: what a dead link answers is never a temperature."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import put, roots_in

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.coral import CoralSensor, parse_status, parse_temp_c
from flyball.sensing.sysfs import parse_integer

TRIPS = (84800, 89800, 94800)


def sensor(folder: Path) -> CoralSensor:
    return CoralSensor(roots_in(folder), Sensing())


def put_apex(folder: Path, number: int, temp: str | int = 46800, status: str = "ALIVE") -> Path:
    chip = folder / f"sys/class/apex/apex_{number}"
    put(chip / "temp", temp)
    put(chip / "status", status)
    for trip, milli_c in enumerate(TRIPS):
        put(chip / f"trip_point{trip}_temp", milli_c)
    return chip


def rows(readings: tuple[Reading, ...] | list[Reading]) -> list[tuple[str, str, float]]:
    return [(r.quantity, r.name, r.value) for r in readings]


def test_without_a_chip_it_is_unavailable_and_says_that_usb_has_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="one on USB has no telemetry"):
        sensor(tmp_path).read(1.0)


def test_a_chip_gives_status_temperature_and_limits(tmp_path: Path) -> None:
    put_apex(tmp_path, 0)
    readings = sensor(tmp_path).read(7.0)
    assert [(r.quantity, r.name, r.value, r.unit, r.scope, r.sensor, r.t_s) for r in readings] == [
        ("alarm", "apex_0", 0.0, "flag", "chip", "coral", 7.0),
        ("temperature", "apex_0", 46.8, "C", "zone", "coral", 7.0),
        ("temperature_limit", "apex_0/trip0", 84.8, "C", "zone", "coral", 7.0),
        ("temperature_limit", "apex_0/trip1", 89.8, "C", "zone", "coral", 7.0),
        ("temperature_limit", "apex_0/trip2", 94.8, "C", "zone", "coral", 7.0),
    ]


@pytest.mark.parametrize(("temp", "found"), [(-89700, "-89.7 C"), (166050, "166.05 C")])
def test_a_dead_link_is_a_failure_told_once_and_its_neighbour_is_read(temp: int, found: str, tmp_path: Path) -> None:
    dead = put_apex(tmp_path, 0, temp, status="DEAD")
    for trip in range(3):
        put(dead / f"trip_point{trip}_temp", temp)
    put_apex(tmp_path, 1)
    with pytest.raises(SensorFailed, match="apex_0 temp") as caught:
        sensor(tmp_path).read(1.0)
    assert found in caught.value.reason
    assert caught.value.reason.count("dead link") == 1
    assert rows(caught.value.readings)[:3] == [
        ("alarm", "apex_0", 1.0),
        ("alarm", "apex_1", 0.0),
        ("temperature", "apex_1", 46.8),
    ]


@pytest.mark.parametrize("temp", ["", "garbage", "46.8", "4294967295", "-40250", "130050"])
def test_what_the_chip_cannot_have_is_no_temperature(temp: str, tmp_path: Path) -> None:
    put_apex(tmp_path, 0, temp)
    with pytest.raises(SensorFailed, match="apex_0 temp: expected") as caught:
        sensor(tmp_path).read(1.0)
    assert rows(caught.value.readings) == [("alarm", "apex_0", 0.0)]


def test_the_ends_of_the_range_are_temperatures() -> None:
    assert (parse_temp_c("-40000"), parse_temp_c("130000")) == (-40.0, 130.0)


def test_a_broken_trip_point_takes_nothing_from_the_others(tmp_path: Path) -> None:
    chip = put_apex(tmp_path, 0)
    (chip / "trip_point1_temp").unlink()
    (chip / "trip_point1_temp").symlink_to("/proc/self/mem")  # a read at 0 is a real EIO
    with pytest.raises(SensorFailed, match=r"^apex_0 trip_point1_temp: Input/output error$") as caught:
        sensor(tmp_path).read(1.0)
    assert [r.name for r in caught.value.readings] == ["apex_0", "apex_0", "apex_0/trip0", "apex_0/trip2"]


@pytest.mark.parametrize(("status", "alarm"), [("ALIVE", 0), ("DEAD", 1), ("LAMED", 1), ("DRIVER_EXITING", 1)])
def test_every_status_but_alive_is_an_alarm(status: str, alarm: int) -> None:
    assert parse_status(status) == alarm


@pytest.mark.parametrize("status", ["", "alive", "ALIVE DEAD", "0"])
def test_a_word_that_is_no_status_is_neither_alive_nor_an_alarm(status: str, tmp_path: Path) -> None:
    put_apex(tmp_path, 0, status=status)
    with pytest.raises(SensorFailed, match="apex_0 status: expected one of ALIVE, DEAD, LAMED") as caught:
        sensor(tmp_path).read(1.0)
    assert [r.quantity for r in caught.value.readings][:1] == ["temperature"]


def test_a_chip_that_vanishes_has_failed_and_one_that_comes_is_read(tmp_path: Path) -> None:
    put_apex(tmp_path, 10)
    coral = sensor(tmp_path)
    assert len(coral.read(1.0)) == 5
    put_apex(tmp_path, 2)
    assert [r.name for r in coral.read(2.0) if r.quantity == "temperature"] == ["apex_2", "apex_10"]
    shutil.rmtree(tmp_path / "sys/class/apex/apex_10")
    with pytest.raises(SensorFailed, match=r"^apex_10: its device is gone$") as caught:
        coral.read(3.0)
    assert [r.name for r in caught.value.readings if r.quantity == "temperature"] == ["apex_2"]
    shutil.rmtree(tmp_path / "sys/class/apex")
    with pytest.raises(SensorFailed, match="apex_10: its device is gone; apex_2: its device is gone"):
        coral.read(4.0)


@given(st.text() | st.integers(min_value=-(10**7), max_value=10**7).map(str))
def test_a_temperature_is_what_was_written_or_an_error(text: str) -> None:
    try:
        temp_c = parse_temp_c(text)
    except ValueError:
        return
    assert temp_c == parse_integer(text) / 1000
    assert -40 <= temp_c <= 130
