"""The whole uplink against a real broker."""

import asyncio
import logging
import random
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_side import QUICK, linked, make, records, until
from fleet_side import Fleet
from test_handlers import Wheel

from flyball.errors import ConfigError
from flyball.events import Event, Events
from flyball.uplink.backoff import Waits
from flyball.uplink.handlers import rung
from flyball.uplink.messages import MAX_PAYLOAD, Presence
from flyball.uplink.spool import SpoolFile
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio


def ready(doc: Any) -> bool:
    return bool(doc["state"] == "ready")


# ---------------------------------------------------------------------------------------------------------- presence


async def test_status_and_birth_of_two_sessions(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port) as fleet:
        for session in (1, 2):
            fleet.heard.clear()
            async with linked(mosquitto.port, tmp_path):
                await fleet.waits("status", ready)
            await fleet.waits("status", lambda d: d["state"] == "disconnected")
            order = [h.suffix for h in fleet.heard if h.suffix in ("status", "birth")]
            assert order == ["status", "birth", "status", "status"]
            assert [d["state"] for d in fleet.all("status")] == ["init", "ready", "disconnected"]
            (birth,) = fleet.all("birth")
            assert {d["session"] for d in fleet.all("status")} == {birth["session"]} == {session}
            assert {d["epoch"] for d in fleet.all("status")} == {birth["epoch"]}
            assert (birth["schema"], birth["desc_version"]) == (1, 1)
            assert birth["ladders"][0]["name"] == "imagenet"
            assert birth["hardware"]["memory_b"] is None
            assert [c["command"] for c in birth["capabilities"]] == ["ping"]
    with Fleet(mosquitto.port) as late:
        assert late.wait("status")["state"] == "disconnected"
        assert late.wait("birth")["session"] == 2
        assert all(h.retain and h.qos == 1 for h in late.heard)


async def test_nothing_is_said_after_the_goodbye(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a probe may come between the goodbye and the end of the connection."""
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path) as uplink:
            await fleet.waits("status", ready)
            say = uplink._greeting.say

            def say_and_be_answered(state: Presence) -> None:
                say(state)
                uplink._greeting.probed()

            monkeypatch.setattr(uplink._greeting, "say", say_and_be_answered)
        await fleet.waits("status", lambda d: d["state"] == "disconnected")
    with Fleet(mosquitto.port) as late:
        assert late.wait("status")["state"] == "disconnected"
    async with linked(mosquitto.port, tmp_path):
        with Fleet(mosquitto.port) as next_session:
            await next_session.waits("status", lambda d: ready(d) and d["session"] == 2)


async def test_the_will_is_published_when_the_connection_is_cut(mosquitto: Mosquitto, tmp_path: Path) -> None:
    uplink = make(mosquitto.port, tmp_path)
    with Fleet(mosquitto.port) as fleet:
        await uplink.start()
        await fleet.waits("status", ready)
        assert uplink._link.connection is not None
        uplink._tasks["link"].cancel()  # as after a power cut: nobody reconnects
        uplink._link.connection.abort("cut")
        lost = await fleet.waits("status", lambda d: d["state"] == "lost")
        birth = fleet.wait("birth")
        assert (lost["session"], lost["epoch"]) == (birth["session"], birth["epoch"])
        await uplink.stop()


async def test_a_reconnect_within_the_delay_leaves_no_will(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path) as uplink:
            await fleet.waits("status", ready)
            assert uplink._link.connection is not None
            uplink._link.connection.abort("cut")
            await fleet.waits("status", lambda d: ready(d) and d["session"] == 2)
            await asyncio.sleep(QUICK.will_delay_s + 0.5)
            assert [d for d in fleet.all("status") if d["state"] == "lost"] == []


async def test_rebirth_sync_and_probe(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path) as uplink:
            await fleet.waits("e/probe")
            assert uplink.state().commands == "unverified"
            fleet.send("sig/probe", expiry_s=60)
            await fleet.waits("status", lambda d: d["commands"] == "verified")
            fleet.send("sig/rebirth", expiry_s=60)
            birth = await fleet.waits("birth", lambda d: d["desc_version"] == 2)
            assert birth["session"] == 1
            assert fleet.find("t/main") is None
            fleet.send("sig/sync", expiry_s=60)
            assert (await fleet.waits("t/main"))["first_seq"] == 0
            fleet.send("sig/dance", expiry_s=60)
            assert "dance" in (await fleet.waits("e/command_ignored"))["message"]


async def test_somebody_else_under_our_id_is_an_alarm_and_waits_long(tmp_path: Path) -> None:
    """The broker is played, because mosquitto before 2.0.15 does not say that a session was taken over."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00" + b"\xe0\x01\x8e")  # CONNACK, DISCONNECT
        await writer.drain()
        writer.close()

    heard: list[Event] = []
    events = Events()
    events.subscribe(heard.append)
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    uplink = make(server.sockets[0].getsockname()[1], tmp_path, events=events)
    await uplink.start()
    await until(lambda: "duplicate_identity" in [e.kind for e in heard])
    await asyncio.sleep(3 * QUICK.waits.cap_s)
    assert uplink.state().session == 1
    await uplink.stop()
    server.close()


