"""Processor, memory, load: from the root that was given, and none of it made up."""

from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import put, put_proc, roots_in

from flyball.config import Sensing
from flyball.ports import UNITS, Reading
from flyball.sensing.contract import Roots, SensorFailed, Unavailable
from flyball.sensing.sensors.host import HostSensor, parse_loadavg


def sensor(folder: Path) -> HostSensor:
    return HostSensor(roots_in(folder), Sensing())


def values(readings: object) -> dict[str, float]:
    assert isinstance(readings, (list, tuple))
    return {r.quantity: r.value for r in readings if isinstance(r, Reading)}


def test_the_first_read_knows_no_utilization_and_the_second_does(tmp_path: Path) -> None:
    put_proc(tmp_path, "100 0 100 700 100 0 0 0 0 0")
    host = sensor(tmp_path)
    first = values(host.read(1.0))
    memory = {"memory_total": 1024000, "memory_available": 614400, "memory_used": 409600}
    assert first == {**memory, "load_1m": 0.5, "runnable": 0}
    # 30 user (10 of them a guest's), 10 stolen, 50 idle, 10 waiting for I/O
    put_proc(tmp_path, "130 0 100 750 110 0 0 10 10 0")
    second = values(host.read(2.0))
    assert (second["cpu_utilization"], second["cpu_steal"]) == (pytest.approx(0.4), pytest.approx(0.1))
    assert "cpu_utilization" not in values(host.read(3.0))  # no time has been counted


def test_iowait_that_runs_backwards_does_not_leave_the_range(tmp_path: Path) -> None:
    put_proc(tmp_path, "100 0 100 700 100 0 0 0 0 0")
    host = sensor(tmp_path)
    host.read(1.0)
    put_proc(tmp_path, "200 0 100 700 50 0 0 0 0 0")
    assert values(host.read(2.0))["cpu_utilization"] == 1.0


def test_stolen_time_is_0_on_a_machine_of_its_own_and_never_out_of_range(tmp_path: Path) -> None:
    put_proc(tmp_path, "100 0 100 700 100 0 0 50 0 0")
    host = sensor(tmp_path)
    assert "cpu_steal" not in values(host.read(1.0))
    put_proc(tmp_path, "200 0 100 800 100 0 0 50 0 0")
    assert values(host.read(2.0))["cpu_steal"] == 0.0
    put_proc(tmp_path, "300 0 100 900 100 0 0 20 0 0")  # a machine that moved to another host: nobody knows
    moved = values(host.read(3.0))
    assert "cpu_steal" not in moved
    assert moved["cpu_utilization"] == pytest.approx(70 / 170)


def test_counters_that_start_anew_give_no_utilization(tmp_path: Path) -> None:
    put_proc(tmp_path, "100 0 100 700 100 0 0 0 0 0")
    host = sensor(tmp_path)
    host.read(1.0)
    put_proc(tmp_path, "1 0 1 7 1 0 0 0 0 0")
    assert "cpu_utilization" not in values(host.read(2.0))
    put_proc(tmp_path, "2 0 1 8 1 0 0 0 0 0")
    assert values(host.read(3.0))["cpu_utilization"] == 0.5


def test_runnable_tasks_are_counted_at_every_read_without_the_one_that_reads(tmp_path: Path) -> None:
    put_proc(tmp_path)
    host = sensor(tmp_path)
    found = []
    for running in (1, 7, 3, 0):  # 0: a captured file, of which nobody ran
        put(tmp_path / "proc/loadavg", f"12.25 0.40 0.30 {running}/1893 4242")
        (runnable,) = [r for r in host.read(1.0) if r.quantity == "runnable"]
        found.append((runnable.value, runnable.unit, runnable.name))
    assert found == [(0, "tasks", "machine"), (6, "tasks", "machine"), (2, "tasks", "machine"), (0, "tasks", "machine")]
    assert UNITS["runnable"] == "tasks"


@pytest.mark.parametrize("text", ["", "0.5", "0.50 0.40 0.30", "0.50 0.40 0.30 x/9 1", "-1.00 0.40 0.30 1/9 1"])
def test_a_broken_loadavg_gives_neither_load_nor_tasks_and_is_named(text: str, tmp_path: Path) -> None:
    put_proc(tmp_path)
    put(tmp_path / "proc/loadavg", text)
    with pytest.raises(SensorFailed, match=r"loadavg: expected '0\.50 0\.40 0\.30 1/100 \.\.\.', found") as caught:
        sensor(tmp_path).read(1.0)
    assert not {"load_1m", "runnable"} & set(values(caught.value.readings))


def test_the_kernel_writes_runnable_tasks_as_they_are_in_stat() -> None:
    """/proc/loadavg is read in place of procs_running: on this machine, too, its fourth field counts what runs now."""
    text = Path("/proc/loadavg").read_text()
    assert parse_loadavg(text) == (float(text.split()[0]), int(text.split()[3].split("/")[0]) - 1)


def test_without_procfs_it_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is procfs mounted"):
        sensor(tmp_path).read(1.0)


@pytest.mark.filterwarnings("ignore:.*memory stats couldn't be determined:RuntimeWarning")
@pytest.mark.parametrize("stat", ["", "cpu", "1 2 3", "a b c d e f g h i j", "nan 0 0 nan 0 0 0 0 0 0", "\0" * 40])
@pytest.mark.parametrize(
    "meminfo", ["", "MemTotal:", "MemTotal: x kB", "MemTotal: 1000 kB", "\n\n", "MemTotal: 0 kB\nMemFree: 0 kB"]
)
def test_broken_files_are_named_and_the_load_still_read(stat: str, meminfo: str, tmp_path: Path) -> None:
    put_proc(tmp_path, stat, meminfo)
    with pytest.raises(SensorFailed, match=r"stat.*; .*meminfo") as caught:
        sensor(tmp_path).read(1.0)
    assert values(caught.value.readings) == {"load_1m": 0.5, "runnable": 0}


def test_what_psutil_makes_zero_is_left_out(tmp_path: Path) -> None:
    memory = "MemTotal: 1000 kB\nMemFree: 0 kB\nMemAvailable: -5 kB\nBuffers: 1 kB\nCached: 1 kB\nActive: 1 kB\n"
    put_proc(tmp_path, meminfo=memory + "Inactive: 1 kB\nShmem: 1 kB")
    with pytest.warns(RuntimeWarning, match="set to 0"), pytest.raises(SensorFailed, match="available") as caught:
        sensor(tmp_path).read(1.0)
    assert values(caught.value.readings) == {"load_1m": 0.5, "runnable": 0}


@pytest.mark.filterwarnings("ignore:.*memory stats couldn't be determined:RuntimeWarning")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(texts=st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=60)] * 3))
def test_no_text_becomes_a_reading_that_is_not_in_it(texts: tuple[str, str, str], tmp_path: Path) -> None:
    for name, text in zip(("stat", "meminfo", "loadavg"), texts, strict=True):
        put(tmp_path / "proc" / name, text)
    try:
        found = values(sensor(tmp_path).read(1.0))
    except SensorFailed as error:
        found = values(error.readings)
    assert set(found) <= {"load_1m", "runnable"}
    if found:
        assert found["load_1m"] == float(texts[2].partition(" ")[0])


def test_this_machine_can_be_read_and_psutils_root_is_left_as_it_was() -> None:
    host = HostSensor(Roots(), Sensing())
    assert set(values(host.read(1.0))) >= {"memory_total", "memory_available", "memory_used", "load_1m", "runnable"}
    assert psutil.PROCFS_PATH == "/proc"
