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


def test_this_machine_has_some_name(tmp_path: Path) -> None:
    assert identify(roots_in(tmp_path)).name.startswith("generic ")
