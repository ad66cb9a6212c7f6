"""Brokers that forget, refuse and grant in vain, full disks and wrong clocks: recovered or refused as specified."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from device_side import QUICK, linked, make, until
from fleet_side import Fleet

from flyball.clock import SystemClock
from flyball.events import Event, Events
from flyball.uplink.backoff import Waits
from flyball.uplink.commands import Handler
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio


def ready(doc: Any) -> bool:
    return bool(doc["state"] == "ready")


# ------------------------------------------------------------------------------------------------ a broker that forgot


async def test_everything_that_is_retained_is_published_again(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path) as uplink:
            await fleet.waits("status", ready)
            for number in range(3):
                fleet.order("ping", f"p{number}", {"echo": str(number)})
                await fleet.waits(f"cmd/ping/p{number}/st", lambda d: d["state"] == "successful")
            await until(lambda: uplink.state().queued == 0)
            mosquitto.kill()
            mosquitto.forget()
            await until(lambda: not uplink.state().connected)
            mosquitto.start()
            await until(lambda: uplink.state().connected and uplink.state().queued == 0)
            with Fleet(mosquitto.port) as late:
                await late.waits("status", lambda d: ready(d) and d["session"] >= 2)
                await late.waits("birth", lambda d: d["session"] >= 2)
                for number in range(3):
                    state = await late.waits(f"cmd/ping/p{number}/st")
                    assert (state["state"], state["result"]) == ("successful", {"echo": str(number)})


async def test_a_broker_that_remembers_is_told_only_once(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path) as uplink:
            await fleet.waits("status", ready)
            fleet.order("ping", "p0", {})
            await fleet.waits("cmd/ping/p0/st", lambda d: d["state"] == "successful")
            await until(lambda: uplink.state().queued == 0)
            await asyncio.sleep(0.3)  # until it is written down that the state was told
            assert uplink._link.connection is not None
            since = len(fleet.heard)
            uplink._link.connection.abort("cut")
            await fleet.waits("status", lambda d: ready(d) and d["session"] == 2, since=since)
            await until(lambda: uplink.state().queued == 0)
            await asyncio.sleep(0.3)
            assert [h.suffix for h in fleet.heard[since:] if h.suffix.endswith("/st")] == []


# ----------------------------------------------------------------------------------------------- a broker that refuses


def password_file(folder: Path, user: str, password: str) -> Path:
    file = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(file), user, password], check=True)
    file.chmod(0o644)
    return file


async def test_a_refused_password_is_not_tried_every_second(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.stop()
    passwords = password_file(tmp_path, "edge-1", "right")
    mosquitto.start([f"password_file {passwords}", "allow_anonymous false"])
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    timing = replace(QUICK, watch_s=0.2, waits=Waits(base_s=0.05, cap_s=0.1, spread_s=0.1))
    uplink = make(mosquitto.port, tmp_path / "s", timing=timing, username="edge-1", password_file=str(secret))
    await uplink.start()
    try:
        await until(lambda: "Not authorized" in uplink.state().error)
        await asyncio.sleep(1.5)
        assert uplink.state().session == 1  # plain back-off would have tried it a dozen times
        secret.write_text("right")
        await until(lambda: uplink.state().connected)
    finally:
        await uplink.stop()


async def test_a_subscription_that_is_granted_in_vain_stays_unverified(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """mosquitto grants what its rules then leave empty: only the unanswered probe tells."""
    mosquitto.stop()
    rules = tmp_path / "acl"
    rules.write_text(
        "topic read flyball/v1/acme/edge-1/status\ntopic write flyball/v1/acme/#\n\nuser fleet\ntopic readwrite #\n"
    )
    rules.chmod(0o644)
    passwords = password_file(tmp_path, "fleet", "x")
    mosquitto.start([f"acl_file {rules}", f"password_file {passwords}"])
    timing = replace(QUICK, probe_s=0.2)
    with Fleet(mosquitto.port, user=("fleet", "x")) as fleet:
        async with linked(mosquitto.port, tmp_path / "s", timing=timing) as uplink:
            status = await fleet.waits("status", ready)
            assert status["commands"] == "unverified"
            await until(lambda: len(fleet.all("e/probe")) >= 3)  # it asks again, the server may have been away
            fleet.send("sig/probe", expiry_s=60)
            fleet.order("ping", "p", {})
            await asyncio.sleep(0.5)
            assert uplink.state().commands == "unverified"
            assert fleet.find("cmd/ping/p/st") is None
            mosquitto.stop()
            rules.write_text("topic readwrite flyball/v1/acme/#\n\nuser fleet\ntopic readwrite #\n")
            mosquitto.start([f"acl_file {rules}", f"password_file {passwords}"])
            await fleet.waits("status", lambda d: ready(d) and d["session"] > 1)
            fleet.order("ping", "p2", {})
            await fleet.waits("cmd/ping/p2/st", lambda d: d["state"] == "successful")
            fleet.send("sig/probe", expiry_s=60)
            await fleet.waits("status", lambda d: d["commands"] == "verified")


# ---------------------------------------------------------------------------------------------------------- full disks


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a tmpfs may not be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class BigArgs(msgspec.Struct, forbid_unknown_fields=True):
    data: str


async def test_a_full_disk_with_20_commands_queued_loses_none(mosquitto: Mosquitto, tmp_path: Path) -> None:
    ran: list[str] = []

    async def run(args: BigArgs, *_: Any) -> None:
        ran.append(args.data[:4])

    heard: list[Event] = []
    events = Events()
    events.subscribe(heard.append)
    handler = Handler(name="big", args=BigArgs, run=run)
    with small_disk(tmp_path / "disk", "3m") as disk, Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, disk, events=events, handlers=[handler]) as uplink:
            await fleet.waits("status", ready)
            await until(lambda: uplink.state().queued == 0)
            session = uplink.state().session or 0
            filler = disk / "filler"
            _fill(filler)
            for number in range(20):  # 40 kB each: together more than the reserve
                fleet.order("big", f"b{number}", {"data": f"{number:04}" + "x" * 40_000})
            await until(lambda: not uplink.state().connected, 20)
            assert "state_store" in [e.kind for e in heard if e.severity == "error"]
            await until(lambda: len(ran) < 20 and (uplink.state().error or "") != "", 10)
            filler.unlink()
            for number in range(20):
                await fleet.waits(f"cmd/big/b{number}/st", lambda d: d["state"] == "successful", 30)
            assert (uplink.state().session or 0) > session
    assert sorted(ran) == [f"{n:04}" for n in range(20)]  # each once


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as sink:
        for size in (65536, 4096):
            try:
                while True:
                    sink.write(b"\0" * size)
            except OSError:
                continue


# -------------------------------------------------------------------------------------------------------- wrong clocks


class WrongClock(SystemClock):
    """The wall clock is off by `off_s`, which may change at any time."""

    def __init__(self, wall_s: float) -> None:
        self.off_s = wall_s - time.time()

    def wall_s(self) -> float:
        return time.time() + self.off_s


@pytest.mark.parametrize("wall_s", [0.0, time.time() + 10 * 365.25 * 86400], ids=["1970", "in ten years"])
async def test_with_a_wrong_clock_all_goes_on(mosquitto: Mosquitto, tmp_path: Path, wall_s: float) -> None:
    clock = WrongClock(wall_s)
    fast = {"telemetry_period_s": 0.1, "batch_records": 2, "batch_s": 0.2}
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, clock=clock, synchronized=lambda: False, **fast) as uplink:
            status = await fleet.waits("status", ready)
            assert abs(status["ts"] - wall_s) < 3600
            fleet.order("ping", "p1", {}, ttl_s=60)
            await fleet.waits("cmd/ping/p1/st", lambda d: d["state"] == "successful")
            await until(lambda: any(h.suffix == "t/main" for h in fleet.heard))
            assert uplink.state().dropped == 0
        # The time is right now, and what was told in the wrong one is not forgotten.
        since = len(fleet.heard)
        async with linked(mosquitto.port, tmp_path, **fast):
            await fleet.waits("status", ready, since=since)
            fleet.order("ping", "p1", {}, ttl_s=60)
            again = await fleet.waits("cmd/ping/p1/st", lambda d: d["state"] == "successful", since=since)
            assert again["rev"] == 4
        assert fleet.all("gap") == []


async def test_a_clock_that_jumps_while_a_command_waits_expires_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    clock = WrongClock(time.time())
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def run(args: BigArgs, *_: Any) -> None:
        begun.set()
        await go_on.wait()

    handler = Handler(name="big", args=BigArgs, run=run)
    with Fleet(mosquitto.port) as fleet:
        async with linked(
            mosquitto.port, tmp_path, clock=clock, synchronized=lambda: False, handlers=[handler]
        ) as uplink:
            await fleet.waits("status", ready)
            fleet.order("big", "b1", {"data": "x"}, ttl_s=60)
            fleet.order("ping", "p1", {}, ttl_s=60)  # waits behind it
            await asyncio.wait_for(begun.wait(), 10)
            for off_s in (-1.7e9, 3e8, 0.0):
                clock.off_s = off_s
                await asyncio.sleep(0.1)
            clock.off_s = 3e8
            go_on.set()
            await fleet.waits("cmd/big/b1/st", lambda d: d["state"] == "successful")
            await fleet.waits("cmd/ping/p1/st", lambda d: d["state"] == "successful")
            assert (uplink.state().connected, uplink.state().session) == (True, 1)
