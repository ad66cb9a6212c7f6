"""`flyball energy`: the program's own output and exit code, and beside them a report that calls an estimate one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FLYBALL = Path(sys.executable).with_name("flyball")


def energy(*arguments: object, **more: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [FLYBALL, "energy", *map(str, arguments)], capture_output=True, text=True, timeout=60, **more  # type: ignore[call-overload,no-any-return]
    )  # fmt: skip


def test_the_program_keeps_its_output_and_its_exit_code(tmp_path: Path) -> None:
    code = "import sys, time; time.sleep(0.6); print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = energy("--json", tmp_path / "report.json", "--", sys.executable, "-c", code)
    assert done.returncode == 7
    assert done.stdout == "out\n"
    assert done.stderr.startswith("err\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["exit_code"], report["command"][0]) == (7, sys.executable)
    assert report["run"]["seconds"] > 0.6
    if report["run"]["scope"] == "estimated":
        assert "estimated, not measured" in done.stderr
    assert report["run"]["energy_j"] is None or report["run"]["energy_j"] > 0


def test_idling_is_subtracted_only_where_it_was_measured() -> None:
    burn = "import time; end = time.time() + 1\nwhile time.time() < end: pass"
    done = energy("--idle", "0.5", "--json", "-", "--", sys.executable, "-c", burn)
    report = json.loads(done.stderr.partition("\n")[2])
    assert report["idle"]["seconds"] >= 0.5
    if report["net_j"] is not None:
        assert 0 < report["net_j"] < report["run"]["energy_j"]


@pytest.mark.parametrize(("command", "code"), [("no-such-program-here", 127), ("/", 126)])
def test_a_program_that_does_not_start(command: str, code: int) -> None:
    done = energy("--", command)
    assert done.returncode == code
    assert command in done.stderr
    assert " J" not in done.stderr


def test_a_program_ended_by_a_signal_and_one_that_is_passed_on() -> None:
    assert energy("--", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    process = subprocess.Popen([FLYBALL, "energy", "--", "sleep", "30"], stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end_s = time.monotonic() + 20
    while not any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in children.read_text().split()):
        assert time.monotonic() < end_s, "the program was not started"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + 15


def test_without_a_command_it_says_what_it_wants() -> None:
    done = energy()
    assert done.returncode == 2
    assert "Missing argument" in done.stderr


def test_a_report_that_cannot_be_written_changes_nothing_else(tmp_path: Path) -> None:
    done = energy("--json", tmp_path / "no/folder.json", "--", "sh", "-c", "sleep 0.5; exit 3")
    assert done.returncode == 3
    assert "not written: No such file or directory" in done.stderr
    assert " W on average" in done.stderr or "no energy figure" in done.stderr


def test_a_program_that_exits_like_one_that_was_not_found_is_reported_nonetheless() -> None:
    done = energy("--", "sh", "-c", "sleep 0.6; exit 127")
    assert done.returncode == 127
    assert " W on average" in done.stderr or "no energy figure" in done.stderr
