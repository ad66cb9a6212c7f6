"""A board is what its firmware says, and never what its maker left unfilled."""

from pathlib import Path

import pytest
from trees import put, roots_in

from flyball.sensing.board import identify


def test_the_device_tree_wins_over_dmi(tmp_path: Path) -> None:
    put(tmp_path / "proc/device-tree/model", b"Raspberry Pi Zero 2 W Rev 1.0\0")
    put(tmp_path / "proc/device-tree/compatible", b"raspberrypi,model-zero-2-w\0brcm,bcm2837\0")
    put(tmp_path / "sys/class/dmi/id/product_name", "Something")
    board = identify(roots_in(tmp_path), "aarch64")
    assert (board.name, board.vendor, board.soc) == ("Raspberry Pi Zero 2 W Rev 1.0", "raspberrypi", "bcm2837")
    assert board.source == "device-tree"


@pytest.mark.parametrize("filler", ["To be filled by O.E.M.", "Default string", "System Product Name", "  ", "...", ""])
def test_fillers_are_no_name(filler: str, tmp_path: Path) -> None:
    put(tmp_path / "sys/class/dmi/id/product_name", filler)
    board = identify(roots_in(tmp_path), "x86_64")
    assert (board.name, board.source) == ("generic x86_64", "")


@pytest.mark.parametrize(
    ("present", "cpus"), [("0", 1), ("0-3", 4), ("0-3,6-7", 6), ("", None), ("3-1", None), ("0-x", None), ("0-", None)]
)
def test_processors_are_counted_or_not_known(present: str, cpus: int | None, tmp_path: Path) -> None:
    put(tmp_path / "sys/devices/system/cpu/present", present)
    assert identify(roots_in(tmp_path), "riscv64").cpus == cpus


def test_garbage_in_the_device_tree_does_not_stop_it(tmp_path: Path) -> None:
    put(tmp_path / "proc/device-tree/model", b"\xff\xfe\0")
    put(tmp_path / "proc/device-tree/compatible", b"\0\0")
    assert identify(roots_in(tmp_path), "armv7l").name == "generic armv7l"


def test_a_name_is_one_line_that_prints(tmp_path: Path) -> None:
    put(tmp_path / "proc/device-tree/model", b"Evil\x1b[2J\nBoard\0 2\0")
    put(tmp_path / "proc/device-tree/compatible", b"ev\x07il,board\0evil,so\x1bc\0")
    board = identify(roots_in(tmp_path), "aarch64")
    assert (board.name, board.vendor, board.soc) == ("Evil [2J Board 2", "ev il", "so c")


@pytest.mark.parametrize("meminfo", ["", "MemTotal: 0 kB", "MemTotal: -1 kB", "MemTotal: 1" + "0" * 30 + " kB", "x"])
def test_memory_is_known_or_not_and_never_0(meminfo: str, tmp_path: Path) -> None:
    put(tmp_path / "proc/meminfo", meminfo)
    assert identify(roots_in(tmp_path), "aarch64").ram_bytes is None


def test_this_machine_has_some_name(tmp_path: Path) -> None:
    assert identify(roots_in(tmp_path)).name.startswith("generic ")


def test_accelerators_are_those_on_the_buses(tmp_path: Path) -> None:
    pci, usb = tmp_path / "sys/bus/pci/devices", tmp_path / "sys/bus/usb/devices"
    for slot, (vendor, device, kind) in {
        "0000:01:00.0": ("0x1ac1", "0x089a", "0x0880"),
        "0000:02:00.0": ("0x10de", "0x2330", "0x030200"),
        "0000:02:00.1": ("0x10de", "0x22be", "0x040300"),  # its sound
        "0000:03:00.0": ("0x8086", "0x1234", "0x030000"),
    }.items():
        for name, text in (("vendor", vendor), ("device", device), ("class", kind)):
            put(pci / slot / name, text)
    put(usb / "2-1/idVendor", "18d1")
    put(usb / "2-1/idProduct", "9302")
    assert identify(roots_in(tmp_path), "x86_64").accelerators == ("coral-pcie", "nvidia-gpu", "coral-usb")


MODES = "CPU_ONLINE CORE_1 1\n" * 500  # far more than a page
MODES += "# comment\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"


def test_a_jetson_tells_its_release_its_module_and_its_mode_by_name(tmp_path: Path) -> None:
    put(tmp_path / "proc/device-tree/compatible", b"nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0")
    put(tmp_path / "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 12345, BOARD: generic, EABI: aarch64")
    put(tmp_path / "etc/nvpmodel.conf", MODES)
    put(tmp_path / "var/lib/nvpmodel/status", "pmode:0002 fmode:fan_mode_quiet")
    put(tmp_path / "proc/meminfo", "MemTotal:       7802932 kB\nMemFree: 1 kB")
    board = identify(roots_in(tmp_path), "aarch64")
    assert board.ram_bytes == 7802932 * 1024
    assert board.tegra is not None
    assert board.tegra.module == "Jetson Orin Nano 8GB (developer kit)"
    assert (board.tegra.l4t, board.tegra.jetpack) == ("36.4.3", "6")
    assert (board.tegra.power_mode, board.tegra.power_modes) == ("MAXN_SUPER", ("15W", "MAXN_SUPER"))


def test_a_mode_in_a_comment_is_none_and_a_hostile_number_stops_nothing(tmp_path: Path) -> None:
    put(tmp_path / "proc/device-tree/compatible", b"nvidia,tegra234\0")
    conf = "# < POWER_MODEL ID=2 NAME=EXAMPLE >\n  < POWER_MODEL ID=0 NAME=15W >\n"
    put(tmp_path / "etc/nvpmodel.conf", conf + f"< POWER_MODEL ID={'9' * 5000} NAME=HUGE >\n")
    put(tmp_path / "var/lib/nvpmodel/status", "pmode:0002")
    board = identify(roots_in(tmp_path), "aarch64")
    assert board.tegra is not None
    assert (board.tegra.power_mode, board.tegra.power_modes) == ("", ("15W",))


@pytest.mark.parametrize("status", ["", "pmode:0007", "pmode:x", "pmode:000000002", "fmode:quiet"])
def test_a_mode_that_is_not_said_or_not_listed_has_no_name(status: str, tmp_path: Path) -> None:
    put(tmp_path / "proc/device-tree/compatible", b"nvidia,tegra194\0")
    put(tmp_path / "etc/nvpmodel.conf", MODES)
    put(tmp_path / "var/lib/nvpmodel/status", status)
    board = identify(roots_in(tmp_path), "aarch64")
    assert board.tegra is not None
    assert (board.tegra.power_mode, board.tegra.module, board.tegra.l4t) == ("", "", "")
