"""Ordinary bad luck ends in one line and an exit code, never in a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_daemon import PICTURES, ScriptedDaemon, flyball, labelled, ladder, status

FULL = Path("/dev/full")
POOR = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def daemon(tmp_path: Path) -> ScriptedDaemon:
    return ScriptedDaemon(
        tmp_path / "s.sock",
        {
            "/control/status": status(ladder()),
            "/control/decisions": {"decisions": []},
            "/control/ladders/defects": PICTURES,
            "/v2/models/defects/infer": labelled("[red]x[/blue]", "ñandú"),
        },
    )


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        (["--version"], ""),
        (["--version"], "1"),
        (["--help"], ""),
        (["config", "check", "--json"], ""),
        (["status"], ""),
        (["ls"], "1"),
        (["ls", "--json"], ""),
    ],
)
def test_output_that_cannot_be_written(daemon: ScriptedDaemon, arguments: list[str], unbuffered: str) -> None:
    environment = {"FLYBALL_SOCKET": str(daemon.path), "PYTHONUNBUFFERED": unbuffered}
    with daemon, FULL.open("w") as full:
        done = flyball(*arguments, stdout=full, environment=environment)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: standard output cannot be written: No space left on device"


def test_neither_stream_can_be_written() -> None:
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-m", "flyball", "--version"], stdout=full, stderr=full, timeout=30)
    assert done.returncode == 1


def test_a_closed_standard_output(daemon: ScriptedDaemon) -> None:
    with daemon:
        script = f'exec {sys.executable} -m flyball ls --json --socket "$0" >&-'
        done = subprocess.run(["bash", "-c", script, str(daemon.path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: Bad file descriptor\n"


def test_a_reader_that_has_gone(daemon: ScriptedDaemon) -> None:
    with daemon:
        script = f'{sys.executable} -m flyball ls --json --socket "$0" | true; exit ${{PIPESTATUS[0]}}'
        done = subprocess.run(["bash", "-c", script, str(daemon.path)], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["ls"], ["infer", "defects", "FILE"], ["infer", "defects", "FILE", "--json"]])
def test_a_terminal_that_knows_ascii_only(daemon: ScriptedDaemon, tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "ü.png"
    file.write_bytes(b"x")
    with daemon:
        done = flyball(*[str(file) if a == "FILE" else a for a in arguments], "--socket", daemon.path, environment=POOR)
    assert (done.returncode, done.stderr) == (0, "")
    if "--json" in arguments:
        assert "\\u00f1and\\u00fa" in done.stdout, "JSON loses nothing"


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.6])
def test_an_interrupt_at_any_time(tmp_path: Path, after_s: float) -> None:
    command = [sys.executable, "-m", "flyball", "status", "--wait", "20s", "--socket", str(tmp_path / "none.sock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "msgspec" not in Path(f"/proc/{process.pid}/maps").read_text():  # our own imports have begun
        time.sleep(0.002)
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    # CPython ends by the signal itself when it struck inside exec(), which dataclasses use; shells show 130 for both.
    assert process.returncode in (130, -signal.SIGINT), told
    assert told in ("", "interrupted\n")


def test_text_of_the_user_is_no_markup(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    (tmp_path / "[").mkdir()
    file = tmp_path / "[" / "x].png"
    file.write_bytes(b"x")
    with daemon:
        done = flyball("infer", "defects", file, "--socket", daemon.path)
    assert done.returncode == 0, done.stderr
    assert str(file) in done.stdout
    assert "[red]x[/blue]" in done.stdout


def test_paths_of_the_user_are_no_markup_either(tmp_path: Path) -> None:
    file = tmp_path / "[bold]flyball[" / "x].toml"
    file.parent.mkdir()
    file.write_text("[engine]\nslots = 99\n")
    assert f"{file}: engine.slots" in flyball("config", "check", file).stderr
    file.write_text("")
    assert flyball("config", "check", file, environment={"COLUMNS": "20"}).stdout == f"{file}: ok\n"


def test_a_file_without_an_end_is_not_read_for_ever(daemon: ScriptedDaemon) -> None:
    with daemon:
        done = flyball("infer", "defects", "/dev/zero", "--socket", daemon.path)
    assert done.returncode == 1
    assert "/dev/zero: expected at most 64 MiB" in done.stderr


def test_a_broken_array_is_told(tmp_path: Path) -> None:
    tensors = {"task": "tensor", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}], "outputs": []}
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(118)
    )
    with ScriptedDaemon(tmp_path / "s.sock", {"/control/ladders/t": tensors}) as daemon:
        for name in ("empty.npy", "huge.npy"):
            done = flyball("infer", "t", tmp_path / name, "--socket", daemon.path)
            assert done.returncode == 1
            assert "expected a .npy file of numbers" in done.stderr
            assert "Traceback" not in done.stderr


def test_no_memory_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys\nimport flyball.cli as cli\n"
        "def none(arguments): raise MemoryError\n"
        "cli._answer = none\nsys.exit(cli.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (1, "error: not enough memory\n")


def test_shell_completion_is_offered(tmp_path: Path) -> None:
    # typer asks which shell started it, and make's is sh: here the shell is named.
    offered = flyball("--show-completion", "bash", environment={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert "_FLYBALL_COMPLETE" in offered.stdout, offered.stderr
    completed = flyball(
        environment={"_FLYBALL_COMPLETE": "complete_bash", "COMP_WORDS": "flyball lad", "COMP_CWORD": "1"}
    )
    assert "ladder" in completed.stdout.split(), completed.stderr
