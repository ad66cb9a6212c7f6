"""Conformance: topics, payloads, sessions, presence. The requirements stand in docs/protocol/conformance.md."""

import json
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance import DEVICE, ROOT, SECRET, Scene, meets, scene
from fleet_side import Fleet
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from flyball.client import Client
from flyball.errors import ControlError
from flyball.ports import UplinkStatus

WRITES = r"status|birth|twin/reported|cmd/[^/]+/[^/]+/st|t/[^/]+|e/[^/]+|gap|a/[^/]+"
RETAINED = r"status|birth|twin/reported|cmd/[^/]+/[^/]+/st|a/[^/]+"


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Has said something of everything, before the first test."""
    with scene(tmp_path_factory.mktemp("session")) as found:
        found.wait("twin/reported")
        found.wait("t/main")
        found.done("ping", "first", {"echo": "x"})
        found.order("ping", "first", {"echo": "another"})
        found.wait("e/command_conflict")
        yield found


@meets("R1", "R2", "R4")
def test_topics_and_writers(ready: Scene) -> None:
    published = ready.published()
    assert {p.suffix.split("/")[0] for p in published} >= {"status", "birth", "t", "e", "cmd", "twin"}
    for packet in published:
        assert packet.topic.startswith(f"{ROOT}/{DEVICE}/"), packet.topic
        assert packet.topic.count("/") <= 7, packet.topic
        assert re.fullmatch(WRITES, packet.suffix), packet.topic


@meets("R3", "R5")
def test_quality_and_retention(ready: Scene) -> None:
    for packet in ready.published():
        assert packet.qos == 1, packet.topic
        assert packet.size <= 128 * 1024
        assert packet.retain == bool(re.fullmatch(RETAINED, packet.suffix)), packet.topic


@meets("R6")
def test_every_payload_has_the_schema_version(ready: Scene) -> None:
    heard = ready.heard()
    assert len({h.suffix for h in heard}) > 6
    assert all(h.doc["schema"] == 1 for h in heard)


@meets("R7")
def test_what_is_large_is_deflated_and_says_so(ready: Scene) -> None:
    (birth, *_), (status, *_) = ready.heard("birth"), ready.heard("status")
    assert (birth.deflated, status.deflated) == (True, False)
    assert len(birth.payload) > 1400 > len(status.payload)


@meets("R8")
def test_a_birth_says_what_the_device_is(ready: Scene) -> None:
    birth = ready.wait("birth")
    assert birth["hardware"]["cores"] >= 1
    assert birth["software"]["flyball"]
    assert birth["ladders"] == []
    schemas = {c["command"]: c["args"] for c in birth["capabilities"]}
    assert {"ping", "mark", "config", "diag"} <= set(schemas)
    assert "echo" in str(schemas["ping"])
    assert "rung" not in schemas  # it is not allowed here


@meets("R9")
def test_init_then_birth_then_ready(tmp_path: Path) -> None:
    with scene(tmp_path) as fresh:
        course = [h.doc["state"] if h.suffix.endswith("status") else "birth" for h in fresh.heard()
                  if h.suffix.endswith(("status", "birth"))]  # fmt: skip
        assert course[:3] == ["init", "birth", "ready"]
        log = fresh.broker.log_text()
        acknowledged = log.index(f"'{ROOT}/{DEVICE}/birth'")
        assert "Sending PUBACK" in log[acknowledged : log.rindex(f"'{ROOT}/{DEVICE}/status'")]
        with Fleet(fresh.broker.port, ROOT) as late:
            assert late.wait(f"{DEVICE}/status")["state"] == "ready"
            assert late.wait(f"{DEVICE}/birth")["session"] == 1
            assert all(h.retain for h in late.heard if h.suffix.endswith(("status", "birth")))


@meets("R10", "R11")
def test_the_session_is_counted_on_disk_and_the_epoch_stays(ready: Scene) -> None:
    before, since = ready.all("birth")[-1], ready.now()
    ready.restart()
    after = ready.wait("birth", since=since)
    assert (after["session"], after["epoch"]) == (before["session"] + 1, before["epoch"])
    status = ready.wait("status", lambda d: d["state"] == "ready", since)
    assert (status["session"], status["epoch"]) == (after["session"], after["epoch"])
    for beginning in ("t/main", "e/", "twin/reported", "cmd/"):
        assert {h.doc["epoch"] for h in ready.heard(beginning)} == {after["epoch"]}, beginning


@meets("R12")
def test_a_new_store_is_a_new_epoch(tmp_path: Path) -> None:
    with scene(tmp_path) as flashed:
        before, since = flashed.wait("birth"), flashed.now()
        flashed.kill()
        for file in flashed.state.glob("*.db*"):
            file.unlink()
        flashed.start()
        after = flashed.wait("birth", since=since)
        assert after["epoch"] != before["epoch"]
        assert after["session"] == 1
        assert flashed.wait("t/main", since=since)["first_seq"] == 0


@meets("R13")
def test_a_rebirth_keeps_the_session(ready: Scene) -> None:
    before, since = ready.all("birth")[-1], ready.now()
    ready.send("sig/rebirth", expiry_s=60)
    after = ready.wait("birth", since=since)
    assert (after["session"], after["desc_version"]) == (before["session"], before["desc_version"] + 1)


@meets("R14")
def test_who_is_back_in_time_was_never_lost(ready: Scene) -> None:
    since = ready.now()
    ready.restart()
    ready.wait("t/main", since=since)
    assert "lost" not in {d["state"] for d in ready.all("status")}


@meets("R15")
def test_a_clean_end_says_so_before_it_leaves(tmp_path: Path) -> None:
    with scene(tmp_path) as leaving:
        assert leaving.end(signal.SIGTERM) == 0
        assert leaving.wait("status", lambda d: d["state"] == "disconnected")["session"] == 1
        log = leaving.broker.log_text()
        assert log.index(f"Received DISCONNECT from {DEVICE}") > log.rindex(f"'{ROOT}/{DEVICE}/status'")
        assert [d["state"] for d in leaving.all("status")][-1] == "disconnected"


@meets("R16")
def test_connect_says_what_the_protocol_asks(tmp_path: Path) -> None:
    packet = connect_packet(tmp_path)
    assert packet["client_id"] == DEVICE
    assert packet["clean_start"] is False
    assert 30 <= packet["keepalive_s"] <= 60
    assert (packet["will_qos"], packet["will_retained"], packet["will_topic"]) == (1, True, f"{ROOT}/{DEVICE}/status")
    properties = packet["properties"]
    assert properties["SessionExpiryInterval"] == 7 * 86400
    assert properties["ReceiveMaximum"] == 8
    assert properties["MaximumPacketSize"] == 256 * 1024
    assert 20 <= packet["will_properties"]["WillDelayInterval"] <= 30
    will = packet["will"]
    assert (will["state"], will["session"]) == ("lost", 2)  # the first one was spent on the real broker
    assert will["epoch"] == packet["epoch"]


def connect_packet(folder: Path) -> dict[str, Any]:
    """The device's first packet, taken apart as section 3.1 of MQTT 5 says."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(20)
    with scene(folder) as found:
        epoch = found.wait("birth")["epoch"]
        found.kill()
        found.start(port=server.getsockname()[1], ready=False)
        taken, _ = server.accept()
        with taken:
            data = taken.recv(65536)
    server.close()
    assert data[0] == 0x10
    at = 1
    while data[at] & 0x80:
        at += 1
    body = data[at + 1 :]
    assert body[:7] == b"\0\4MQTT\5"
    flags, keepalive = body[7], int.from_bytes(body[8:10], "big")
    properties = Properties(PacketTypes.CONNECT)
    _, size = properties.unpack(body[10:])
    client_id, rest = text(body[10 + size :])
    will = Properties(PacketTypes.WILLMESSAGE)
    _, size = will.unpack(rest)
    topic, rest = text(rest[size:])
    will_payload = rest[2 : 2 + int.from_bytes(rest[:2], "big")]
    return {
        "epoch": epoch, "client_id": client_id, "clean_start": bool(flags & 2), "keepalive_s": keepalive,
        "will_qos": flags >> 3 & 3, "will_retained": bool(flags & 0x20), "will_topic": topic,
        "properties": vars(properties), "will_properties": vars(will), "will": json.loads(will_payload),
    }  # fmt: skip


