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
from flyball.sensing.sensors.pressure import PERIOD_S, PressureSensor, RecentShare, parse_avg10, parse_total

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
    assert [r.name for r in sensor(tmp_path).read(1.0)] == [
        "cpu_some",
        "memory_some",
        "memory_full",
        "io_some",
        "io_full",
    ]


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


class Kernel:
    """Counts stalls as they happen and sums them up every two seconds, at a phase of its own."""

    def __init__(self, phase_s: float) -> None:
        self.phase_s = phase_s
        self.busy: list[tuple[float, float, float]] = []  # from, to, share

    def total_us(self, now_s: float) -> int:
        summed_s = (now_s - self.phase_s) // PERIOD_S * PERIOD_S + self.phase_s
        return int(sum(max(0.0, min(summed_s, end) - start) * share for start, end, share in self.busy) * 1e6)


@given(st.floats(0, 1.99), st.floats(0.01, 1), st.sampled_from([0.25, 1.0, 1.3]))
def test_the_recent_share_is_that_of_a_steady_load_wherever_the_kernel_s_sums_fall(
    phase_s: float, share: float, period_s: float
) -> None:
    kernel, recent = Kernel(phase_s), RecentShare()
    kernel.busy = [(0.0, 1e9, share)]
    found = [recent.update(100 + i * period_s, kernel.total_us(100 + i * period_s)) for i in range(200)]
    assert found[0] is None
    assert found[20:] == [pytest.approx(share, rel=1e-3)] * 180


def test_the_recent_share_follows_a_load_that_comes_and_goes() -> None:
    kernel, recent = Kernel(0.3), RecentShare()
    kernel.busy = [(120.0, 150.0, 0.8)]
    found = {t_s: recent.update(float(t_s), kernel.total_us(t_s)) for t_s in range(100, 170)}
    assert found[100] is None
    assert [found[t_s] for t_s in range(106, 121)] == [0.0] * 15
    assert [found[t_s] for t_s in range(126, 150)] == [pytest.approx(0.8)] * 24
    assert [found[t_s] for t_s in range(158, 170)] == [0.0] * 12


def test_a_counter_that_begins_anew_gives_nothing_until_it_is_known_again() -> None:
    recent = RecentShare()
    for t_s, total_us in ((0.0, 0), (2.0, 10**6), (4.0, 2 * 10**6)):
        last = recent.update(t_s, total_us)
    assert last == 0.5
    assert recent.update(6.0, 5) is None
    assert recent.update(8.0, 10**6) is None
    assert recent.update(10.0, 2 * 10**6) == 0.5


def test_the_sensor_tells_the_recent_share_of_the_processor_as_soon_as_it_knows(tmp_path: Path) -> None:
    pressure = sensor(tmp_path)
    found = []
    for t_s, total_us in ((10.0, 0), (12.0, 400_000), (14.0, 800_000)):
        put_all(tmp_path, cpu=f"some avg10=5.00 avg60=0.04 avg300=0.00 total={total_us}")
        found.append({r.name: r.value for r in pressure.read(t_s)})
    assert [x.get("cpu_some_now") for x in found] == [None, None, pytest.approx(0.2)]
    assert found[-1]["cpu_some"] == 0.05


def test_a_total_that_is_not_there_is_told_and_the_average_still_read(tmp_path: Path) -> None:
    put_all(tmp_path, cpu="some avg10=0.05 avg60=0.04 avg300=0.00")
    with pytest.raises(SensorFailed, match=r"pressure/cpu: expected 'some avg10=\.\.\. total=") as caught:
        sensor(tmp_path).read(1.0)
    assert caught.value.readings[0].name == "cpu_some"
    assert parse_total(f"{SOME}\n{FULL}", "full") == 60654990


def test_more_than_all_of_the_time_is_refused() -> None:
    assert parse_avg10("some avg10=100.00 avg60=0.00 avg300=0.00 total=1", "some") == 1.0
    with pytest.raises(ValueError, match=r"0 to 100 %, found 100\.01"):
        parse_avg10("some avg10=100.01 avg60=0.00 avg300=0.00 total=1", "some")


@given(st.integers(min_value=0, max_value=10_000))
def test_every_average_comes_out_as_it_was_written(hundredths: int) -> None:
    text = f"some avg10={hundredths // 100}.{hundredths % 100:02} avg60=0.00 avg300=0.00 total=1\n{FULL}\n"
    assert parse_avg10(text, "some") == pytest.approx(hundredths / 10_000)
