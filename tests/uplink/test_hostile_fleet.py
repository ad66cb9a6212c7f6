"""Somebody who may publish under the device's topics means ill: refused with the reason, and nothing changed."""

import asyncio
import gzip
import hashlib
import io
import json
import logging
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from device_side import linked
from fleet_side import Fleet
from https_side import Server, make_ca, serving
from orders_side import Daemon
from test_install import Shelf, archive_of

from flyball.uplink.commands import Handler, Order
from flyball.uplink.configuring import Configuring
from flyball.uplink.download import Source
from flyball.uplink.handlers import config, policy
from flyball.uplink.install import install
from flyball.uplink.journal import Journal
from flyball.uplink.messages import MAX_PAYLOAD
from flyball.uplink.state import FILE_NAME, KEEP_REJECTED
from flyball.uplink.twin import Twin
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio

FLOOD = 10_000
NOWHERE = Source(hosts=())
FINAL = ("successful", "failed", "rejected", "expired", "timed_out", "canceled")


class MarkArgs(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Device:
    """All that a hostile fleet could want to change."""

    def __init__(self, state: Path, source: Source) -> None:
        self.marks: list[str] = []
        self.daemon = Daemon()
        self.shelf = Shelf(state / "ladders")
        self.journal = Journal(state)
        self.configuring = Configuring(self.daemon, self.journal, 0.05)
        self.twin = Twin(self.configuring, self.journal)
        self.handlers: list[Handler[Any]] = [
            Handler(name="mark", args=MarkArgs, run=self._mark),
            config(self.configuring),
            policy(self.configuring),
            install(self.shelf, self.shelf.prove, source, state),
        ]

    async def _mark(self, args: MarkArgs, _: Order) -> None:
        self.marks.append(args.name)

    def unchanged(self) -> bool:
        return (self.marks, self.daemon.applied, self.shelf.store.names(), self.shelf.proven) == ([], [], [], [])


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; run: sudo apt-get install openssl")
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def https(ca: Path) -> Iterator[Server]:
    with serving(ca.parent) as server:
        yield server


@asynccontextmanager
async def attacked(
    mosquitto: Mosquitto, state: Path, source: Source = NOWHERE, **more: Any
) -> AsyncIterator[tuple[Device, Fleet]]:
    device = Device(state, source)
    with Fleet(mosquitto.port) as fleet:
        async with linked(
            mosquitto.port, state, handlers=device.handlers, journal=device.journal, twin=device.twin, **more
        ):
            await fleet.waits("status", lambda d: d["state"] == "ready")
            yield device, fleet


async def end_of(fleet: Fleet, kind: str, id: str, timeout_s: float = 10) -> Any:
    return await fleet.waits(f"cmd/{kind}/{id}/st", lambda d: d["state"] in FINAL, timeout_s)


async def test_an_id_that_comes_again_has_one_effect(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        for _ in range(20):
            fleet.order("mark", "m1", {"name": "one"})
        assert (await end_of(fleet, "mark", "m1"))["state"] == "successful"
        fleet.order("mark", "m2", {"name": "two"})
        await end_of(fleet, "mark", "m2")
        assert device.marks == ["one", "two"]


@pytest.mark.parametrize("kind", ["mark", "ping", "ladder.install"])
async def test_other_arguments_or_another_type_under_a_used_id(mosquitto: Mosquitto, tmp_path: Path, kind: str) -> None:
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        fleet.order("mark", "m1", {"name": "one"})
        ran = await end_of(fleet, "mark", "m1")
        since = len(fleet.heard)
        fleet.order(kind, "m1", {"name": "evil"})
        conflict = await fleet.waits("e/command_conflict", since=since)
        assert conflict["detail"]["known"] != conflict["detail"]["refused"]
        assert device.marks == ["one"]
        assert [h.suffix for h in fleet.heard[since:] if h.suffix.endswith("/st")] == []
    with Fleet(mosquitto.port) as late:
        assert late.wait("cmd/mark/m1/st") == ran


@pytest.mark.parametrize("more", [{"ttl_s": 1e-9}, {"expires_at": 1.0}, {"expires_at": -1e300}])
async def test_what_comes_too_late(mosquitto: Mosquitto, tmp_path: Path, more: dict[str, Any]) -> None:
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        fleet.order("mark", "m1", {"name": "late"}, **more)
        end = await end_of(fleet, "mark", "m1")
        assert (end["state"], bool(end["reason"])) == ("expired", True) or end["state"] == "timed_out"
        assert device.unchanged()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"x" * (MAX_PAYLOAD + 1), "bytes, expected at most"),
        (b'{"args": {"name": "\xff\xfe"}}', "request: "),
        (b"\xff\xfe\x00", "request: "),
        (b"", "request: "),
        (b"null", "request: "),
        (b"[" * 50_000, "request: "),
        (b'{"schema": 2, "args": {"name": "x"}}', "request: "),
        (b'{"schema": "1", "args": {"name": "x"}}', "request: "),
        (b'{"args": []}', "request: "),
        (b'{"args": {"name": 5}}', "args: "),
        (b'{"args": {"name": "x", "more": 1}}', "args: "),
        (b'{"args": {"name": "x"}, "ttl_s": -1}', "ttl_s"),
        (b'{"args": {"name": "x"}, "ttl_s": 1e308}', "ttl_s"),
        (b'{"args": {"name": "x"}, "expires_at": "never"}', "expires_at"),
        (b'{"args": {"name": "x"}, "expect_version": 7}', "expect_version"),
        (b'{"args": {"name": "' + b"\\ud800" + b'"}}', "request: "),
    ],
)
async def test_what_is_no_order_is_rejected_with_the_reason(
    mosquitto: Mosquitto, tmp_path: Path, payload: bytes, reason: str
) -> None:
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        fleet.send("cmd/mark/m1/req", payload, expiry_s=600)
        end = await end_of(fleet, "mark", "m1")
        assert end["state"] == "rejected"
        assert reason in end["reason"]
        fleet.order("ping", "p1", {})
        assert (await end_of(fleet, "ping", "p1"))["state"] == "successful"
        assert device.unchanged()