def copied(source: Path, target: Path) -> Path:
    """As a memory card is copied, with all that stands on it."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("clone", [False, True])
async def test_two_devices_of_one_id_do_not_throw_each_other_out_for_ever(
    mosquitto: Mosquitto, tmp_path: Path, clone: bool
) -> None:
    """Against a broker that only hangs up (2.0.11), or that says why: one of the two stays, and the other waits."""
    heard: list[Event] = []
    events = Events()
    events.subscribe(heard.append)
    if clone:
        async with linked(mosquitto.port, tmp_path / "one"):
            pass
        copied(tmp_path / "one", tmp_path / "two")
    one = make(mosquitto.port, tmp_path / "one", events=events)
    two = make(mosquitto.port, tmp_path / "two", events=events)
    with Fleet(mosquitto.port) as fleet:
        try:
            await one.start()
            await fleet.waits("status", ready)
            await two.start()
            await until(lambda: "duplicate_identity" in [e.kind for e in heard], 20)
            await until(lambda: one.state().connected != two.state().connected)
            await asyncio.sleep(2 * QUICK.waits.cap_s)
            sessions = (one.state().session, two.state().session)
            await asyncio.sleep(5 * QUICK.waits.cap_s)
            assert (one.state().session, two.state().session) == sessions
            assert [e.kind for e in heard].count("duplicate_identity") == 1
            (out,) = [u for u in (one, two) if not u.state().connected]
            assert "another device is connected as 'edge-1'" in out.state().error or "taken over" in out.state().error
            assert ready(fleet.all("status")[-1])
        finally:
            await two.stop()
            await one.stop()


async def test_a_device_that_was_flashed_anew_is_no_stranger_to_itself(mosquitto: Mosquitto, tmp_path: Path) -> None:
    heard: list[Event] = []
    events = Events()
    events.subscribe(heard.append)
    uplink = make(mosquitto.port, tmp_path / "before")
    with Fleet(mosquitto.port) as fleet:
        await uplink.start()
        await fleet.waits("status", ready)
        assert uplink._link.connection is not None
        uplink._tasks["link"].cancel()  # the power goes: "ready" stays behind for as long as the will is delayed
        uplink._link.connection.abort("cut")
        since = len(fleet.heard)
        async with linked(mosquitto.port, tmp_path / "after", events=events) as anew:
            await fleet.waits("status", ready, since=since)
            assert anew._link.connection is not None
            anew._link.connection.abort("cut")
            await fleet.waits("status", lambda d: ready(d) and d["session"] == 2, since=since)
        await uplink.stop()
    assert "duplicate_identity" not in [e.kind for e in heard]


async def test_a_stranger_that_does_not_come_back_is_followed_after_the_wait(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    timing = replace(QUICK, waits=Waits(base_s=0.2, cap_s=0.4, taken_over_s=1.0))
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, timing=timing) as uplink:
            await fleet.waits("status", ready)
            stranger = {"schema": 1, "state": "ready", "session": 9, "epoch": "x", "ts": 0.0, "commands": "verified"}
            since = len(fleet.heard)
            fleet.send("status", stranger, retain=True)
            await fleet.waits("a/duplicate_identity")
            await fleet.waits("status", lambda d: ready(d) and d["epoch"] != "x", since=since)
            assert uplink.state().session == 2


# --------------------------------------------------------------------------------------------------------- telemetry


async def test_telemetry_has_gapless_numbers_also_across_restarts(mosquitto: Mosquitto, tmp_path: Path) -> None:
    fast = {"telemetry_period_s": 0.1, "batch_records": 4}
    with Fleet(mosquitto.port) as fleet:
        for least in (8, 16):
            async with linked(mosquitto.port, tmp_path, **fast):
                await fleet.waits("t/main", lambda d, least=least: d["first_seq"] >= least)
        await asyncio.to_thread(fleet.wait, "status", lambda d: d["session"] == 2 and d["state"] == "disconnected")
    batches = fleet.all("t/main")
    numbers = [b["first_seq"] + i for b in batches for i in range(b["count"])]
    assert numbers == list(range(len(numbers)))
    assert fleet.all("gap") == []
    for batch in batches:
        assert all(len(column) == batch["count"] for column in batch["columns"].values())
        assert "power_w" not in batch["columns"]  # nothing has measured it
        assert set(batch["columns"]["imagenet/rung"]) == {"big"}
        assert (batch["clk"], batch["hist"]) == ("synced", False)
    load = [v for b in batches for v in b["columns"]["load_1m"]]
    assert load == sorted(load[: load.index(0.0, 1)]) + sorted(load[load.index(0.0, 1) :])  # each run in its order
    assert any(h.deflated for h in fleet.heard if h.suffix == "t/main") == any(
        len(h.payload) > 1400 for h in fleet.heard if h.suffix == "t/main"
    )


async def test_events_are_published_with_numbers_of_their_own(mosquitto: Mosquitto, tmp_path: Path) -> None:
    events = Events()
    with Fleet(mosquitto.port) as fleet:
        uplink = make(mosquitto.port, tmp_path, events=events)
        await uplink.start()
        events.publish(Event(kind="throttling", t_s=1.0, message="before the store is open", severity="warning"))
        await until(lambda: uplink.state().connected)
        await asyncio.to_thread(
            events.publish, Event(kind="switch", t_s=1.0, message="from a thread", ladder="imagenet", detail={"x": 1.5})
        )
        early = await fleet.waits("e/throttling")
        switch = await fleet.waits("e/switch")
        events.publish(Event(kind="no/topic", t_s=1.0, message="cannot be"))
        await uplink.stop()
    assert (early["severity"], switch["ladder"], switch["detail"]) == ("warning", "imagenet", {"x": 1.5})
    numbers = [h.doc["seq"] for h in fleet.heard if h.suffix.startswith("e/")]
    assert numbers == list(range(len(numbers)))


async def test_what_was_measured_offline_comes_late_and_marked(mosquitto: Mosquitto, tmp_path: Path) -> None:
    fast = {"telemetry_period_s": 0.1, "batch_records": 2, "drain_records_s": 40}
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, **fast) as uplink:
            await fleet.waits("t/main", lambda d: d["first_seq"] >= 2)
            mosquitto.stop()
            await until(lambda: (uplink.state().spool_records or 0) >= 20, 15)
            assert not uplink.state().connected
            assert uplink.state().queued < 10  # on the disk, not in memory
            mosquitto.start()
            since = len(fleet.heard)
            await fleet.waits("t/main", lambda d: not d["hist"], since=since)
            await until(lambda: (uplink.state().spool_records or 0) < 10, 15)
    arrived = [b["first_seq"] + i for b in fleet.all("t/main") for i in range(b["count"])]
    assert sorted(set(arrived)) == list(range(max(arrived) + 1))
    assert fleet.all("gap") == []
    assert sum(b["count"] for b in fleet.all("t/main") if b["hist"]) >= 15


async def test_a_kill_or_a_restart_in_the_blackout_loses_nothing_sealed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    fast = {"telemetry_period_s": 0.1, "batch_records": 2}
    async with linked(mosquitto.port, tmp_path, **fast) as uplink:
        mosquitto.stop()
        await until(lambda: (uplink.state().spool_records or 0) >= 10, 15)
    waiting = left_behind(tmp_path)
    assert waiting >= 10
    mosquitto.start()
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, **fast):
            await fleet.waits("t/main", lambda d: not d["hist"])
            await until(lambda: sum(b["count"] for b in fleet.all("t/main") if b["hist"]) >= waiting - 5)
    arrived = {b["first_seq"] + i for b in fleet.all("t/main") for i in range(b["count"])}
    assert arrived == set(range(min(arrived), max(arrived) + 1))
    assert fleet.all("gap") == []


async def test_a_damaged_spool_is_an_alarm_and_no_number_is_given_out_twice(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    fast = {"telemetry_period_s": 0.1, "batch_records": 2}
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, **fast):
            await fleet.waits("t/main", lambda d: d["first_seq"] >= 4)
        before = {b["first_seq"] for b in fleet.all("t/main")}
        (tmp_path / "spool.db").write_bytes(b"power cut" * 1000)
        since = len(fleet.heard)
        async with linked(mosquitto.port, tmp_path, **fast):
            alarm = await fleet.waits("a/spool_replaced")
            first = await fleet.waits("t/main", since=since)
    assert "spool.db.corrupt-1" in alarm["message"]
    assert (tmp_path / "spool.db.corrupt-1").read_bytes() == b"power cut" * 1000
    assert first["first_seq"] > max(before)


def left_behind(state_dir: Path) -> int:
    """Records in the spool of a daemon that has ended."""
    file = SpoolFile(state_dir)
    file.begin("", {})
    try:
        return file.totals().records
    finally:
        file.close()


async def test_what_the_broker_does_not_take_does_not_wedge_the_link(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.stop()
    mosquitto.start(["max_packet_size 1500"])
    events = Events()
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, events=events) as uplink:
            await fleet.waits("status", ready)
            noise = random.Random(1).randbytes(4000).hex()
            events.publish(Event(kind="large", t_s=1.0, message=noise))
            events.publish(Event(kind="small", t_s=1.0, message="x"))
            await fleet.waits("e/small")
            assert (uplink.state().dropped, uplink.state().session) == (1, 1)


# ---------------------------------------------------------------------------------------------------------- commands


async def test_ping(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path) as uplink:
            await fleet.waits("e/probe")
            await until(lambda: uplink.state().queued == 0)  # else a state may replace the one before it
            fleet.order("ping", "p1", {"echo": "hello"}, ttl_s=60)
            done = await fleet.waits("cmd/ping/p1/st", lambda d: d["state"] == "successful")
            assert done["result"] == {"echo": "hello"}
            assert fleet.states("ping", "p1") == ["received", "accepted", "executing", "successful"]
            assert [d["rev"] for d in fleet.all("cmd/ping/p1/st")] == [1, 2, 3, 4]
    with Fleet(mosquitto.port) as late:
        late.wait("cmd/ping/p1/st", lambda d: d["state"] == "successful")
        (state,) = [h for h in late.heard if h.suffix == "cmd/ping/p1/st"]
        assert state.retain
        assert state.expiry_s is not None
        assert 6 * 86400 < state.expiry_s <= 7 * 86400


async def test_rung_reaches_the_governor(mosquitto: Mosquitto, tmp_path: Path) -> None:
    wheel = Wheel()
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, handlers=[rung(wheel)]):
            await fleet.waits("status", ready)
            fleet.order("rung", "r1", {"ladder": "imagenet", "rung": "small", "for_s": 60})
            fleet.order("rung", "r2", {"ladder": "imagenet", "rung": "auto"})
            fleet.order("rung", "r3", {"ladder": "other", "rung": "small"})
            done = await fleet.waits("cmd/rung/r1/st", lambda d: d["state"] == "successful")
            failed = await fleet.waits("cmd/rung/r3/st", lambda d: d["state"] == "failed")
    assert wheel.told == [("pin", "imagenet", "small", 60.0), ("release", "imagenet")]
    assert done["result"]["switched"]
    assert failed["reason"] == "no ladder 'other'"


async def test_repetition_and_conflict(mosquitto: Mosquitto, tmp_path: Path) -> None:
    wheel = Wheel()
    pin = {"ladder": "imagenet", "rung": "small"}
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, handlers=[rung(wheel)]):
            await fleet.waits("status", ready)
            fleet.order("rung", "c1", pin)
            await fleet.waits("cmd/rung/c1/st", lambda d: d["state"] == "successful")
        async with linked(mosquitto.port, tmp_path, handlers=[rung(wheel)]):
            since = len(fleet.heard)
            fleet.order("rung", "c1", dict(reversed(pin.items())))
            again = await fleet.waits("cmd/rung/c1/st", since=since)
            assert (again["state"], again["rev"]) == ("successful", 4)
            since = len(fleet.heard)
            fleet.order("rung", "c1", {**pin, "for_s": 5})
            fleet.order("ping", "c1", {})
            conflict = await fleet.waits("e/command_conflict", lambda d: d["detail"]["type"] == "ping")
            assert conflict["detail"]["known"] != conflict["detail"]["refused"]
            states = [h.suffix for h in fleet.heard[since:] if h.suffix.endswith("/st")]
            assert states == []
    assert len(wheel.told) == 1


async def test_retained_orders_are_not_carried_out(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port) as fleet:
        fleet.send("cmd/ping/before/req", {"args": {}}, retain=True)
        async with linked(mosquitto.port, tmp_path):
            assert "retained" in (await fleet.waits("e/command_ignored", lambda d: "before" in d["message"]))["message"]
            fleet.send("cmd/ping/live/req", {"args": {}}, retain=True)
            await fleet.waits("e/command_ignored", lambda d: "live" in d["message"])
            fleet.order("ping", "good", {})
            await fleet.waits("cmd/ping/good/st", lambda d: d["state"] == "successful")
    assert fleet.find("cmd/ping/before/st") is None
    assert fleet.find("cmd/ping/live/st") is None


async def test_expired_by_the_broker_or_by_us(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with linked(mosquitto.port, tmp_path):
        pass  # the session is there, and its subscriptions
    with Fleet(mosquitto.port) as fleet:
        fleet.send("cmd/ping/short/req", {"args": {}}, expiry_s=1)
        fleet.send("cmd/ping/late/req", {"args": {}, "expires_at": time.time() + 1}, expiry_s=600)
        fleet.send("cmd/ping/long/req", {"args": {}}, expiry_s=600)
        await asyncio.sleep(2.1)
        async with linked(mosquitto.port, tmp_path):
            await fleet.waits("cmd/ping/long/st", lambda d: d["state"] == "successful")
            await fleet.waits("cmd/ping/late/st", lambda d: d["state"] == "expired")
    assert fleet.find("cmd/ping/short/st") is None


HOSTILE = {
    "not-json": b"}{",
    "not-utf8": b'{"args": {"echo": "\xff\xfe"}}',
    "empty": b"",
    "nul": b"\0" * 1000,
    "list": b"[1, 2]",
    "deep": b'{"args": {"echo": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
    "big-number": b'{"args": {"echo": ' + b"9" * 10_000 + b"}}",
    "wrong-type": b'{"args": {"echo": {"a": 1}}}',
    "unknown-argument": b'{"args": {"ech0": "x"}}',
    "args-list": b'{"args": ["x"]}',
    "args-null": b'{"args": null}',
    "forever": b'{"args": {}, "ttl_s": 1e12}',
    "no-time": b'{"args": {}, "ttl_s": -1}',
    "nan": b'{"args": {}, "ttl_s": NaN}',
    "huge": b'{"args": {"echo": "' + b"x" * MAX_PAYLOAD + b'"}}',
    "too-long-text": b'{"args": {"echo": "' + b"x" * 5000 + b'"}}',
    "other-schema": b'{"schema": 99, "args": {}}',
    "versioned": b'{"args": {}, "expect_version": 9223372036854775807}',
}


async def test_hostile_orders_are_rejected_and_the_link_goes_on(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path) as uplink:
            await fleet.waits("status", ready)
            for name, payload in HOSTILE.items():
                fleet.send(f"cmd/ping/{name}/req", payload)
            fleet.send("cmd/reboot/unknown/req", {"args": {}})
            fleet.send("cmd/rung/not-known-here/req", {"args": {}})
            fleet.send("cmd/ping/bad id/req", {"args": {}})
            fleet.send("cmd/p ng/x/req", {"args": {}})
            fleet.send("cmd/ping/" + "i" * 65 + "/req", {"args": {}})
            fleet.order("ping", "after", {"echo": "still here"})
            await fleet.waits("cmd/ping/after/st", lambda d: d["state"] == "successful")
            for name in HOSTILE:
                rejected = await fleet.waits(f"cmd/ping/{name}/st")
                assert (rejected["state"], rejected["rev"]) == ("rejected", 1), name
                assert rejected["reason"], name
                assert len(rejected["reason"]) <= 2000
            assert "unknown command 'reboot'" in fleet.wait("cmd/reboot/unknown/st")["reason"]
            await fleet.waits("e/command_ignored", lambda d: "i" * 60 in d["message"])
            assert len(fleet.all("e/command_ignored")) == 3
            assert uplink.state().session == 1
    assert "Received PUBACK from edge-1" in mosquitto.log_text()
    assert mosquitto.log_text().count("Received PUBACK from edge-1") == len(HOSTILE) + 6


async def test_an_order_that_cannot_be_written_down_stays_with_the_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    heard: list[Event] = []
    events = Events()
    events.subscribe(heard.append)
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, events=events) as uplink:
            await fleet.waits("status", ready)
            holder = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            for number in range(12):  # more than the receive maximum of 8
                fleet.order("ping", f"p{number}", {})
            await until(lambda: not uplink.state().connected)
            assert "Received PUBACK from edge-1" not in mosquitto.log_text()
            assert [e.kind for e in heard if e.severity == "error"] == ["state_store"]
            holder.execute("ROLLBACK")
            holder.close()
            for number in range(12):
                await fleet.waits(f"cmd/ping/p{number}/st", lambda d: d["state"] == "successful")
            # A state that still waits when the next one comes is replaced by it: those between may be missing.
            assert [d["rev"] for d in fleet.all("cmd/ping/p0/st")][-1] == 4
            cleared = [h for h in fleet.heard if h.suffix == "a/state_store"]
            assert cleared[-1].payload == b""


# -------------------------------------------------------------------------------------------- a broker with troubles


async def test_nothing_acknowledged_is_lost_when_the_broker_restarts(mosquitto: Mosquitto, tmp_path: Path) -> None:
    wheel = Wheel()
    fast = {"telemetry_period_s": 0.1, "batch_records": 2}
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, handlers=[rung(wheel)], **fast) as uplink:
            for round in range(3):
                await fleet.waits("t/main", lambda d: d["first_seq"] > 4)
                session, since = uplink.state().session, len(fleet.heard)
                mosquitto.stop()
                await until(lambda: not uplink.state().connected)
                mosquitto.start()
                await fleet.waits("status", lambda d, s=session: ready(d) and d["session"] > s, since=since)
                fleet.order("rung", f"r{round}", {"ladder": "imagenet", "rung": "small"})
                await fleet.waits(f"cmd/rung/r{round}/st", lambda d: d["state"] == "successful")
            assert uplink.state().dropped == 0
        await fleet.waits("status", lambda d: d["state"] == "disconnected")
    arrived = {b["first_seq"] + i for b in fleet.all("t/main") for i in range(b["count"])}
    assert len(wheel.told) == 3
    assert arrived == set(range(max(arrived) + 1))
    events = {h.doc["seq"] for h in fleet.heard if h.suffix.startswith("e/")}
    assert events == set(range(max(events) + 1))
    assert left_behind(tmp_path) == 0
    assert fleet.all("gap") == []


async def test_a_broker_that_forgot_everything_is_greeted_anew(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with linked(mosquitto.port, tmp_path) as uplink:
        mosquitto.kill()
        mosquitto.forget()
        await until(lambda: not uplink.state().connected)
        mosquitto.start()
        with Fleet(mosquitto.port) as fleet:
            await fleet.waits("birth", lambda d: d["session"] >= 2)
            await fleet.waits("status", ready)
            fleet.order("ping", "p1", {})
            await fleet.waits("cmd/ping/p1/st", lambda d: d["state"] == "successful")


async def test_an_unreachable_broker_is_logged_once_and_found_later(
    mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto.stop()
    uplink = make(mosquitto.port, tmp_path, telemetry_period_s=0.1, batch_records=1)
    with caplog.at_level(logging.INFO, "flyball"):
        began = time.monotonic()
        await uplink.start()
        assert time.monotonic() - began < 0.1
        await until(lambda: (uplink.state().session or 0) >= 4)
        assert "refused" in uplink.state().error
        assert not uplink.state().connected
        assert [r.levelname for r in caplog.records if "uplink" in r.name] == ["WARNING"]
        mosquitto.start()
        await until(lambda: uplink.state().connected)
        assert [r.levelname for r in caplog.records if "uplink" in r.name] == ["WARNING", "INFO"]
    assert uplink.state().error == ""
    with Fleet(mosquitto.port) as fleet:
        await fleet.waits("status", ready)
    await uplink.stop()


async def test_garbage_on_the_port_is_no_broker_and_no_harm(tmp_path: Path) -> None:
    async def garbage(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    uplink = make(server.sockets[0].getsockname()[1], tmp_path)
    await uplink.start()
    await until(lambda: (uplink.state().session or 0) >= 3)
    assert uplink.state().error
    began = time.monotonic()
    await uplink.stop()
    assert time.monotonic() - began < 2
    server.close()


async def test_stopping_while_the_broker_hangs_takes_seconds_only(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK, and never another word
        await reader.read()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    uplink = make(server.sockets[0].getsockname()[1], tmp_path)
    await uplink.start()
    await until(lambda: uplink.state().connected)
    began = time.monotonic()
    await uplink.stop()
    assert time.monotonic() - began < 2 * QUICK.drain_s + 3
    server.close()


async def test_switched_off_it_does_nothing(tmp_path: Path) -> None:
    uplink = make(1, tmp_path, enabled=False)
    await uplink.start()
    assert uplink.state().connected is False
    await uplink.stop()
    assert not (tmp_path / "state.db").exists()


def test_a_device_that_never_links_does_not_pay_for_paho() -> None:
    code = (
        "import sys, flyball.uplink.uplink; print([m for m in ('paho', 'numpy', 'typer', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


async def test_an_id_that_is_no_topic_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"uplink\.device: device id"):
        make(1, tmp_path, device="a/b")


async def test_a_broken_snapshot_leaves_the_rest_alone(mosquitto: Mosquitto, tmp_path: Path) -> None:
    uplink = make(mosquitto.port, tmp_path, telemetry_period_s=0.1, batch_records=1)
    good, calls = records(), 0

    def sometimes() -> Any:
        nonlocal calls
        calls += 1
        if calls < 5:
            raise RuntimeError("sensor gone")
        return good()

    uplink._snapshot = sometimes
    with Fleet(mosquitto.port) as fleet:
        await uplink.start()
        assert (await fleet.waits("t/main"))["first_seq"] == 0
        await uplink.stop()
