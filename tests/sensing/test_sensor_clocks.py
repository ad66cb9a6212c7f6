"""Clocks: what is off, off line or not known is left out; what goes is told."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import put, roots_in

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.clocks import HIGHEST_HZ, MOST_POLICIES, ClocksSensor, parse_frequency_hz
from flyball.sensing.sysfs import parse_integer, read_text


def sensor(folder: Path) -> ClocksSensor:
    return ClocksSensor(roots_in(folder), Sensing())


def put_policy(folder: Path, cpu: int, **files: str | int) -> Path:
    policy = folder / f"sys/devices/system/cpu/cpufreq/policy{cpu}"
    for name, text in files.items():
        put(policy / name, text)
    return policy


def put_device(folder: Path, name: str, cur: str | int, limit: str | int) -> Path:
    device = folder / f"sys/class/devfreq/{name}"
    put(device / "cur_freq", cur)
    put(device / "max_freq", limit)
    return device


def rows(readings: object) -> list[tuple[str, str, float]]:
    assert isinstance(readings, (list, tuple))
    assert all(isinstance(r, Reading) and r.unit == "Hz" and r.scope == "chip" for r in readings)
    return [(r.quantity, r.name, r.value) for r in readings]


def test_without_clocks_it_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no policy"):
        sensor(tmp_path).read(1.0)


def test_policies_in_kilohertz_and_devices_in_hertz_become_hertz_in_order(tmp_path: Path) -> None:
    put_policy(tmp_path, 10, scaling_cur_freq=900_000, scaling_max_freq=1_000_000, cpuinfo_max_freq=2_000_000)
    put_policy(tmp_path, 4, scaling_cur_freq=1_510_400, scaling_max_freq=1_728_000)
    put_device(tmp_path, "17000000.gpu", 306_000_000, 624_750_000)
    assert rows(sensor(tmp_path).read(1.0)) == [
        ("frequency", "cpu4", 1_510_400_000),
        ("frequency_limit", "cpu4", 1_728_000_000),
        ("frequency", "cpu10", 900_000_000),
        ("frequency_limit", "cpu10", 1_000_000_000),
        ("frequency", "17000000.gpu", 306_000_000),
        ("frequency_limit", "17000000.gpu", 624_750_000),
    ]


def test_without_a_limit_set_it_is_what_the_processor_can(tmp_path: Path) -> None:
    put_policy(tmp_path, 0, scaling_cur_freq=800_000, cpuinfo_max_freq=4_700_000)
    put_policy(tmp_path, 1, scaling_cur_freq=800_000)
    assert rows(sensor(tmp_path).read(1.0)) == [
        ("frequency", "cpu0", 800_000_000),
        ("frequency_limit", "cpu0", 4_700_000_000),
        ("frequency", "cpu1", 800_000_000),
    ]


@pytest.mark.parametrize("text", ["<unknown>", "0"])
def test_a_clock_that_is_off_or_not_known_is_left_out(text: str, tmp_path: Path) -> None:
    put_policy(tmp_path, 0, scaling_cur_freq=text, scaling_max_freq=1_800_000)
    put_device(tmp_path, "npu", 0, 900_000_000)
    assert rows(sensor(tmp_path).read(1.0)) == [
        ("frequency_limit", "cpu0", 1_800_000_000),
        ("frequency_limit", "npu", 900_000_000),
    ]


def test_processors_off_line_are_left_out_and_nothing_has_failed(tmp_path: Path) -> None:
    put_policy(tmp_path, 0, scaling_cur_freq=800_000)
    off = put_policy(tmp_path, 4, scaling_cur_freq=1, scaling_max_freq=1, cpuinfo_max_freq=1)

    def read(path: Path) -> str:
        if path.parent == off:
            raise OSError(errno.EBUSY, "busy")
        return read_text(path)

    clocks = ClocksSensor(replace(roots_in(tmp_path), read=read), Sensing())
    assert rows(clocks.read(1.0)) == [("frequency", "cpu0", 800_000_000)]


def test_a_device_that_vanishes_is_told_until_it_is_back(tmp_path: Path) -> None:
    put_policy(tmp_path, 0, scaling_cur_freq=800_000)
    gpu = put_device(tmp_path, "17000000.gpu", 306_000_000, 624_750_000)
    clocks = sensor(tmp_path)
    assert len(clocks.read(1.0)) == 3
    shutil.rmtree(gpu)
    for now_s in (2.0, 3.0):
        with pytest.raises(SensorFailed, match=r"17000000\.gpu: its clock is gone") as caught:
            clocks.read(now_s)
        assert rows(caught.value.readings) == [("frequency", "cpu0", 800_000_000)]
    put_device(tmp_path, "17000000.gpu", 306_000_000, 624_750_000)
    assert len(clocks.read(4.0)) == 3


def test_a_device_that_vanishes_while_it_is_read_is_told(tmp_path: Path) -> None:
    gpu = put_device(tmp_path, "17000000.gpu", 306_000_000, 624_750_000)

    def read(path: Path) -> str:
        shutil.rmtree(gpu, ignore_errors=True)
        return read_text(path)

    with pytest.raises(SensorFailed, match=r"17000000\.gpu .*cur_freq\): No such file"):
        ClocksSensor(replace(roots_in(tmp_path), read=read), Sensing()).read(1.0)


@pytest.mark.parametrize("content", ["", "garbage", "-1", str(2**64 - 1), "1.5"])
def test_a_broken_clock_is_named_and_its_neighbour_still_read(content: str, tmp_path: Path) -> None:
    put_policy(tmp_path, 0, scaling_cur_freq=800_000)
    put_policy(tmp_path, 1, scaling_cur_freq=content)
    with pytest.raises(SensorFailed, match=r"cpu1 \(.*scaling_cur_freq\): expected") as caught:
        sensor(tmp_path).read(1.0)
    assert rows(caught.value.readings) == [("frequency", "cpu0", 800_000_000)]


def test_a_server_does_not_crowd_out_the_others(tmp_path: Path) -> None:
    for cpu in range(MOST_POLICIES + 5):
        put_policy(tmp_path, cpu, scaling_cur_freq=800_000)
    names = [name for _, name, _ in rows(sensor(tmp_path).read(1.0))]
    assert names == [f"cpu{cpu}" for cpu in range(MOST_POLICIES)]


@given(st.text() | st.integers(min_value=-10, max_value=10**12).map(str), st.sampled_from([1, 1000]))
def test_a_clock_is_what_was_written_or_an_error(text: str, hz_per_unit: int) -> None:
    try:
        frequency_hz = parse_frequency_hz(text, hz_per_unit)
    except ValueError:
        return
    if frequency_hz is None:
        assert text.strip() == "<unknown>" or parse_integer(text) == 0
    else:
        assert frequency_hz == parse_integer(text) * hz_per_unit
        assert 0 < frequency_hz <= HIGHEST_HZ