async def test_types_that_are_unknown_or_not_allowed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with attacked(mosquitto, tmp_path, commands=("ping", "mark")) as (device, fleet):
        for number, (kind, args) in enumerate(
            [
                ("config", {"action": "apply", "set": {"governor.dwell_s": 1.0}}),
                ("ladder.install", {"url": "https://x/y", "sha256": "0" * 64, "ladder": "a", "version": "1"}),
                ("reboot", {}),
            ]
        ):
            fleet.order(kind, f"c{number}", args)
            end = await end_of(fleet, kind, f"c{number}")
            assert end["state"] == "rejected"
            assert "not allowed" in end["reason"] or "unknown command" in end["reason"]
        birth = fleet.all("birth")[-1]
        known = [c["command"] for c in birth["capabilities"]]
        assert known == ["mark", "ping"]
        assert device.unchanged()


async def test_topics_that_are_none_and_orders_that_are_retained(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        good = {"args": {"name": "evil"}}
        fleet.send("cmd/mark/m1/req", good, retain=True)
        assert "retained" in (await fleet.waits("e/command_ignored"))["message"]
        for suffix in ("cmd/mark/m_1!/req", f"cmd/mark/{'i' * 65}/req", "cmd/ma rk/m1/req", "cmd/-/m1/req", "sig/nuke"):
            since = len(fleet.heard)
            fleet.send(suffix, good)
            await fleet.waits("e/command_ignored", since=since)
        assert device.unchanged()
        assert [h for h in fleet.heard if h.suffix.endswith("/st")] == []


async def test_keys_that_the_fleet_may_not_change(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        evil = {
            "uplink.commands.allow": "restart", "uplink.password_file": "/etc/shadow", "paths.state": "/tmp",
            "serving.http": "0.0.0.0:80", "ladder.x.path": "/tmp/evil",
        }  # fmt: skip
        for number, (key, value) in enumerate(evil.items()):
            fleet.order("config", f"c{number}", {"action": "apply", "set": {"governor.dwell_s": 1.0, key: value}})
            end = await end_of(fleet, "config", f"c{number}")
            assert end["state"] == "failed"
            assert f"{key}: not among the settings" in end["reason"]
        assert device.unchanged()
        fleet.send("twin/desired", {"version": 1, "doc": {"config": evil}}, retain=True)
        report = await fleet.waits("twin/reported", lambda d: bool(d["errors"]))
        assert {e["key"] for e in report["errors"]} == {f"config.{key}" for key in evil}
        assert device.unchanged()


async def test_a_version_of_2_to_the_63_locks_nobody_out(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        fleet.send("twin/desired", {"version": 1, "doc": {"tags": {"line": "4"}}}, retain=True)
        await fleet.waits("twin/reported", lambda d: d["desired_version"] == 1)
        for version in (2**63, 2**53, 2**64, -5):
            since = len(fleet.heard)
            fleet.send("twin/desired", {"version": version, "doc": {"tags": {"line": "evil"}}}, retain=True)
            report = await fleet.waits("twin/reported", lambda d: bool(d["errors"]), since=since)
            assert (report["errors"][0]["key"], report["desired_version"]) == ("version", 1)
            assert report["doc"]["tags"] == {"line": "4"}
        fleet.send("twin/desired", {"version": 2, "doc": {"tags": {"line": "5"}}}, retain=True)
        await fleet.waits("twin/reported", lambda d: d["desired_version"] == 2 and d["doc"]["tags"] == {"line": "5"})
        assert device.twin.version() == 2
        fleet.order("mark", "m1", {"name": "x"}, expect_version=1)
        assert "the one in force here is 2" in (await end_of(fleet, "mark", "m1"))["reason"]
        fleet.order("mark", "m2", {"name": "x"}, expect_version=2)
        assert (await end_of(fleet, "mark", "m2"))["state"] == "successful"


async def test_large_orders_and_documents_may_be_deflated_and_bombs_may_not(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        order = zlib.compress(json.dumps({"args": {"name": "one"}}).encode())
        fleet.send("cmd/mark/m1/req", order, expiry_s=600, deflated=True)
        assert (await end_of(fleet, "mark", "m1"))["state"] == "successful"
        fleet.order("mark", "m1", {"name": "one"})  # the same order, plain
        tags = {f"t{n}": "x" * 200 for n in range(20)}
        desired = zlib.compress(json.dumps({"version": 1, "doc": {"tags": tags}}).encode())
        fleet.send("twin/desired", desired, retain=True, deflated=True)
        await fleet.waits("twin/reported", lambda d: d["doc"]["tags"] == tags)
        bombs = {"m2": zlib.compress(b" " * (8 << 20)), "m3": order[:-5], "m4": b"no deflate"}
        for id, payload in bombs.items():
            fleet.send(f"cmd/mark/{id}/req", payload, expiry_s=600, deflated=True)
            end = await end_of(fleet, "mark", id)
            assert (end["state"], "enc=deflate" in end["reason"]) == ("rejected", True)
        fleet.send("twin/desired", bombs["m2"], retain=True, deflated=True)
        await fleet.waits("twin/reported", lambda d: any("enc=deflate" in e["message"] for e in d["errors"]))
        assert device.marks == ["one"]


async def test_the_desired_document_comes_again_after_a_restart_and_is_not_applied_again(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    desired = {"version": 3, "doc": {"config": {"governor.dwell_s": 2.0}}}
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        fleet.send("twin/desired", desired, retain=True)
        await fleet.waits("twin/reported", lambda d: d["desired_version"] == 3)
        assert device.daemon.applied == [{"governor": {"dwell_s": 2.0}}]
    async with attacked(mosquitto, tmp_path) as (device, fleet):
        since = len(fleet.heard)
        report = await fleet.waits("twin/reported", lambda d: d["desired_version"] == 3)
        assert report["doc"]["config"] == {"governor.dwell_s": 2.0}
        fleet.order("ping", "p1", {})
        await end_of(fleet, "ping", "p1")
        assert len(fleet.heard) > since
        assert device.daemon.applied == []


def bad_archive(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        info.size = 4 if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(b"evil"))
    return gzip.compress(buffer.getvalue())


async def test_installs_that_mean_ill(mosquitto: Mosquitto, tmp_path: Path, https: Server, ca: Path) -> None:
    good, outside = archive_of(), tmp_path / "outside"
    state = tmp_path / "state"
    source = Source(hosts=(https.host,), ca_file=str(ca), most_bytes=1 << 20)
    with serving(ca.parent) as other:
        cases: dict[str, tuple[str, bytes, str]] = {
            "not-listed": (other.put("/x", good), good, "not among uplink.commands.install_hosts"),
            "plain": (f"http://{https.host}/x", good, "expected https"),
            "file": ("file:///etc/passwd", good, "expected https"),
            "redirect": (https.redirect("/r", other.url("/x")), good, "not among uplink.commands.install_hosts"),
            "other-content": (https.put("/o", archive_of(model=b"evil")), good, "expected sha256"),
            "other-ladder": (https.put("/n", archive_of(name="other")), archive_of(name="other"), "expected things 2"),
        }
        tricks = [
            ("../../outside", tarfile.REGTYPE, ""), (str(outside), tarfile.REGTYPE, ""),
            ("link", tarfile.SYMTYPE, "/etc"), ("hard", tarfile.LNKTYPE, "/etc/passwd"), ("dev", tarfile.CHRTYPE, ""),
        ]  # fmt: skip
        for number, trick in enumerate(tricks):
            data = bad_archive(*trick)
            cases[f"trick-{number}"] = (https.put(f"/t{number}", data), data, "the archive has")
        bomb = gzip.compress(b"\0" * (64 << 20))
        cases["bomb"] = (https.put("/bomb", bomb), bomb, "unpacks to more than")
        async with attacked(mosquitto, state, source) as (device, fleet):
            for id, (url, data, reason) in cases.items():
                sha256 = hashlib.sha256(data).hexdigest()
                args = {"url": url, "sha256": sha256, "ladder": "things", "version": "2"}
                fleet.order("ladder.install", id, args)
                end = await end_of(fleet, "ladder.install", id)
                assert (id, end["state"]) == (id, "failed")
                assert reason in end["reason"]
            assert device.unchanged()
            assert other.asked == []
            assert not outside.exists()
            assert list((state / "incoming").iterdir()) == []
            args = {"url": https.put("/g", good), "sha256": hashlib.sha256(good).hexdigest(), "ladder": "things"}
            fleet.order("ladder.install", "good", {**args, "version": "2"})
            assert (await end_of(fleet, "ladder.install", "good"))["state"] == "successful"
            assert fleet.states("ladder.install", "good")[-2:] == ["verifying", "successful"]
            assert device.shelf.store.current_version("things") == "2"


async def test_ten_thousand_orders_fill_nothing_and_block_nobody(
    mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mosquitto.stop()
    mosquitto.start(["max_queued_messages 0"])  # else it is the broker that throws most of them away
    payload = json.dumps({"args": {"name": "x" * 500}}).encode()
    async with attacked(mosquitto, tmp_path, commands=("ping",)) as (device, fleet):
        await asyncio.to_thread(_flood, fleet, payload)
        fleet.order("ping", "last", {"echo": "still here"})
        end = await end_of(fleet, "ping", "last", 240)  # two commits an order, on a disk that others use too
        assert (end["state"], end["result"]) == ("successful", {"echo": "still here"})
        assert device.unchanged()
        states = [h for h in fleet.heard if h.suffix.startswith("cmd/mark/") and h.suffix.endswith("/st")]
        assert {h.doc["state"] for h in states} == {"rejected"}
    assert (tmp_path / FILE_NAME).stat().st_size < 16 << 20
    async with attacked(mosquitto, tmp_path, commands=("ping",)):  # the next session forgets what had no effect
        with sqlite3.connect(tmp_path / FILE_NAME) as db:
            assert db.execute("SELECT count(*) FROM command").fetchone()[0] <= KEEP_REJECTED + 1
    assert len(caplog.records) < 100


def _flood(fleet: Fleet, payload: bytes) -> None:
    waiting = [
        fleet._client.publish(f"{fleet._root}/cmd/mark/f{number}/req", payload, qos=1) for number in range(FLOOD)
    ]
    waiting[-1].wait_for_publish(60)
