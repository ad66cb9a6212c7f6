"""Captured machines as text: what stands in the file is what a sensor sees, errors and slow reads included."""

import errno
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.sensing.tree import Tree, escape, parse


def unpacked(folder: Path, *texts: str) -> Tree:
    tree = Tree(folder / "machine")
    for text in texts:
        (folder / "tree.txt").write_text(text)
        tree.unpack(folder / "tree.txt")
    return tree


def test_files_links_blocks_and_bytes(tmp_path: Path) -> None:
    tree = unpacked(
        tmp_path,
        "# made up\nsys/class/a -> ../devices/soc:one/a\nsys/devices/soc:one/a/x: 12\n"
        "proc/stat:\n| cpu 1\n|\n| intr 2\nproc/device-tree/model: Board\\0\\xff\n",
    )
    assert tree.roots.read(tree.roots.sys / "class/a/x") == "12"
    assert (tree.roots.proc / "stat").read_text() == "cpu 1\n\nintr 2\n"
    assert (tree.roots.proc / "device-tree/model").read_bytes() == b"Board\0\xff\n"


def test_a_read_that_fails_fails_by_whatever_path_it_is_reached(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, "sys/class/a -> ../devices/a\nsys/devices/a/x ! EIO\n")
    for path in ("class/a/x", "devices/a/x"):
        with pytest.raises(OSError, match=r"error") as caught:
            tree.roots.read(tree.roots.sys / path)
        assert caught.value.errno == errno.EIO


def test_what_comes_later_takes_the_place_of_the_fault(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, "sys/x ! EAGAIN\n", "sys/x: 7\n")
    assert tree.roots.read(tree.roots.sys / "x") == "7"


def test_a_slow_read_takes_its_time(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, "sys/x ~ 0.05 7\n")
    begun_s = time.monotonic()
    assert tree.roots.read(tree.roots.sys / "x") == "7"
    assert time.monotonic() - begun_s >= 0.05


def test_the_firmware_answers_from_its_folder(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, "firmware/get_throttled: throttled=0x50000\n")
    assert tree.roots.firmware is not None
    assert tree.roots.firmware("get_throttled") == "throttled=0x50000"
    with pytest.raises(FileNotFoundError):
        tree.roots.firmware("pmic_read_adc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sys/x\n", "tree.txt:1: expected 'path: text'"),
        ("# one\nhome/x: 1\n", "tree.txt:2: expected a path below sys"),
        ("sys/../../x: 1\n", "expected a path below"),
        ("sys/x ! EWHAT\n", "expected the name of an errno"),
        ("sys/x ~ soon 1\n", "expected 0 to 60 seconds after '~', found 'soon'"),
        ("sys/x ~ nan 1\n", "expected 0 to 60 seconds after '~', found 'nan'"),
        ("sys/x ~ -1 1\n", "expected 0 to 60 seconds after '~', found '-1'"),
        ("sys/x:\n| one\n|two\n", "tree.txt:3: expected 'path: text'"),
        ("sys/out -> ../..\nsys/out/x: 1\n", "leads out of the tree by a link"),
    ],
)
def test_what_is_no_tree_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match="tree") as caught:
        unpacked(tmp_path, text)
    assert message in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_survive_the_way_through_the_text(data: bytes) -> None:
    line = escape(data)
    assert len(line.splitlines()) <= 1
    (entry,) = parse(f"sys/x: {line}\n", "made up")
    assert entry.text.encode("utf-8", "surrogateescape") == data + b"\n"
