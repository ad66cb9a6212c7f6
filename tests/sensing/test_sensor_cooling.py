"""Cooling devices and trip points: fillers are no limits, and what is not active is not 0."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from trees import put, put_zone, roots_in

from flyball.config import Sensing
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.cooling import RESCAN_S, CoolingSensor, cooling_ratio, trip_c
from flyball.sensing.sensors.thermal import ThermalSensor
from flyball.sensing.sysfs import read_text


def sensor(folder: Path) -> CoolingSensor:
    return CoolingSensor(roots_in(folder), Sensing())


def put_device(folder: Path, number: int, kind: str, cur: str | int, most: str | int) -> Path:
    device = folder / f"sys/class/thermal/cooling_device{number}"
    put(device / "type", kind)
    put(device / "max_state", most)
    put(device / "cur_state", cur)
    return device


def put_trip(folder: Path, zone: int, number: int, kind: str, milli_c: str | int) -> None:
    place = folder / f"sys/class/thermal/thermal_zone{zone}"
    put(place / f"trip_point_{number}_type", kind)
    put(place / f"trip_point_{number}_temp", milli_c)


def rows(cooling: CoolingSensor, now_s: float = 1.0) -> list[tuple[str, str, float, str, str]]:
    return [(r.quantity, r.name, r.value, r.unit, r.scope) for r in cooling.read(now_s)]


def test_without_any_it_is_unavailable(tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 40000)
    with pytest.raises(Unavailable, match="no cooling device and no trip point"):
        sensor(tmp_path).read(1.0)


def test_a_state_is_a_share_of_what_the_device_can(tmp_path: Path) -> None:
    put_device(tmp_path, 10, "Processor", 3, 4)
    put_device(tmp_path, 2, "Processor", 0, 10)
    put_device(tmp_path, 3, "pwm-fan", 4, 4)
    assert rows(sensor(tmp_path)) == [
        ("cooling", "Processor-2", 0.0, "ratio", "zone"),
        ("cooling", "pwm-fan", 1.0, "ratio", "zone"),
        ("cooling", "Processor-10", 0.75, "ratio", "zone"),
    ]


def test_a_device_with_one_state_only_is_left_out_and_so_is_one_that_is_not_active(tmp_path: Path) -> None:
    put_device(tmp_path, 0, "LCD", 0, 0)
    put_device(tmp_path, 1, "intel_powerclamp", -1, 50)
    put_device(tmp_path, 2, "cpufreq-cpu0", 1, 2)
    assert [row[1] for row in rows(sensor(tmp_path))] == ["cpufreq-cpu0"]


def test_limits_carry_the_names_that_the_zones_have_as_temperatures(tmp_path: Path) -> None:
    for number, milli_c in ((0, 119000), (1, 105000)):
        put_zone(tmp_path, number, "acpitz", 27800)
        put_trip(tmp_path, number, 0, "critical", milli_c)
    assert rows(sensor(tmp_path)) == [
        ("temperature_limit", "acpitz-0/critical", 119.0, "C", "zone"),
        ("temperature_limit", "acpitz-1/critical", 105.0, "C", "zone"),
    ]
    zones = {r.name for r in ThermalSensor(roots_in(tmp_path), Sensing()).read(1.0)}
    assert {name.rpartition("/")[0] for _, name, *_ in rows(sensor(tmp_path))} == zones


def test_trip_points_that_only_start_a_fan_are_left_out_and_several_of_a_type_numbered(tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 40000)
    trips = [("active", 50000), ("passive", 80000), ("passive", 85000), ("hot", 95000), ("critical", 110000)]
    for number, (kind, milli_c) in enumerate(trips, start=8):
        put_trip(tmp_path, 0, number, kind, milli_c)
    assert [(row[1], row[2]) for row in rows(sensor(tmp_path))] == [
        ("cpu-thermal/passive-9", 80.0),
        ("cpu-thermal/passive-10", 85.0),
        ("cpu-thermal/hot", 95.0),
        ("cpu-thermal/critical", 110.0),
    ]


@pytest.mark.parametrize("filler", [-274000, 0, 2147483647, 65535000, -273150])
def test_a_filler_is_no_limit(filler: int, tmp_path: Path) -> None:
    assert trip_c(str(filler)) is None
    put_zone(tmp_path, 0, "cpu-thermal", 40000)
    put_trip(tmp_path, 0, 0, "passive", filler)
    put_trip(tmp_path, 0, 1, "passive", 85000)
    assert [(row[1], row[2]) for row in rows(sensor(tmp_path))] == [("cpu-thermal/passive", 85.0)]


def test_trip_points_are_read_again_after_a_minute_and_not_before(tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 40000)
    put_trip(tmp_path, 0, 0, "critical", 110000)
    cooling = sensor(tmp_path)
    assert [row[2] for row in rows(cooling, 1.0)] == [110.0]
    put_trip(tmp_path, 0, 0, "critical", 90000)
    assert [row[2] for row in rows(cooling, RESCAN_S)] == [110.0]
    assert [row[2] for row in rows(cooling, 1.0 + RESCAN_S)] == [90.0]


@pytest.mark.parametrize("content", ["", "garbage", "5", "-2", str(2**64 - 1)])
def test_a_broken_state_is_named_and_its_neighbour_still_read(content: str, tmp_path: Path) -> None:
    put_device(tmp_path, 0, "cpufreq-cpu0", 1, 4)
    put_device(tmp_path, 1, "devfreq-gpu", content, 4)
    with pytest.raises(SensorFailed, match=r"devfreq-gpu \(.*cooling_device1\)") as caught:
        sensor(tmp_path).read(1.0)
    assert [(r.name, r.value) for r in caught.value.readings] == [("cpufreq-cpu0", 0.25)]


def test_what_cannot_be_read_at_the_scan_is_told_at_every_read_until_the_next(tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 40000)
    put_trip(tmp_path, 0, 0, "critical", "garbage")
    put_device(tmp_path, 0, "cpufreq-cpu0", 1, 4)
    broken = put_device(tmp_path, 1, "devfreq-gpu", 1, 4) / "max_state"

    def read(path: Path) -> str:
        if path == broken:
            raise OSError(errno.EIO, "Input/output error")
        return read_text(path)

    cooling = CoolingSensor(replace(roots_in(tmp_path), read=read), Sensing())
    for now_s in (1.0, 2.0):
        expected = r"cpu-thermal/critical .*expected a decimal integer.*devfreq-gpu .*max_state\): Input/output error"
        with pytest.raises(SensorFailed, match=expected) as caught:
            cooling.read(now_s)
        assert [(r.name, r.value) for r in caught.value.readings] == [("cpufreq-cpu0", 0.25)]


def test_a_driver_that_goes_has_failed_and_comes_back(tmp_path: Path) -> None:
    device = put_device(tmp_path, 0, "cpufreq-cpu0", 1, 4)
    cooling = sensor(tmp_path)
    assert len(rows(cooling, 1.0)) == 1
    shutil.rmtree(device)
    with pytest.raises(SensorFailed, match="No such file"):
        cooling.read(2.0)
    with pytest.raises(SensorFailed, match="gone"):
        cooling.read(3.0)
    put_device(tmp_path, 7, "cpufreq-cpu0", 2, 4)
    assert [(row[1], row[2]) for row in rows(cooling, 3.0 + RESCAN_S)] == [("cpufreq-cpu0", 0.5)]


def test_a_state_above_the_highest_is_an_error() -> None:
    assert cooling_ratio("4", 4) == 1.0
    with pytest.raises(ValueError, match=r"0 to 4 \(max_state\), found 5"):
        cooling_ratio("5", 4)
