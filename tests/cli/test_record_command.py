"""`flyball record`: whole lines in a new file, whatever ends it."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from scripted_daemon import flyball

from flyball.config import Governor as Rules
from flyball.governor.recording import Begun, Ended, Line, Looked
from flyball.governor.replay.trace import kind_of
from flyball.governor.state import State
from flyball.governor.values import View

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def encoded(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


BEGUN = encoded(Begun(schema=1, flyball="1", board="", rules=Rules(), state=State()))
LOOKED = encoded(Looked(view=View(now_s=1.0, wall_s=2.0), decisions=()))
ENDED = encoded(Ended(why="the daemon has ended it"))


@contextmanager
def stream(path: Path, lines: list[bytes], whole: bool = True, period_s: float = 0.0) -> Iterator[None]:
    """A daemon that sends these lines to one reader: then the end, or (not `whole`) it is gone. None of the lines are
    sent faster than `period_s` apart."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            try:
                connection.sendall(HEAD)
                for line in lines:
                    connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
                    time.sleep(period_s)
                if whole:
                    connection.sendall(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass  # the reader has had enough

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


def record(path: Path, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return flyball("record", path / "r.jsonl", "--socket", path / "s.sock", *arguments, **more)


def whole_lines(file: Path) -> list[Line]:
    assert file.read_bytes().endswith(b"\n")
    return [msgspec.json.decode(line, type=Line) for line in file.read_bytes().splitlines()]  # type: ignore[arg-type]


def test_until_the_time_is_over(tmp_path: Path) -> None:
    with stream(tmp_path / "s.sock", [BEGUN, *[LOOKED] * 40], period_s=0.1):
        done = record(tmp_path, "--seconds", "1")
    assert done.returncode == 0, done.stderr
    begun, *looks = whole_lines(tmp_path / "r.jsonl")
    assert isinstance(begun, Begun)
    assert 1 <= len(looks) < 40
    assert f"{len(looks)} look" in done.stdout
    assert " in 1 s, 0 changes of rung, " in done.stdout
    assert done.stdout.endswith("the time is over\n")
    assert kind_of(tmp_path / "r.jsonl") == "recorded"


def test_until_it_is_as_large_as_it_may_be(tmp_path: Path) -> None:
    with stream(tmp_path / "s.sock", [BEGUN, *[LOOKED] * 200]):
        done = record(tmp_path, "--max-mib", "0.01")
    assert done.returncode == 0, done.stderr
    size = (tmp_path / "r.jsonl").stat().st_size
    assert 0.01 * (1 << 20) - len(LOOKED) <= size <= 0.01 * (1 << 20)
    assert whole_lines(tmp_path / "r.jsonl")
    assert "as large as --max-mib allows (0.01 MiB)" in done.stdout


def test_until_ctrl_c(tmp_path: Path) -> None:
    with stream(tmp_path / "s.sock", [BEGUN, *[LOOKED] * 100], period_s=0.1):
        paths = [str(tmp_path / name) for name in ("r.jsonl", "s.sock")]
        command = [sys.executable, "-m", "flyball", "record", paths[0], "--socket", paths[1]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s and not (tmp_path / "r.jsonl").is_file():
            time.sleep(0.02)
        while time.monotonic() < end_s and (tmp_path / "r.jsonl").read_bytes().count(b"looked") < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out.endswith(": interrupted\n")
    assert len(whole_lines(tmp_path / "r.jsonl")) >= 2


@pytest.mark.parametrize(
    ("lines", "whole", "says"),
    [
        ([BEGUN, LOOKED], False, "error: the connection to the daemon on .* broke"),
        ([BEGUN, LOOKED, ENDED], True, "error: the recording ended early: the daemon has ended it"),
    ],
)
def test_a_lost_daemon_is_told_and_the_file_kept(tmp_path: Path, lines: list[bytes], whole: bool, says: str) -> None:
    with stream(tmp_path / "s.sock", lines, whole=whole):
        done = record(tmp_path)
    assert done.returncode == 1
    assert "1 look in" in done.stderr
    assert any(re.match(says, line) for line in done.stderr.splitlines()), done.stderr
    assert (tmp_path / "r.jsonl").read_bytes() == b"".join(lines)


def test_a_full_disk_is_told_and_no_line_is_left_in_pieces(tmp_path: Path) -> None:
    most = len(BEGUN) + len(LOOKED) * 3 + 10

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    with stream(tmp_path / "s.sock", [BEGUN, *[LOOKED] * 100]):
        done = record(tmp_path, preexec_fn=small)
    assert done.returncode == 1
    assert f"error: {tmp_path}/r.jsonl: File too large" in done.stderr
    assert len(whole_lines(tmp_path / "r.jsonl")) == 4


def test_nothing_is_overwritten_and_nothing_empty_left_behind(tmp_path: Path) -> None:
    done = record(tmp_path)
    assert done.returncode == 1
    assert "the daemon is not running" in done.stderr
    assert not (tmp_path / "r.jsonl").exists()
    (tmp_path / "r.jsonl").write_text("mine")
    done = record(tmp_path)
    assert done.returncode == 1
    assert "r.jsonl is there already; name a new file" in done.stderr
    assert (tmp_path / "r.jsonl").read_text() == "mine"
    assert os.listdir(tmp_path) == ["r.jsonl"]


@pytest.mark.parametrize("arguments", [("--seconds", "5", "--minutes", "1"), ("--seconds", "0"), ("--seconds", "nan")])
def test_times_that_make_no_sense(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = record(tmp_path, *arguments)
    assert done.returncode == 2
    assert not (tmp_path / "r.jsonl").exists()
