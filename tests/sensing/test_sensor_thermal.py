"""Thermal zones: gated is left out, broken is told, neither is ever 0."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import put_zone, roots_in

from flyball.config import Sensing
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.thermal import ThermalSensor, zone_temp_c
from flyball.sensing.sysfs import parse_integer, read_text


def sensor(folder: Path) -> ThermalSensor:
    return ThermalSensor(roots_in(folder), Sensing())


def test_no_zone_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no thermal zone"):
        sensor(tmp_path).read(1.0)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENODATA])
def test_a_gated_zone_is_left_out_and_nothing_has_failed(code: int, tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 48312)
    gated = put_zone(tmp_path, 1, "cv0-thermal", 0)

    def read(path: Path) -> str:
        if path == gated:
            raise OSError(code, "gated")
        return read_text(path)

    readings = ThermalSensor(replace(roots_in(tmp_path), read=read), Sensing()).read(1.0)
    assert [(r.name, r.value, r.unit, r.scope, r.t_s) for r in readings] == [("cpu-thermal", 48.312, "C", "zone", 1.0)]


def test_the_constant_of_the_nanos_pmic_is_ignored(tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "PMIC-Die", 100000)
    put_zone(tmp_path, 1, "CPU-therm", 100000)
    assert [(r.name, r.value) for r in sensor(tmp_path).read(1.0)] == [("CPU-therm", 100.0)]


@pytest.mark.parametrize(
    "content", ["", "garbage", "48.3", "-89700", "166050", str(0xFFFF * 1000), "4294967295", b"\xff\xff", b"\0\0\0\0"]
)
def test_a_broken_zone_is_named_and_its_neighbour_still_read(content: str | bytes, tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 48312)
    put_zone(tmp_path, 1, "gpu-thermal", content)
    with pytest.raises(SensorFailed, match=r"thermal_zone1 \(gpu-thermal\)") as caught:
        sensor(tmp_path).read(1.0)
    assert [(r.name, r.value) for r in caught.value.readings] == [("cpu-thermal", 48.312)]


def test_an_io_error_of_every_zone_is_a_failure_without_readings(tmp_path: Path) -> None:
    for number in range(2):
        temp = put_zone(tmp_path, number, "x", 1)
        temp.unlink()
        temp.symlink_to("/proc/self/mem")  # a read at 0 is a real EIO
    with pytest.raises(SensorFailed, match=r"thermal_zone0 \(x\): Input/output error; thermal_zone1") as caught:
        sensor(tmp_path).read(1.0)
    assert caught.value.readings == ()


def test_zones_that_vanish_have_failed_and_zones_that_come_are_read(tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 40000)
    thermal = sensor(tmp_path)
    assert len(thermal.read(1.0)) == 1
    put_zone(tmp_path, 1, "gpu-thermal", 41000)
    assert [r.name for r in thermal.read(2.0)] == ["cpu-thermal", "gpu-thermal"]
    shutil.rmtree(tmp_path / "sys/class/thermal")
    with pytest.raises(SensorFailed, match="gone"):
        thermal.read(3.0)


def test_one_zone_that_is_gone_has_failed_and_its_neighbour_is_read(tmp_path: Path) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 40000)
    put_zone(tmp_path, 1, "gpu-thermal", 41000)
    thermal = sensor(tmp_path)
    thermal.read(1.0)
    shutil.rmtree(tmp_path / "sys/class/thermal/thermal_zone1")
    for now_s in (2.0, 3.0):
        with pytest.raises(SensorFailed, match=r"^gpu-thermal: its zone is gone$") as caught:
            thermal.read(now_s)
        assert [r.name for r in caught.value.readings] == ["cpu-thermal"]
    put_zone(tmp_path, 5, "gpu-thermal", 42000)  # registered anew, under the next number
    assert [(r.name, r.value) for r in thermal.read(4.0)] == [("cpu-thermal", 40.0), ("gpu-thermal", 42.0)]


def test_zones_of_one_type_get_their_numbers_in_order(tmp_path: Path) -> None:
    for number in (10, 2):
        put_zone(tmp_path, number, "acpitz", 20000 + number)
    assert [r.name for r in sensor(tmp_path).read(1.0)] == ["acpitz-2", "acpitz-10"]


@given(st.text() | st.integers(min_value=-(10**7), max_value=10**7).map(str))
def test_a_temperature_is_what_was_written_or_an_error(text: str) -> None:
    try:
        temp_c = zone_temp_c("cpu-thermal", text)
    except ValueError:
        return
    assert temp_c == parse_integer(text) / 1000
    assert -40 <= temp_c <= 150
