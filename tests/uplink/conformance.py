"""The protocol from outside: a daemon in a process of its own, a real mosquitto, a client that stands for the fleet.

test -> Scene: Fleet -> mosquitto (its log names every packet) -> daemon; meets("R7") -> docs/protocol/conformance.md

Knows of the agent only what the protocol says, and where its state folder is.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fleet_side import Fleet, Heard

from real_broker import Mosquitto

UPLINK = Path(__file__).resolve().parent
TABLE = UPLINK.parents[1] / "docs/protocol/conformance.md"
ROOT = "flyball/v1/acme"
DEVICE = "edge-1"
FINAL = ("rejected", "successful", "failed", "timed_out", "canceled", "expired")
SECRET = "s3cret-of-this-device"
COLLECT_S = 2.0  # records collect in memory for so long at most
ALLOWED = "config,policy,diag,logs,ladder.install,restart"
PUBLISH = re.compile(rf"Received PUBLISH from {DEVICE} \(d\d, q(\d), r(\d), m\d+, '([^']+)', \.\.\. \((\d+) bytes\)\)")

T = TypeVar("T", bound=Callable[..., object])


def meets(*numbers: str) -> Callable[[T], T]:
    """The requirements that a test proves."""

    def mark(test: T) -> T:
        test.__dict__["meets"] = numbers
        return test

    return mark


class Published:
    """A packet of the device, as the broker has logged it."""

    def __init__(self, qos: str, retain: str, topic: str, size: str) -> None:
        self.qos, self.retain, self.topic, self.size = int(qos), retain == "1", topic, int(size)
        self.suffix = topic.removeprefix(f"{ROOT}/{DEVICE}/")


class Scene:
    def __init__(self, broker: Mosquitto, fleet: Fleet, folder: Path) -> None:
        self.broker = broker
        self.fleet = fleet
        self.state, self._marks = folder / "state", folder / "marks"
        self._password = folder / "password"
        self._password.write_text(SECRET + "\n")
        self._log = folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    # -------------------------------------------------------------------------------------------------- the device

    def start(self, *, port: int = 0, ready: bool = True) -> None:
        """Until it says that it is ready; `port` of another broker."""
        since = len(self.fleet.heard)
        uplink = f'username = "edge-1"\npassword_file = "{self._password}"'
        command = [sys.executable, str(UPLINK / "whole_daemon.py"), str(port or self.broker.port), str(self.state)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self._marks), "", "0.1", "5", ALLOWED, uplink, str(COLLECT_S)],
                stdout=log,
                stderr=log,
            )
        if ready:
            self.wait("status", lambda d: d["state"] == "ready", since=since)

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(20)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def restart(self) -> None:
        self.kill()
        self.start()

    def marks(self) -> list[str]:
        """What has had an effect, in that order."""
        return self._marks.read_text().split() if self._marks.exists() else []

    # --------------------------------------------------------------------------------------------------- the fleet

    def send(self, suffix: str, payload: bytes | dict[str, Any] = b"", **more: Any) -> None:
        self.fleet.send(f"{DEVICE}/{suffix}", payload, **more)

    def order(self, kind: str, id: str, args: dict[str, Any], *, expiry_s: int = 600, **more: Any) -> None:
        self.send(f"cmd/{kind}/{id}/req", {"args": args, **more}, expiry_s=expiry_s)

    def wait(
        self, suffix: str, wanted: Callable[[Any], bool] = lambda _: True, since: int = 0, timeout_s: float = 20
    ) -> Any:
        return self.fleet.wait(f"{DEVICE}/{suffix}", wanted, timeout_s, since)

    def end_of(self, kind: str, id: str, since: int = 0) -> Any:
        """The final state of an order."""
        return self.wait(f"cmd/{kind}/{id}/st", lambda d: d["state"] in FINAL, since)

    def done(self, kind: str, id: str, args: dict[str, Any], **more: Any) -> Any:
        """Ordered, and its final state."""
        self.order(kind, id, args, **more)
        return self.end_of(kind, id)

    def now(self) -> int:
        """To be given to wait: from here on."""
        return len(self.fleet.heard)

    def states(self, kind: str, id: str) -> list[str]:
        return [d["state"] for d in self.all(f"cmd/{kind}/{id}/st")]

    def all(self, suffix: str) -> list[Any]:
        return self.fleet.all(f"{DEVICE}/{suffix}")

    def heard(self, beginning: str = "") -> list[Heard]:
        """Everything of the device, with suffixes below it; not what the fleet itself has sent."""
        found = [h for h in list(self.fleet.heard) if h.suffix.startswith(f"{DEVICE}/{beginning}") and h.payload]
        own = (f"{DEVICE}/sig/", f"{DEVICE}/twin/desired")
        return [h for h in found if not h.suffix.startswith(own) and not h.suffix.endswith("/req")]

    def published(self) -> list[Published]:
        return [Published(*found) for found in PUBLISH.findall(self.broker.log_text())]

    def until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise AssertionError(f"the condition did not become true; the daemon said:\n{self.said()}")
            time.sleep(0.02)

    def said(self) -> str:
        return self._log.read_text()[-4000:]


def executable() -> str:
    """Of mosquitto; skipped where it is not installed, unless FLYBALL_REQUIRE_BROKER=1."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        message = "mosquitto is not installed; run: sudo apt-get install mosquitto"
        if os.environ.get("FLYBALL_REQUIRE_BROKER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """With a device that is ready."""
    broker = Mosquitto(executable(), folder)
    broker.start()
    try:
        with Fleet(broker.port, ROOT) as fleet:
            made = Scene(broker, fleet, folder)
            try:
                made.start()
                yield made
            finally:
                made.kill()
    finally:
        broker.stop()
