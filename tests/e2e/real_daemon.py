"""The real daemon as a process of its own, and the command line as users have it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyball.client import Client
from flyball.errors import ControlError

PYTHON = sys.executable
MOBILENETS = ("mobilenet_v2_1.0_224", "mobilenet_v1_0.75_192", "mobilenet_v1_0.5_160", "mobilenet_v1_0.25_128")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def flyball(*arguments: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    """The command line as users have it."""
    done = subprocess.run(
        [PYTHON, "-m", "flyball", *map(str, arguments)], capture_output=True, text=True, timeout=120, **more
    )
    if check and done.returncode != 0:
        pytest.fail(f"flyball {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Daemon:
    """A daemon with its own folder, ports and socket; `stop` ends it and gives the exit code."""

    def __init__(self, home: Path, config: str = "", ladders: tuple[Path, ...] = (), metrics: bool = False) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.port = free_port()
        self.metrics_port = free_port() if metrics else 0
        self.socket = home / "flyball.sock"
        self.config = home / "flyball.toml"
        metrics_at = f"127.0.0.1:{self.metrics_port}" if metrics else ""
        self.config.write_text(
            f'[paths]\nstate = "{home}/state"\nsocket = "{self.socket}"\n'
            f'[serving]\nhttp = "127.0.0.1:{self.port}"\nmetrics = "{metrics_at}"\n{config}'
        )
        self._log = home / "daemon.log"
        self._ladders = len(ladders)
        arguments = [a for ladder in ladders for a in ("--ladder", str(ladder))]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, "-m", "flyball.daemon", "--config", str(self.config), *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.client = Client(self.socket)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def until(self, condition: Callable[[], bool], what: str, limit_s: float = 20.0) -> None:
        end_s = time.monotonic() + limit_s
        while True:
            if self.process.poll() is not None:
                pytest.fail(f"the daemon ended with {self.process.returncode}:\n{self.log}")
            try:
                if condition():
                    return
            except ControlError:
                pass
            if time.monotonic() > end_s:
                pytest.fail(f"not within {limit_s:g} s: {what}\n{self.log}")
            time.sleep(0.02)

    def until_ready(self) -> "Daemon":
        def tried() -> bool:
            states = [v.status.state for v in self.client.status().ladders]
            return len(states) >= self._ladders and not {"loading", "degraded"} & set(states)

        self.until(tried, "every ladder tried and at its strongest rung")
        return self

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(p) for p in children.split()]

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the daemon did not end within 20 s:\n{self.log}")


def answers(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}
