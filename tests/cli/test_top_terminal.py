"""`flyball top` in a terminal of its own: what is seen after which keys, and what is left behind."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import socketserver
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_daemon import flyball
from top_sample import DECISION, LADDERS, STATUS, changed

from flyball.control_api import Decisions, Status
from flyball.ports import Pin, SwitchReport

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
TOP = [sys.executable, "-m", "flyball", "top", "--interval", "0.2"]


class Stub:
    """A control socket with one status, which pins change as the daemon's does. `hanging`: it does not answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status: Status = STATUS
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.refusal = ""
        self.free = threading.Event()
        self.free.set()
        self._server: socketserver.ThreadingUnixStreamServer | None = None

    def start(self) -> Stub:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.free.wait(PATIENCE_S)
                decided = Decisions(decisions=(DECISION,) if "ladder=defects" in self.path else ())
                self._reply(200, stub.status if self.path == "/control/status" else decided)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = self.path.split("/")[3]
                stub.orders.append((name, body))
                if stub.refusal:
                    self._reply(400, {"error": stub.refusal})
                    return
                pins = () if body["rung"] == "auto" else (Pin(ladder=name, rung=body["rung"], until_s=None),)
                stub.status = changed(stub.status, pins=pins)
                report = SwitchReport(
                    ladder=name, source="r112-int8", target=body["rung"], open_s=0.12, warm_s=0, gap_s=0
                )
                self._reply(200, report if pins else {})

            def _reply(self, code: int, value: Any) -> None:
                data = msgspec.json.encode(value)
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Connection", "close")  # so that the end of the server is the end of its answers
                self.end_headers()
                self.wfile.write(data)

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                pass

        self._server = socketserver.ThreadingUnixStreamServer(str(self.path), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.free.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.path.unlink(missing_ok=True)


class Glass:
    """A terminal's screen, as far as `flyball top` may use one: any other escape sequence is an error."""

    _PART = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|(\x1b)|([^\x1b\r\n]+)|([\r\n])")

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}
        self.modes: dict[str, bool] = {}  # DEC private modes
        self.colours: set[str] = set()
        self.plain = ""  # written while the other screen was off
        self._row = 1

    def write(self, text: str) -> None:
        for private, numbers, kind, bad, shown, _ in self._PART.findall(text):
            assert not bad, f"unknown escape sequence in {text!r}"
            if private:
                self.modes[numbers] = kind == "h"
            elif kind == "H":
                self._row = int(numbers.split(";")[0])
            elif kind == "K":
                self.lines[self._row] = ""
            elif kind == "J":
                self.lines = {}
            elif kind == "m":
                self.colours |= set(numbers.split(";"))
            elif not self.modes.get("1049"):
                self.plain += shown
            else:
                self.lines[self._row] = self.lines.get(self._row, "") + shown

    @property
    def height(self) -> int:
        return max(self.lines, default=0)

    @property
    def text(self) -> str:
        return "\n".join(self.lines.get(row, "").rstrip() for row in range(1, self.height + 1))


