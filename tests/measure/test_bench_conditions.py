"""What disturbed a run is found in procfs, sysfs and readings, and what cannot be read is not taken for quiet."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from flyball.measure.conditions import (
    ProcessorTime,
    children,
    disturbance,
    dropped,
    flagged_s,
    frequency_limits,
    machine,
    on_battery,
    others_share,
    peak_resident_bytes,
    processor_time,
)
from flyball.ports import UNITS, Quantity, Reading
from flyball.sensing.contract import Roots

PROC = Path("/proc")


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def tree(folder: Path) -> Roots:
    return Roots(sys=folder / "sys", proc=folder / "proc", etc=folder / "etc", var=folder / "var")


def put_process(folder: Path, pid: int, ticks: str, begot: str = "") -> None:
    # The name may hold spaces and brackets, and the ticks are the fields 14 to 17 counted from 1 (proc(5)).
    put(folder / f"proc/{pid}/stat", f"{pid} (a) b) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 20 0 1 0 5")
    put(folder / f"proc/{pid}/task/{pid}/children", begot)


# ---------------------------------------------------------------------------------------------------- processors


def test_own_time_is_that_of_the_process_its_ended_children_and_its_workers(tmp_path: Path) -> None:
    put(tmp_path / "proc/stat", "cpu  100 10 50 800 40 3 2 5 100 0\ncpu0 1 1 1 1 1 1 1 1 1 1")
    put_process(tmp_path, 7, "20 5 3 2", "8 9")
    put_process(tmp_path, 8, "40 4 1000 1000")  # what a worker's own children took is not counted twice
    put_process(tmp_path, 9, "1 1 0 0")
    found = processor_time(tmp_path / "proc", 7)
    assert found == ProcessorTime(total=1010, busy=170, own=30 + 44 + 2), "guests' time stands in user already"


def test_what_others_took_is_what_is_left() -> None:
    before = ProcessorTime(total=1000, busy=100, own=50)
    assert others_share(before, ProcessorTime(total=2000, busy=700, own=550)) == pytest.approx(0.1)
    assert others_share(before, ProcessorTime(total=2000, busy=590, own=550)) == 0.0, "rounding is no negative share"


@pytest.mark.parametrize("after", [None, ProcessorTime(total=1000, busy=100, own=50)])
def test_not_known_is_not_quiet(after: ProcessorTime | None) -> None:
    assert others_share(ProcessorTime(total=1000, busy=100, own=50), after) is None
    assert others_share(None, after) is None


@pytest.mark.parametrize("stat", ["", "cpu", "cpu 1 2 x 4 5 6 7 8", None])
def test_a_procfs_that_does_not_tell(tmp_path: Path, stat: str | None) -> None:
    if stat is not None:
        put(tmp_path / "proc/stat", stat)
    assert processor_time(tmp_path / "proc", 7) is None


def test_this_machine_s_own_procfs() -> None:
    spinning = (
        "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
        "print(flush=True)\ninput()"
    )
    before = processor_time(PROC, os.getpid())
    child = subprocess.Popen([sys.executable, "-c", spinning], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        child.stdout.readline()
        assert child.pid in children(PROC, os.getpid())
        during = processor_time(PROC, os.getpid())
        peak = peak_resident_bytes(PROC, [child.pid])
    finally:
        child.communicate(b"\n", timeout=20)
    after = processor_time(PROC, os.getpid())
    assert before is not None
    assert during is not None
    assert after is not None
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    assert (during.own - before.own) * tick_s >= 0.25, "a child's time is ours while it lives"
    assert after.own >= during.own, "and after it has ended"
    assert peak is not None
    assert peak > 1 << 20


def test_the_peak_of_a_process_that_is_gone_is_not_known(tmp_path: Path) -> None:
    put(tmp_path / "1/status", "Name:\tx\nVmHWM:\t    2048 kB")
    put(tmp_path / "2/status", "Name:\tkernel thread")
    assert peak_resident_bytes(tmp_path, [1]) == 2 << 20
    assert peak_resident_bytes(tmp_path, [1, 2]) is None
    assert peak_resident_bytes(tmp_path, [1, 3]) is None
    assert peak_resident_bytes(tmp_path, []) is None


# ------------------------------------------------------------------------------------------------------- machine


def test_the_power_mode_of_a_jetson_and_of_others(tmp_path: Path) -> None:
    put(tmp_path / "sys/firmware/acpi/platform_profile", "balanced")
    assert machine(tree(tmp_path)).power_mode == "balanced"
    put(tmp_path / "proc/device-tree/compatible", "nvidia,tegra234")
    put(tmp_path / "var/lib/nvpmodel/status", "pmode:0002 fmode:fan_mode_quiet")
    put(tmp_path / "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >")
    assert machine(tree(tmp_path)).power_mode == "MAXN_SUPER"


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    found = machine(tree(tmp_path))
    assert (found.power_mode, found.cpu_governor, found.cpu, found.cpus) == ("", "", "", None)
    assert found.board == f"generic {found.arch}"


def test_a_battery_that_is_being_emptied(tmp_path: Path) -> None:
    supply = tmp_path / "sys/class/power_supply"
    put(supply / "AC/type", "Mains")
    put(supply / "mouse/type", "Battery")
    put(supply / "mouse/status", "Discharging")
    put(supply / "mouse/scope", "Device")
    put(supply / "BAT0/type", "Battery")
    put(supply / "BAT0/status", "Charging")
    assert not on_battery(tree(tmp_path))
    put(supply / "BAT0/status", "Discharging")
    assert on_battery(tree(tmp_path))


# ------------------------------------------------------------------------------------------------------ readings


def test_a_limit_that_drops_is_told_with_its_place(tmp_path: Path) -> None:
    policy = tmp_path / "sys/devices/system/cpu/cpufreq/policy0"
    put(policy / "scaling_max_freq", "1800000")
    put(tmp_path / "sys/class/devfreq/17000000.gpu/max_freq", "918000000")
    put(tmp_path / "sys/class/devfreq/empty/max_freq", "")
    before = frequency_limits(tree(tmp_path))
    assert before == {"policy0": 1.8e9, "17000000.gpu": 918e6}
    put(policy / "scaling_max_freq", "1200000")
    assert dropped(before, frequency_limits(tree(tmp_path))) == [
        "the frequency limit of policy0 dropped from 1800 to 1200 MHz"
    ]
    assert dropped(before, {"policy0": 1.799e9}) == [], "rounding, and one that cannot be read any more"


class Sampled:
    """Implements energy.PowerSource over given samples."""

    def __init__(self, samples: dict[tuple[Quantity, str], list[tuple[float, float]]]) -> None:
        self._samples = samples

    def latest(self) -> Sequence[Reading]:
        return [
            Reading(quantity=q, name=n, value=found[-1][1], unit=UNITS[q], scope="board", sensor="s", t_s=found[-1][0])
            for (q, n), found in self._samples.items()
        ]

    def samples(self, quantity: Quantity, name: str, since_s: float) -> Sequence[tuple[float, float]]:
        return [(t_s, value) for t_s, value in self._samples.get((quantity, name), []) if t_s >= since_s]

    def period_s(self, sensor: str) -> float:
        return 1.0


def test_throttling_within_the_run_counts_and_outside_of_it_does_not() -> None:
    quiet: list[tuple[float, float]] = [(float(t), 0.0) for t in range(30)]
    outside = [(t, 1.0 if t < 5 or t > 20 else 0.0) for t, _ in quiet]
    inside = [(t, 1.0 if 8 <= t < 11 else 0.0) for t, _ in quiet]
    source = Sampled({("throttled", "soft limit"): outside, ("temperature", "cpu"): [(t, 40 + t) for t, _ in quiet]})
    found = disturbance(source, source.latest(), 5.0, 20.0)
    assert (found.throttled_s, found.reasons) == (0.0, ())
    assert found.temperature_max_c == 60.0
    source = Sampled({("throttled", "soft limit"): inside, ("throttled", "under_voltage"): quiet})
    found = disturbance(source, source.latest(), 5.0, 20.0)
    assert found.throttled_s == 3.0
    assert found.reasons == ("throttled (soft limit) for 3.0 s of the run",)


def test_an_alarm_speaks_against_the_run_but_does_not_tell_of_throttling() -> None:
    source = Sampled({("alarm", "VDD_IN"): [(6.0, 0.0), (7.0, 1.0), (8.0, 0.0)]})
    found = disturbance(source, source.latest(), 5.0, 20.0)
    assert found.reasons == ("alarm (VDD_IN) for 1.0 s of the run",)
    assert found.throttled_s is None


def test_a_limit_that_dropped_and_rose_again_within_the_run() -> None:
    source = Sampled({("frequency_limit", "cpu"): [(5.0, 1.8e9), (9.0, 6e8), (12.0, 1.8e9)]})
    found = disturbance(source, source.latest(), 5.0, 20.0)
    assert found.reasons == ("the frequency limit of cpu dropped from 1800 to 600 MHz",)


def test_nothing_known_is_not_nothing_wrong() -> None:
    found = disturbance(Sampled({}), (), 5.0, 20.0)
    assert (found.throttled_s, found.temperature_max_c, found.reasons) == (None, None, ())


def test_a_flag_in_the_last_sample_alone_was_up() -> None:
    assert flagged_s([(1.0, 0.0), (2.0, 1.0)], 2.0) == 0.0
    assert flagged_s([(1.0, 0.0), (2.0, 0.0)], 2.0) is None


def test_what_happened_since_boot_is_not_of_the_run_and_over_current_is() -> None:
    steady = [(float(t), 1.0) for t in range(30)]
    series: dict[tuple[Quantity, str], list[tuple[float, float]]] = {
        ("throttled", "throttled_since_boot"): steady,
        ("throttled", "throttled"): [(t, 0.0) for t, _ in steady],
        ("cooling", "pwm-fan"): steady,
    }
    quiet = disturbance(Sampled(series), Sampled(series).latest(), 5.0, 25.0)
    assert (quiet.reasons, quiet.throttled_s) == ((), 0.0)
    series |= {("over_current", "oc3"): [(t, 500.0) for t, _ in steady], ("cooling", "thermal-cpufreq-0"): steady}
    reasons = disturbance(Sampled(series), Sampled(series).latest(), 5.0, 25.0).reasons
    assert reasons == ("over_current (oc3) reached 500 1/s", "cooling (thermal-cpufreq-0) reached 1 ratio")


def test_a_cooling_device_that_slows_down_tells_for_how_long_and_one_at_rest_tells_nothing() -> None:
    def cooling(first_s: float, last_s: float) -> Sampled:
        steps = [(float(t), 0.4 if first_s <= t < last_s else 0.0) for t in range(30)]
        return Sampled({("cooling", "thermal-cpufreq-0"): steps})

    slowed = disturbance(source := cooling(8, 12), source.latest(), 5.0, 25.0)
    assert slowed.throttled_s == 4.0
    assert slowed.reasons == ("cooling (thermal-cpufreq-0) reached 0.4 ratio",)
    at_rest = disturbance(source := cooling(0, 0), source.latest(), 5.0, 25.0)
    assert (at_rest.throttled_s, at_rest.reasons) == (None, ()), "the processor may slow itself down without the kernel"


@pytest.mark.parametrize("silent", [(8.0, 20.0), (0.0, 15.0), (12.0, 40.0)])
def test_a_sensor_that_was_silent_for_a_part_of_the_run_does_not_say_that_nothing_throttled(
    silent: tuple[float, float],
) -> None:
    heard = [(float(t), 0.0) for t in range(30) if not silent[0] < t < silent[1]]
    whole = [(float(t), 0.0) for t in range(30)]
    source = Sampled({("throttled", "throttled"): heard, ("throttled", "capped"): whole})
    found = disturbance(source, source.latest(), 5.0, 25.0)
    assert (found.throttled_s, found.unseen) == (None, ("s",))
    heard = [(t_s, 1.0 if t_s == 7 or t_s == 22 else 0.0) for t_s, _ in heard]
    found = disturbance(Sampled({("throttled", "throttled"): heard}), source.latest(), 5.0, 25.0)
    assert found.throttled_s, "what was seen of it counts"
    assert found.reasons