def text(data: bytes) -> tuple[str, bytes]:
    size = int.from_bytes(data[:2], "big")
    return data[2 : 2 + size].decode(), data[2 + size :]


@meets("R17")
def test_the_device_subscribes_to_its_own_and_to_its_groups(ready: Scene) -> None:
    log = ready.broker.log_text()
    block = log[log.index(f"Received SUBSCRIBE from {DEVICE}") :]
    filters = re.findall(r"\t(\S+) \(QoS \d\)", block[: block.index("Sending SUBACK")])
    own = {f"{ROOT}/{DEVICE}/{suffix}" for suffix in ("cmd/+/+/req", "sig/+", "status", "twin/desired")}
    assert set(filters) == own | {f"{ROOT}/_all/cmd/+/+/req"}


@meets("R18")
def test_orders_are_unverified_until_a_probe_is_answered(ready: Scene) -> None:
    since = ready.now()
    ready.restart()
    assert ready.wait("status", lambda d: d["state"] == "ready", since)["commands"] == "unverified"
    ready.wait("e/probe", since=since)
    ready.send("sig/probe", expiry_s=60)
    ready.wait("status", lambda d: d["commands"] == "verified", since)


def uplink(control: Client) -> UplinkStatus:
    """What the daemon says on its own socket; where there is none yet, that it is not connected."""
    try:
        found = control.status().uplink
    except ControlError:
        found = None
    return found or UplinkStatus(connected=False, broker="", error="")


