"""Pressure stall information: averages as ratios, and what to do where the kernel keeps none."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import put, roots_in

from flyball.config import Sensing
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.pressure import PressureSensor, parse_avg10

SOME = "some avg10=0.05 avg60=0.04 avg300=0.00 total=95654990"
FULL = "full avg10=99.00 avg60=0.01 avg300=0.00 total=60654990"


def sensor(folder: Path) -> PressureSensor:
    return PressureSensor(roots_in(folder), Sensing())


def put_all(folder: Path, **texts: str) -> None:
    for resource in ("cpu", "memory", "io"):
        put(folder / f"proc/pressure/{resource}", texts.get(resource, f"{SOME}\n{FULL}"))


def test_averages_of_ten_seconds_become_ratios(tmp_path: Path) -> None:
    put_all(tmp_path)
    readings = sensor(tmp_path).read(3.0)
    assert {(r.quantity, r.unit, r.scope, r.t_s) for r in readings} == {("pressure", "ratio", "machine", 3.0)}
    assert [(r.name, r.value) for r in readings] == [
        ("cpu_some", pytest.approx(0.0005)),
        ("memory_some", pytest.approx(0.0005)),
        ("memory_full", 0.99),
        ("io_some", pytest.approx(0.0005)),
        ("io_full", 0.99),
    ]


def test_an_older_kernel_has_no_full_for_the_processor(tmp_path: Path) -> None:
    put_all(tmp_path, cpu=SOME)
    assert len(sensor(tmp_path).read(1.0)) == 5


def test_a_kernel_without_it_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"psi=1 .*reboot"):
        sensor(tmp_path).read(1.0)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOENT])
def test_a_kernel_that_has_it_switched_off_is_unavailable_too(code: int, tmp_path: Path) -> None:
    put_all(tmp_path)

    def read(path: Path) -> str:
        raise OSError(code, "off")

    with pytest.raises(Unavailable, match="psi=1"):
        PressureSensor(replace(roots_in(tmp_path), read=read), Sensing()).read(1.0)


@pytest.mark.parametrize("content", ["", "garbage", FULL, "some avg10=x avg60=0.04 avg300=0.00 total=1"])
def test_a_broken_file_is_named_and_the_others_are_still_read(content: str, tmp_path: Path) -> None:
    put_all(tmp_path, memory=content)
    with pytest.raises(SensorFailed, match=r"pressure/memory: expected a line 'some avg10=") as caught:
        sensor(tmp_path).read(1.0)
    assert [r.name for r in caught.value.readings] == ["cpu_some", "io_some", "io_full"]


def test_more_than_all_of_the_time_is_refused() -> None:
    assert parse_avg10("some avg10=100.00 avg60=0.00 avg300=0.00 total=1", "some") == 1.0
    with pytest.raises(ValueError, match=r"0 to 100 %, found 100\.01"):
        parse_avg10("some avg10=100.01 avg60=0.00 avg300=0.00 total=1", "some")


@given(st.integers(min_value=0, max_value=10_000))
def test_every_average_comes_out_as_it_was_written(hundredths: int) -> None:
    text = f"some avg10={hundredths // 100}.{hundredths % 100:02} avg60=0.00 avg300=0.00 total=1\n{FULL}\n"
    assert parse_avg10(text, "some") == pytest.approx(hundredths / 10_000)
