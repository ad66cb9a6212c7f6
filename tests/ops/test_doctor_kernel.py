"""What the kernel is set to, and memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doctor_machine import Looker


@pytest.fixture
def look(tmp_path: Path) -> Looker:
    return Looker(tmp_path)


@pytest.mark.parametrize(
    ("file", "start"),
    [
        ("boot/firmware/cmdline.txt", "sudo sed -i '1 s/$/ psi=1/'"),
        ("boot/extlinux/extlinux.conf", "sudo sed -i '/^[[:space:]]*APPEND/ s/$/ psi=1/'"),
        ("tree/etc/default/grub", "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&psi=1 /'"),
        ("nothing", "# add psi=1"),
    ],
)
def test_pressure_figures_are_switched_on_where_the_boot_loader_says(
    look: Looker, tmp_path: Path, file: str, start: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    finding = look("psi", "proc/cmdline: quiet")
    assert finding.severity == "info"
    assert finding.fix.startswith(start)


def test_a_kernel_without_pressure_figures_has_no_fix(look: Looker) -> None:
    finding = look("psi", "proc/cmdline: quiet psi=1")
    assert (finding.severity, finding.fix) == ("info", "")
    assert look("psi", "proc/pressure/memory: some avg10=0.00").severity == "ok"


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("sys/fs/cgroup/cgroup.controllers: cpuset cpu io memory pids", "ok"),
        ("sys/fs/cgroup/cgroup.controllers: cpuset cpu io pids\nproc/cmdline: quiet", "warning"),
        ("sys/fs/cgroup/memory/tasks: 1", "ok"),
        ("proc/cgroups:\n| #subsys_name hierarchy num_cgroups enabled\n| memory 0 1 0\nproc/cmdline: q", "warning"),
        ("proc/cgroups:\n| #subsys_name hierarchy num_cgroups enabled\n| cpu 0 1 1", "unknown"),
        ("proc/cmdline: quiet", "unknown"),
    ],
)
def test_the_memory_controller(look: Looker, text: str, severity: str) -> None:
    finding = look("memory-cgroup", text)
    assert finding.severity == severity, finding
    if severity == "warning":
        assert "cgroup_enable=memory" in finding.fix


@pytest.mark.parametrize(
    ("governor", "driver", "severity"),
    [
        ("powersave", "cpufreq-dt", "warning"),
        ("powersave", "intel_pstate", "info"),
        ("ondemand", "cpufreq-dt", "info"),
        ("schedutil", "cpufreq-dt", "ok"),
        ("performance", "cpufreq-dt", "ok"),
    ],
)
def test_the_clock_of_the_processor(look: Looker, governor: str, driver: str, severity: str) -> None:
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    finding = look("cpu-governor", f"{policy}/scaling_governor: {governor}\n{policy}/scaling_driver: {driver}")
    assert finding.severity == severity
    if severity != "ok":
        assert re.match(r"echo performance \| sudo tee \S+/cpufreq/policy\*/scaling_governor", finding.fix)


def test_a_governor_that_cannot_be_read_is_not_ok(look: Looker) -> None:
    assert look("cpu-governor", "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor ! EIO").severity == "unknown"


SWAPS = "proc/swaps:\n| Filename Type Size Used Priority\n| "
MOUNTS = """
proc/self/mountinfo:
| 22 1 179:2 / / rw - ext4 /dev/root rw
| 30 22 8:1 / /data rw - ext4 /dev/sda1 rw
| 31 22 0:30 / /odd\\040name rw - btrfs /dev/root rw
sys/dev/block/179:2 -> ../../devices/platform/soc/mmc0/block/mmcblk0/mmcblk0p2
sys/dev/block/8:1 -> ../../devices/usb1/block/sda/sda1
sys/block/mmcblk0/device/type: SD
""".replace("\\040", "\\\\040")


@pytest.mark.parametrize(
    ("row", "severity", "told"),
    [
        ("/var/swap file 102396 0 -2", "warning", "an SD card (mmcblk0)"),
        ("/dev/mmcblk1p3 partition 524288 0 -2", "warning", "an SD card or eMMC (mmcblk1)"),
        ("/data/swap file 102396 0 -2", "ok", "not on a card"),
        ("/odd\\\\040name/swap file 102396 0 -2", "unknown", "cannot be told"),
        ("/dev/zram0 partition 1024 0 100", "ok", "not on a card"),
    ],
)
def test_swap_on_a_card(look: Looker, row: str, severity: str, told: str) -> None:
    finding = look("swap-on-card", f"{SWAPS}{row}\n{MOUNTS}")
    assert (finding.severity, told in finding.found) == (severity, True), finding
    assert finding.severity != "warning" or finding.fix.startswith(f"sudo swapoff {row.split()[0]}")


@pytest.mark.parametrize(
    ("total_mib", "available_mib", "severity"),
    [(4000, 3000, "ok"), (512, 300, "info"), (4000, 200, "warning"), (4000, 40, "error")],
)
def test_memory(look: Looker, total_mib: int, available_mib: int, severity: str) -> None:
    text = f"proc/meminfo:\n| MemTotal: {total_mib << 10} kB\n| MemAvailable: {available_mib << 10} kB\n"
    assert look("memory", text).severity == severity


def test_memory_that_is_not_told_is_not_none(look: Looker) -> None:
    finding = look("memory", "proc/meminfo: MemTotal: 1000 kB")
    assert (finding.severity, "MemAvailable" in finding.found) == ("unknown", True)


@pytest.mark.parametrize(
    ("some", "full", "severity"), [("0.05", "0.00", "ok"), ("12.5", "1.0", "warning"), ("40.00", "30.1", "error")]
)
def test_pressure(look: Looker, some: str, full: str, severity: str) -> None:
    rest = "avg60=0.00 avg300=0.00 total=1"
    text = f"proc/pressure/memory:\n| some avg10={some} {rest}\n| full avg10={full} {rest}\n"
    assert look("memory-pressure", text).severity == severity


@pytest.mark.parametrize(
    ("moved", "severity"), [((0, 0), "ok"), ((0, 5000), "warning"), ((4000, 5000), "error"), (None, "unknown")]
)
def test_thrashing_without_pressure_figures(
    look: Looker, tmp_path: Path, moved: tuple[int, int] | None, severity: str
) -> None:
    vmstat = "proc/vmstat:\n| pswpin {}\n| pswpout {}\n"

    def later(seconds: float) -> None:
        assert moved is not None, "nothing to wait for without swap"
        (tmp_path / "tree/proc/vmstat").write_text(f"pswpin {100 + moved[0]}\npswpout {200 + moved[1]}\n")

    swaps = f"{SWAPS}/dev/zram0 partition 1024 0 1\n" if moved else "proc/swaps: Filename Type Size Used Priority\n"
    assert look("memory-pressure", swaps + vmstat.format(100, 200), pause=later).severity == severity