@meets("R19")
def test_a_refused_password_is_not_tried_again_and_again(tmp_path: Path) -> None:
    with scene(tmp_path) as refused:
        refused.kill()
        refused.broker.stop()
        refused.broker.start(["allow_anonymous false"])  # the last such line counts
        refused.start(ready=False)
        control = Client(refused.state.parent / "socket")
        refused.until(lambda: "not authori" in uplink(control).error.lower())
        time.sleep(5)  # by the ordinary back-off there were more attempts in it
        assert uplink(control).session == 2  # counts every CONNECT
        control.close()


@meets("R20")
def test_the_daemon_does_not_depend_on_the_broker(ready: Scene) -> None:
    since, control = ready.now(), Client(ready.state.parent / "socket")
    ready.broker.stop()
    try:
        ready.until(lambda: not uplink(control).connected)
        assert ready.running()
    finally:
        ready.broker.start()
        control.close()
    ready.wait("status", lambda d: d["state"] == "ready", since, timeout_s=40)


@meets("R21")
def test_an_alarm_is_retained_and_an_empty_payload_clears_it(ready: Scene) -> None:
    since = ready.now()
    holder = sqlite3.connect(ready.state / "spool.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")  # nothing can be written now
    try:
        ready.wait("a/spool", since=since, timeout_s=30)
        with Fleet(ready.broker.port, ROOT) as late:
            assert late.wait(f"{DEVICE}/a/spool")["message"]
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    ready.until(lambda: any(h.suffix == f"{DEVICE}/a/spool" and not h.payload for h in ready.fleet.heard[since:]), 90)


@meets("R22")
def test_diagnosis_and_logs_hide_secrets(ready: Scene) -> None:
    # The device logs the names of members that it does not know, whatever they are.
    ready.send("twin/desired", {"version": 1, "doc": {SECRET: 1}}, retain=True)
    ready.wait("twin/reported", lambda d: bool(d["errors"]))
    for kind, args in (("diag", {}), ("logs", {"lines": 100})):
        since = ready.now()
        end = ready.done(kind, f"{kind}-1", args)
        assert end["state"] == "successful"
        assert "a desired document was refused" in str(end["result"])
        found = [h for h in ready.fleet.heard[since:] if h.suffix.startswith(f"{DEVICE}/cmd/{kind}/")]
        assert found
        assert all(SECRET.encode() not in h.payload for h in found)
    ready.send("twin/desired", b"", retain=True)
