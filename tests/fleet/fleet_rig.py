"""The fleet's own processes and a device's bare hand, for tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from flyball.uplink import batch
from flyball.uplink.messages import (
    Batch,
    Birth,
    EventMessage,
    Gap,
    Hardware,
    LadderFacts,
    RungFacts,
    Software,
    Status,
    encode,
)
from flyball.uplink.stamp import Stamp
from real_broker import Mosquitto

STAMP = Stamp(ts=1_800_000_000.0, mono=5.0, boot="boot", clk="synced")
TENANT = "default"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], timeout_s: float = 15.0, what: str = "the condition") -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not become true in {timeout_s} s"
        time.sleep(0.02)
    return found


def run_cli(*arguments: str, timeout_s: float = 60, columns: int = 80) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flyball", "fleet", *arguments],
        capture_output=True, text=True, timeout=timeout_s, env=environment,
    )  # fmt: skip


LIVING: list[Process] = []  # conftest.py ends what a failed test leaves


class Process:
    """`flyball fleet ...` as a child."""

    def __init__(self, *arguments: str, log: Path) -> None:
        self._log = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flyball", "fleet", *arguments], stdout=stream, stderr=stream
            )
        LIVING.append(self)

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 20) -> int:
        if self.running:
            self._process.send_signal(number)
        try:
            return self._process.wait(timeout=timeout_s)
        finally:
            self._process.kill()


class ServerProcess(Process):
    def __init__(self, port: int, db: Path, id: str = "one", *more: str) -> None:
        self.metrics_port = free_port()
        log = db.with_name(f"{id}.log")
        before = log.read_text().count("connected to") if log.exists() else 0
        super().__init__(
            "serve", "--broker", f"mqtt://127.0.0.1:{port}", "--db", str(db), "--id", id,
            "--metrics", f"127.0.0.1:{self.metrics_port}", *more, log=log,
        )  # fmt: skip
        until(lambda: self.said().count("connected to") > before or not self.running, what="the server's connection")
        assert self.running, self.said()

    def metrics(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error


def samples(text: str, name: str) -> dict[str, float]:
    """Labels as they stand -> value."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.rpartition(" ")
        if key == name or key.startswith(f"{name}{{"):
            found[key[len(name) :]] = float(value)
    return found


def status(state: str, session: int, epoch: str = "e1") -> bytes:
    return encode(Status(state=state, session=session, epoch=epoch, ts=1.0)).payload  # type: ignore[arg-type]


def birth(session: int, epoch: str = "e1", desc_version: int = 1, rungs: Sequence[str] = ("small", "big")) -> bytes:
    return encode(
        Birth(
            session=session,
            epoch=epoch,
            desc_version=desc_version,
            stamp=STAMP,
            hardware=Hardware(board="test board"),
            software=Software(flyball="0.1"),
            ladders=(LadderFacts(name="shapes", version="1.0.0", rungs=tuple(RungFacts(name=r) for r in rungs)),),
            capabilities=(),
        )
    ).payload


def telemetry(first: int, count: int, epoch: str = "e1", **columns: Sequence[Any]) -> bytes:
    """Not deflated, so that it needs no user property."""
    cells = columns or {"power_w": [3.0 + i for i in range(count)]}
    message = Batch(epoch=epoch, first_seq=first, count=count, boot="b", clk="synced", columns=cells)  # type: ignore[arg-type]
    encoded = batch.encode(message)
    assert not encoded.deflated
    return encoded.payload


def event(seq: int, epoch: str = "e1", kind: str = "decision") -> bytes:
    return encode(EventMessage(epoch=epoch, seq=seq, stamp=STAMP, kind=kind, severity="info", message="m")).payload


def gap(ranges: Sequence[tuple[int, int]], stream: str = "main", epoch: str = "e1") -> bytes:
    return encode(Gap(epoch=epoch, stream=stream, ranges=tuple(ranges), reason="test", ts=1.0)).payload


def document(**members: Any) -> bytes:
    return msgspec.json.encode(members)


class Hand:
    """A plain client that says whatever it likes, and keeps what it hears."""

    def __init__(self, port: int, *filters: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        self._client.max_queued_messages_set(0)
        subscribed: list[bool] = []
        self._client.on_message = lambda _c, _d, m: self.heard.append((m.topic, bytes(m.payload)))
        self._client.on_subscribe = lambda *_: subscribed.append(True)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        until(self._client.is_connected)
        for count, topic in enumerate(filters, 1):
            self._client.subscribe(topic, qos=1)
            until(lambda count=count: len(subscribed) == count)

    def __enter__(self) -> Hand:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, device: str, suffix: str, payload: bytes, *, retain: bool = False, wait: bool = True) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        told = self._client.publish(
            f"flyball/v1/{TENANT}/{device}/{suffix}", payload, qos=1, retain=retain, properties=properties
        )
        if wait:
            told.wait_for_publish(10)

    def topics(self) -> list[str]:
        return [topic for topic, _ in self.heard]


@contextmanager
def broker(folder: Path) -> Iterator[Mosquitto]:
    """For a whole module; the fixture `mosquitto` is one for each test."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("FLYBALL_REQUIRE_BROKER") != "1":
        pytest.skip("mosquitto is not installed; run: sudo apt-get install mosquitto")
    assert found is not None, "mosquitto is not installed; run: sudo apt-get install mosquitto"
    made = Mosquitto(found, folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def loads(text: str) -> Any:
    return json.loads(text)
