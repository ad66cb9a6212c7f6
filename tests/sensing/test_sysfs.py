"""Text of the kernel's files becomes a number only where it is one."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.sensing.sysfs import describe, optional_text, parse_integer, read_text


@given(st.integers(min_value=-(2**64), max_value=2**64))
def test_every_integer_that_a_kernel_writes_comes_back(number: int) -> None:
    assert parse_integer(f"{number}\n") == number


@given(st.text() | st.from_regex(r"[ \t\n0-9+\-.xeE_nNaAiIfF]{0,12}", fullmatch=True))
def test_a_zero_comes_only_from_a_written_zero(text: str) -> None:
    try:
        number = parse_integer(text)
    except ValueError:
        return
    assert text.strip().lstrip("+-").isascii()
    assert (number == 0) == (text.strip().lstrip("+-").strip("0") == "")
    assert "0" in text or number != 0


@pytest.mark.parametrize(
    "text", ["", " ", "-", "1.5", "0x10", "1_000", "32760 ma", "nan", "\uff11\uff12", "1" * 21, "1 2"]
)
def test_what_is_no_integer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a decimal integer"):
        parse_integer(text)


def test_newline_and_nul_at_the_end_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    (tmp_path / "temp").write_bytes(b"48312\n")
    assert read_text(tmp_path / "model") == "Raspberry Pi 5 Model B Rev 1.0"
    assert read_text(tmp_path / "temp") == "48312"


def test_what_cannot_be_read_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)
    with pytest.raises(OSError, match="Input/output error"):
        read_text(Path("/proc/self/mem"))  # address 0 is not mapped: a real EIO
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="codec") as caught:
        read_text(tmp_path / "bytes")
    assert describe(caught.value) == "not text"
    assert optional_text(tmp_path / "bytes") == optional_text(tmp_path / "missing") == ""


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        assert optional_text(tmp_path) == ""
        assert optional_text(Path("/proc/self/stat")) != ""
    assert len(os.listdir("/proc/self/fd")) <= before + 1
