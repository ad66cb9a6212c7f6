"""What log lines look like to people, journald and log collectors. Every case runs in a process of its own, because
logging is configured for all of it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flyball.ops.log import JournalFormatter, priority

SCRIPT = """
import logging, sys
from flyball.ops import log
level = logging.DEBUG if sys.argv[2:] else logging.INFO
log.configure(sys.argv[1], level)
room = logging.getLogger("flyball.room")
room.debug("hidden")
room.info("on %s", "wheels")
room.warning("two\\nlines \\udce9 é")
try:
    1 / 0
except ZeroDivisionError:
    room.exception("it failed")
"""


def run(tmp_path: Path, *arguments: str, journal: bool = False) -> list[str]:
    with (tmp_path / "stderr").open("w+b") as stream:
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace"}
        environment.pop("JOURNAL_STREAM", None)
        if journal:
            status = os.fstat(stream.fileno())
            environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], stderr=stream, env=environment, timeout=60, check=True
        )
        stream.seek(0)
        return stream.read().decode().splitlines()


def test_text_for_terminals_has_time_and_level(tmp_path: Path) -> None:
    lines = run(tmp_path, "text")
    assert lines[0].split()[2:] == ["INFO", "on", "wheels"]
    assert lines[1].split()[2:] == ["WARNING", "two"]
    assert "ZeroDivisionError: division by zero" in lines[-1]


def test_every_line_for_journald_begins_with_its_priority(tmp_path: Path) -> None:
    lines = run(tmp_path, "text", journal=True)
    assert lines[0] == "<6>on wheels"
    assert lines[1] == "<4>two"
    assert lines[2].startswith("<4>lines")
    assert lines[3] == "<3>it failed"
    assert all(line.startswith("<3>") for line in lines[3:])
    assert len(lines) > 5


@pytest.mark.parametrize("journal", [False, True])
def test_json_is_one_object_a_line(tmp_path: Path, journal: bool) -> None:
    lines = run(tmp_path, "json", journal=journal)
    assert len(lines) == 3
    assert all(line.startswith("<") == journal for line in lines)
    first, second, third = (json.loads(line[3:] if journal else line) for line in lines)
    assert first["level"] == "info"
    assert first["logger"] == "flyball.room"
    assert first["message"] == "on wheels"
    assert first["ts"] > 1_600_000_000
    assert second["message"] == "two\nlines \udce9 é"
    assert third["exception"].endswith("ZeroDivisionError: division by zero")


def test_the_level_is_chosen(tmp_path: Path) -> None:
    assert any("hidden" in line for line in run(tmp_path, "text", "debug"))


def test_levels_in_between_have_the_priority_below() -> None:
    assert [priority(n) for n in (5, 10, 20, 25, 30, 40, 50, 60)] == [7, 7, 6, 6, 4, 3, 2, 2]


def test_an_empty_message_is_a_line_too() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "", (), None)
    assert JournalFormatter(logging.Formatter("%(message)s")).format(record) == "<6>"
