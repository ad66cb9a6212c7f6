"""`flyball what-if`, and `replay` of one policy, in 80 columns and 24 lines: nothing is left out, nothing is cut."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from flyball.governor.replay import profiles, standard
from flyball.governor.replay.page import HEADS
from flyball.governor.replay.trace import save

FLYBALL = Path(sys.executable).with_name("flyball")
WISHES = ("--deadline", "8ms", "--ambient", "45", "--power-cap", "7W")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "short.jsonl"
    save(standard.standard("cpu-bursts", "defects", profiles.STAND_INS["defects"], 2, minutes=4), file)
    return file


def in_terminal(columns: int, lines: int, *arguments: object) -> list[str]:
    """What is printed into a terminal of this size, line by line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [FLYBALL, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**environment, "TERM": "xterm-256color", "NO_COLOR": "1"},
    ) as process:  # fmt: skip
        os.close(theirs)
        found = b""
        try:
            while chunk := os.read(ours, 65536):
                found += chunk
        except OSError:  # nobody has the other end open any more
            pass
        os.close(ours)
    assert process.returncode == 0, found
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", found.decode())
    return [line.rstrip() for line in text.split("\n")]


@pytest.mark.parametrize("policy", ["governor", "static:r112-fp32"])
def test_every_figure_of_both_is_there(trace: Path, policy: str) -> None:
    lines = in_terminal(80, 24, "what-if", trace, *WISHES, "--policy", policy)
    assert len(lines) <= 24, lines
    assert max(map(len, lines)) <= 80, lines
    figures = {head: line for head in HEADS for line in lines if line.startswith(f"{head}  ")}
    assert list(figures) == list(HEADS)
    for head, line in figures.items():
        assert len(re.split(r"\s{2,}", line)) == 3, f"{head}: one cell for each of the two"
    whole = " ".join(" ".join(lines).split())
    for words in (policy, "as it is", "deadline 8ms", "45 °C", "power cap 7W"):
        assert words in whole


def test_a_single_policy_is_told_whole_too(trace: Path) -> None:
    lines = in_terminal(80, 24, "replay", trace)
    assert len(lines) <= 24, lines
    assert max(map(len, lines)) <= 80, lines
    assert [line for line in lines if re.fullmatch(r"policy +governor", line)] != []
    assert [head for head in HEADS if not any(re.match(rf"{re.escape(head)}  ", line) for line in lines)] == []


def test_a_narrow_terminal_folds_and_loses_nothing(trace: Path) -> None:
    lines = in_terminal(40, 24, "what-if", trace, *WISHES)
    assert [head for head in HEADS if not any(line.startswith(head) for line in lines)] == []
