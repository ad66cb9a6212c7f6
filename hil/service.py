"""Flyball on the target: a process from this checkout, or the installed systemd unit.

start -> READY=1 -> commands and metrics -> stop

Leaves the target as it was: own folders for the process; for the unit, one file in conf.d and the example ladder,
both removed again.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from target import Result
from targets import LocalTarget, SshTarget

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "defects" / "ladder"
INSTALLED_EXAMPLE = "/usr/share/flyball/examples/defects"
START_S = 180.0  # the unit's TimeoutStartSec
STOP_S = 30.0  # the unit's TimeoutStopSec
DEVICE = "hil"


class Service(Protocol):
    def start(self) -> None: ...

    def stop(self) -> str:
        """How it ended; empty when it ended as it should."""
        ...

    def flyball(self, *arguments: str) -> Result: ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def uplink_table(broker_port: int) -> str:
    return f'[uplink]\nenabled = true\nbroker = "mqtt://127.0.0.1:{broker_port}"\ndevice = "{DEVICE}"\n'


class ProcessService:
    """`python -m flyball.daemon` of this checkout, on free ports, with a supervisor's socket of our own."""

    def __init__(self, target: LocalTarget, ladder: str, broker_port: int | None) -> None:
        self.metrics_port = free_port()
        self._folder = target.scratch
        self._target = target
        self._ladder = ladder or str(EXAMPLE)
        self._socket = self._folder / "flyball.sock"
        self._log = self._folder / "daemon.log"
        config = f'[paths]\nstate = "{self._folder}/state"\nsocket = "{self._socket}"\n'
        config += f'[serving]\nhttp = "127.0.0.1:{free_port()}"\nmetrics = "127.0.0.1:{self.metrics_port}"\n'
        (self._folder / "flyball.toml").write_text(config + (uplink_table(broker_port) if broker_port else ""))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self._folder / "notify"))
            notify.settimeout(1.0)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "flyball.daemon", "--config", str(self._folder / "flyball.toml"),
                     "--ladder", self._ladder],
                    env={**os.environ, "NOTIFY_SOCKET": str(self._folder / "notify")},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder,
                )  # fmt: skip
            deadline = time.monotonic() + START_S
            while True:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"the daemon did not get ready:\n{self._log.read_text()[-4000:]}")
                try:
                    if b"READY=1" in notify.recv(4096).splitlines():
                        return
                except TimeoutError:
                    continue

    def stop(self) -> str:
        process, self._process = self._process, None
        if process is None:
            return ""
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"still running {STOP_S:g} s after SIGTERM"
        return "" if code == 0 else f"exit code {code}:\n{self._log.read_text()[-4000:]}"

    def flyball(self, *arguments: str) -> Result:
        command = ["env", f"FLYBALL_SOCKET={self._socket}", sys.executable, "-m", "flyball", *arguments]
        return self._target.run(command)


class UnitService:
    """The systemd unit of the installed package."""

    metrics_port = 8002

    def __init__(self, target: SshTarget, ladder: str, broker_port: int | None) -> None:
        self._target = target
        self._ladder = ladder or INSTALLED_EXAMPLE
        self._broker_port = broker_port
        self._was_active = self._state("ActiveState") == "active"
        self._added = ""
        self._running = False

    def start(self) -> None:
        if self._broker_port is not None:
            scratch = self._target.put(uplink_table(self._broker_port).encode(), "hil.toml")
            self._target.run(["install", "-D", "-m644", scratch, "/etc/flyball/conf.d/90-hil.toml"]).checked()
        self._running = True
        started = self._target.run(["systemctl", "restart", "flyball.service"], timeout_s=START_S + 10)
        if started.code != 0:
            journal = self._target.run(["journalctl", "-u", "flyball.service", "--no-pager", "-o", "cat", "-n", "40"])
            raise AssertionError(f"systemctl restart flyball: {started.stderr}\n{journal.stdout}")
        if self.flyball("ls", "--json").checked().strip() == "[]":
            self.flyball("ladder", "add", self._ladder).checked()
            self._added = self.flyball("ls", "--json").checked().split('"name": "', 1)[1].split('"', 1)[0]

    def stop(self) -> str:
        if not self._running:
            return ""
        self._running = False
        if self._added:
            self.flyball("ladder", "rm", self._added).checked()
        stopped = self._target.run(["systemctl", "stop", "flyball.service"], timeout_s=STOP_S + 10)
        result = self._state("Result")
        self._target.run(["rm", "-f", "/etc/flyball/conf.d/90-hil.toml"]).checked()
        if self._was_active:
            self._target.run(["systemctl", "start", "flyball.service"], timeout_s=START_S + 10).checked()
        return "" if stopped.code == 0 and result == "success" else f"systemd: {result} {stopped.stderr}"

    def flyball(self, *arguments: str) -> Result:
        return self._target.run(["flyball", *arguments])

    def _state(self, name: str) -> str:
        shown = self._target.run(["systemctl", "show", "flyball.service", f"--property={name}", "--value"])
        return shown.checked().strip()