class Seat:
    """Somebody before a terminal of 80 by 24 in which a command runs."""

    def __init__(self, *command: str | Path, **changes: str) -> None:
        self.glass = Glass()
        self.master, self.slave = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self.slave)
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")}
        # A session's first process that opens a terminal is its owner: Ctrl-C and new sizes come to it as signals.
        tty = os.ttyname(self.slave)
        line = f"exec <{tty} >{tty} 2>&1; exec {shlex.join(map(str, command))}"
        self.process = subprocess.Popen(
            ["sh", "-c", line],
            start_new_session=True,
            env={**environment, "TERM": "xterm-256color", "PYTHONUTF8": "1", **changes},
        )
        self._rest = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read(self, wait_s: float) -> None:
        if not select.select([self.master], [], [], wait_s)[0]:
            return
        data = self._rest + os.read(self.master, 65536)
        # What may be half a character or half a sequence waits for the rest.
        cut = max((i for i in range(max(0, len(data) - 40), len(data)) if data[i] == 0x1B), default=len(data))
        whole = cut if cut < len(data) and not re.match(rb"\x1b\[\??[0-9;]*[A-Za-z]", data[cut:]) else len(data)
        while whole > 0 and whole > len(data) - 4:
            try:
                data[:whole].decode()
                break
            except UnicodeDecodeError:
                whole -= 1
        self.glass.write(data[:whole].decode())
        self._rest = data[whole:]

    def until(self, condition: Callable[[], object], what: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"not seen: {what}\n{self.glass.text}\n{self.glass.plain}"
            self.read(0.05)

    def sees(self, text: str) -> None:
        self.until(lambda: text in self.glass.text, text)

    def end(self) -> int:
        self.until(lambda: self.process.poll() is not None, "the end")
        self.read(0.0)
        return self.process.returncode

    def is_as_before(self) -> bool:
        modes = self.glass.modes
        given_back = {"1049": False, "25": True, "7": True}
        return termios.tcgetattr(self.slave) == self.before and {m: modes[m] for m in given_back} == given_back

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    one = Stub(tmp_path / "s.sock").start()
    yield one
    one.stop()


@pytest.fixture
def seat() -> Iterator[Callable[..., Seat]]:
    taken: list[Seat] = []

    def take(*command: str | Path, **changes: str) -> Seat:
        taken.append(Seat(*command, **changes))
        return taken[-1]

    yield take
    for one in taken:
        one.close()


def test_keys_change_what_is_seen_and_q_gives_the_terminal_back(stub: Stub, seat: Callable[..., Seat]) -> None:
    user = seat(*TOP, "--socket", stub.path)
    user.sees("> defects    r112-int8")
    user.sees("q quit")
    user.sees("> ● r112-int8")
    assert user.glass.modes == {"1049": True, "25": False, "7": False}
    assert user.glass.height == 24
    user.sees("limit 20 ms")
    user.type("\x1b[B")
    user.sees("> faces")
    user.sees("no decision yet")
    user.type("s")
    user.sees("s sort: latency")
    user.type("h")
    user.sees("Any key leads back")
    user.type(" ")
    user.sees("> faces")
    user.type("q")
    assert user.end() == 0
    assert user.is_as_before()


def test_figures_are_renewed_without_a_key(stub: Stub, seat: Callable[..., Seat]) -> None:
    user = seat(*TOP, "--socket", stub.path)
    user.sees("VDD_IN (module)")
    stub.status = changed(ladders=LADDERS[:1], mode="observe")
    user.sees("governor observe")
    user.sees("> faces")
    user.until(lambda: "defects" not in user.glass.text, "a ladder that is gone is gone")
    stub.status = changed(ladders=())
    user.sees("no ladder is in service")
    user.type("p+u")
    user.type("q")
    assert user.end() == 0
    assert stub.orders == []


def test_a_rung_is_pinned_and_let_go(stub: Stub, seat: Callable[..., Seat]) -> None:
    user = seat(*TOP, "--socket", stub.path, "--for", "10m")
    user.sees("the governor chooses")
    user.type("\x1bOC")
    user.sees(">   r64-int8")
    user.type("p")
    user.sees("defects: r112-int8 -> r64-int8 in 120 ms")
    user.sees("held on r64-int8 until released")
    user.type("u")
    user.sees("defects: the governor chooses")
    user.until(lambda: "held on" not in user.glass.text, "the pin is gone")
    assert [(name, body["rung"], body["for_s"]) for name, body in stub.orders] == [
        ("defects", "r64-int8", 600.0),
        ("defects", "auto", None),
    ]
    stub.refusal = "no \x1b[31m such rung"
    user.type("p")
    user.sees("defects: no \ufffd[31m such rung")


def test_a_daemon_that_goes_away_is_shown_and_found_again(stub: Stub, seat: Callable[..., Seat]) -> None:
    user = seat(*TOP, "--socket", stub.path)
    user.sees("flyball 1.0.0  up")
    stub.stop()
    user.sees("no answer for")
    user.sees("the daemon is not running")
    user.sees("> defects")  # what it said last stays
    stub.status = changed(version="2.0.0")
    stub.start()
    user.sees("flyball 2.0.0  up")
    user.until(lambda: not re.search("no answer|not running", user.glass.text), "the daemon is back")


def test_keys_work_while_the_daemon_hangs(stub: Stub, seat: Callable[..., Seat]) -> None:
    user = seat(*TOP, "--socket", stub.path)
    user.sees("> defects")
    stub.free.clear()
    user.type("j")
    user.sees("> faces")
    user.sees("the daemon has not answered yet")
    stub.free.set()
    user.until(lambda: "no answer" not in user.glass.text, "the daemon is back")


def test_a_new_size_is_filled(stub: Stub, seat: Callable[..., Seat]) -> None:
    user = seat(*TOP, "--socket", stub.path)
    user.sees("sort: name")
    user.resize(120, 30)
    user.until(lambda: user.glass.height == 30, "thirty lines")
    user.sees("mqtts://broker.example:8883")
    user.resize(40, 12)
    user.until(lambda: user.glass.height == 12 and user.glass.text.endswith("q quit"), "twelve lines")
    assert max(map(len, user.glass.text.splitlines())) <= 40


def test_a_terminal_that_does_not_tell_its_size_gets_the_usual_one(stub: Stub, seat: Callable[..., Seat]) -> None:
    user = seat(*TOP, "--socket", stub.path)
    user.sees("> defects")
    user.resize(0, 0)
    user.resize(30, 9)
    user.until(lambda: user.glass.height == 9, "nine lines")
    user.resize(0, 0)
    user.until(lambda: user.glass.height == 24, "twenty-four lines")


@pytest.mark.parametrize(
    ("end", "code"), [("\x03", 0), (signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_it_and_give_the_terminal_back(
    stub: Stub, seat: Callable[..., Seat], end: str | signal.Signals, code: int
) -> None:
    user = seat(*TOP, "--socket", stub.path)
    user.sees("> defects")
    if isinstance(end, str):
        user.type(end)
    else:
        user.process.send_signal(end)
    assert user.end() == code
    assert user.is_as_before()
    assert "Traceback" not in user.glass.plain + user.glass.text


def test_the_shell_gets_its_terminal_while_it_is_suspended(stub: Stub, seat: Callable[..., Seat]) -> None:
    command = (
        f"set -m; {shlex.join([*TOP, '--socket', str(stub.path)])}; echo suspended; read x; fg >/dev/null; echo $?"
    )
    user = seat("bash", "-c", command)
    user.sees("> defects")
    user.type("\x1a")
    user.until(lambda: "suspended" in user.glass.plain, "the shell")
    assert user.is_as_before()
    user.type("\n")
    user.until(lambda: user.glass.modes["1049"], "the screen is back")
    user.sees("> defects")
    user.type("q")
    assert user.end() == 0
    assert user.glass.plain.endswith("0")


@pytest.mark.parametrize(("changes", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_left_out_on_demand(
    stub: Stub, seat: Callable[..., Seat], changes: dict[str, str], coloured: bool
) -> None:
    user = seat(*TOP, "--socket", stub.path, **changes)
    user.sees("q quit")
    colours = {c for c in user.glass.colours if (c.isdigit() and 30 <= int(c) <= 49) or c == "38"}
    assert bool(colours) == coloured, user.glass.colours


@pytest.mark.parametrize("changes", [{"TERM": "linux"}, {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}])
def test_a_terminal_without_bars_and_arrows(stub: Stub, seat: Callable[..., Seat], changes: dict[str, str]) -> None:
    user = seat(*TOP, "--socket", stub.path, **changes)
    user.sees("^v ladder  <> rung")
    user.sees("> * r112-int8")
    assert user.glass.text.isascii()


def test_what_is_no_terminal_is_told_what_to_use(stub: Stub, seat: Callable[..., Seat]) -> None:
    done = flyball("top", "--socket", stub.path, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "`flyball status`" in done.stderr
    user = seat(*TOP, "--socket", stub.path, TERM="dumb")
    assert user.end() == 1
    assert "flyball top needs a terminal that can move its cursor" in user.glass.plain


def test_a_daemon_that_is_not_there_is_told_before_anything_is_drawn(tmp_path: Path, seat: Callable[..., Seat]) -> None:
    user = seat(*TOP, "--socket", tmp_path / "none.sock")
    assert user.end() == 1
    assert "the daemon is not running" in user.glass.plain
    assert user.glass.modes == {}


def test_once_prints_one_screen(stub: Stub) -> None:
    narrow = {"COLUMNS": "80", "LINES": "24"}
    done = flyball("top", "--once", "--socket", stub.path, stdin=subprocess.DEVNULL, environment=narrow)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "flyball 1.0.0  up 3.2 d  governor accuracy-first  line-3  Jetson Orin Nano"
    assert any(one.startswith("> defects    r112-int8") for one in lines)
    assert "\x1b" not in done.stdout
    assert all(one == one.rstrip() and len(one) <= 80 for one in lines)
    assert "q quit" not in done.stdout


def test_the_real_daemon_is_watched_and_steered(tmp_path: Path, seat: Callable[..., Seat]) -> None:
    config, path = tmp_path / "flyball.toml", tmp_path / "s.sock"
    config.write_text(
        f'[paths]\nstate = "{tmp_path}/state"\nsocket = "{path}"\n[serving]\nhttp = ""\nmetrics = ""\n'
        f'[ladder.defects]\npath = "{ROOT}/examples/defects/ladder"\n'
    )
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "flyball", "run", "--config", str(config)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        assert flyball("status", "--wait", "60s", "--socket", path).returncode == 0, (tmp_path / "log").read_text()
        user = seat(*TOP, "--socket", path)
        user.sees("> defects")
        user.sees("memory   [")
        user.sees("q quit")
        rungs = [r.split()[-1] for r in re.findall(r"^[> ] [^a-z\n]? ?r[\w-]+", user.glass.text, re.MULTILINE)]
        assert len(rungs) > 1, user.glass.text
        user.type("+" * len(rungs))
        user.until(lambda: re.search(rf"^>.* {re.escape(rungs[-1])} ", user.glass.text, re.MULTILINE), "the last rung")
        user.type("p")
        user.sees(f"held on {rungs[-1]} until released")
        user.sees(f"● {rungs[-1]}")
        user.type("u")
        user.sees("defects: the governor chooses")
        daemon.terminate()
        user.sees("the daemon is not running")
        user.type("q")
        assert user.end() == 0
    finally:
        daemon.kill()
        daemon.wait()
