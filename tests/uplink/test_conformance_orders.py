"""Conformance: commands and twin. The requirements stand in docs/protocol/conformance.md."""

import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

import pytest
from conformance import DEVICE, ROOT, Scene, meets, scene
from fleet_side import Fleet

DAY_S = 86400


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("orders")) as found:
        yield found


# -------------------------------------------------------------------------------------------------------- commands


@meets("R30", "R31")
def test_an_order_goes_through_its_states(ready: Scene) -> None:
    end = ready.done("ping", "p1", {"echo": "hello"})
    assert (end["state"], end["result"]["echo"]) == ("successful", "hello")
    told = ready.all("cmd/ping/p1/st")
    assert [d["state"] for d in told] == ["received", "accepted", "executing", "successful"]
    assert [d["rev"] for d in told] == sorted({d["rev"] for d in told})


@meets("R32")
def test_a_state_stays_for_a_week(ready: Scene) -> None:
    ready.done("ping", "p2", {})
    with Fleet(ready.broker.port, ROOT) as late:
        late.wait(f"{DEVICE}/cmd/ping/p2/st", lambda d: d["state"] == "successful")
        found = late.find(f"{DEVICE}/cmd/ping/p2/st")
    assert found is not None
    assert found.retain
    assert found.expiry_s is not None
    assert 7 * DAY_S - 600 < found.expiry_s <= 7 * DAY_S


@meets("R33")
def test_puback_comes_after_the_journal_row(ready: Scene) -> None:
    holder = sqlite3.connect(ready.state / "state.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")  # the commit now waits
    since = len(ready.broker.log_text())
    try:
        ready.order("mark", "j1", {"name": "j1"})
        ready.until(lambda: f"Sending PUBLISH to {DEVICE} (d0, q1" in ready.broker.log_text()[since:])
        time.sleep(0.3)
        assert holder.execute("SELECT count(*) FROM command WHERE id = 'j1'").fetchone() == (0,)
        assert f"Received PUBACK from {DEVICE}" not in ready.broker.log_text()[since:]
        assert "j1" not in ready.marks()
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert ready.end_of("mark", "j1")["state"] == "successful"
    ready.until(lambda: f"Received PUBACK from {DEVICE}" in ready.broker.log_text()[since:])
    assert ready.marks().count("j1") == 1


@meets("R34")
def test_the_same_order_again_is_answered_and_not_done(ready: Scene) -> None:
    first = ready.done("mark", "same", {"name": "same"})
    since = ready.now()
    ready.order("mark", "same", {"name": "same"})
    again = ready.wait("cmd/mark/same/st", since=since)
    assert (again["state"], again["rev"]) == (first["state"], first["rev"])
    assert ready.marks().count("same") == 1


@meets("R35", "R36")
@pytest.mark.parametrize("kind", ["mark", "ping"])
def test_another_order_under_a_used_id_is_a_conflict(ready: Scene, kind: str) -> None:
    """Of the same type with other arguments, or of another type."""
    id = f"used-{kind}"
    first = ready.done("mark", id, {"name": id})
    since = ready.now()
    ready.order(kind, id, {"name": "another"} if kind == "mark" else {})
    conflict = ready.wait("e/command_conflict", since=since)
    assert conflict["detail"]["id"] == id
    assert len(conflict["detail"]["known"]) == len(conflict["detail"]["refused"]) == 64
    assert conflict["detail"]["known"] != conflict["detail"]["refused"]
    assert "another" not in ready.marks()
    with Fleet(ready.broker.port, ROOT) as late:  # what is retained is not touched
        assert late.wait(f"{DEVICE}/cmd/mark/{id}/st")["rev"] == first["rev"]
    assert ready.all(f"cmd/ping/{id}/st") == []


@meets("R37", "R38")
def test_after_a_kill_what_was_executing_has_failed_and_what_was_not_goes_on(ready: Scene) -> None:
    ready.order("mark", "k1", {"name": "k1", "wait": True})
    ready.order("mark", "k2", {"name": "k2"})
    ready.wait("cmd/mark/k2/st", lambda d: d["state"] == "received")
    ready.until(lambda: "k1" in ready.marks())
    ready.restart()
    failed = ready.end_of("mark", "k1")
    assert (failed["state"], failed["reason"].split(":")[0]) == ("failed", "interrupted")
    assert ready.end_of("mark", "k2")["state"] == "successful"
    assert (ready.marks().count("k1"), ready.marks().count("k2")) == (1, 1)


@meets("R39")
def test_what_cannot_begin_in_its_time_expires(ready: Scene) -> None:
    ready.order("mark", "slow", {"name": "slow", "wait": True}, ttl_s=3.5)
    ready.order("mark", "by-ttl", {"name": "by-ttl"}, ttl_s=0.5)
    ready.order("mark", "by-expiry", {"name": "by-expiry"}, expiry_s=2)
    ready.order("mark", "in-time", {"name": "in-time"}, ttl_s=60)
    assert ready.end_of("mark", "by-ttl")["state"] == "expired"
    assert ready.end_of("mark", "by-expiry")["state"] == "expired"
    assert ready.end_of("mark", "in-time")["state"] == "successful"
    assert not {"by-ttl", "by-expiry"} & set(ready.marks())


@meets("R40")
def test_what_runs_over_its_time_has_timed_out(ready: Scene) -> None:
    assert ready.done("mark", "over", {"name": "over", "wait": True}, ttl_s=2.0)["state"] == "timed_out"


@meets("R41")
def test_an_expiry_in_the_past_counts_while_the_clock_is_synchronized(ready: Scene) -> None:
    end = ready.done("mark", "past", {"name": "past"}, expires_at=1.0)
    synchronized = ready.wait("t/main")["clk"] == "synced"
    assert end["state"] == ("expired" if synchronized else "successful")
    assert ("past" in ready.marks()) == (not synchronized)


REFUSED = {
    "ttl": ("mark", {"args": {"name": "x"}, "ttl_s": 22 * DAY_S}, "ttl_s"),
    "unknown-command": ("no.such", {"args": {}}, "unknown command"),
    "not-allowed": ("rung", {"args": {"ladder": "a", "rung": "b"}}, "uplink.commands.allow"),
    "unknown-argument": ("mark", {"args": {"name": "x", "more": 1}}, "more"),
    "missing-argument": ("mark", {"args": {}}, "name"),
    "not-json": ("mark", b"\xff\xfe{", "request"),
    "version": ("mark", {"args": {"name": "x"}, "expect_version": 77}, "expect_version"),
    "schema": ("mark", {"schema": 2, "args": {"name": "x"}}, "schema"),
}


@meets("R42", "R43", "R44")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_rejected_with_the_reason(ready: Scene, name: str) -> None:
    kind, payload, reason = REFUSED[name]
    assert isinstance(payload, bytes | dict)
    ready.send(f"cmd/{kind}/{name}/req", payload, expiry_s=600)
    end = ready.end_of(kind, name)
    assert end["state"] == "rejected"
    assert reason in end["reason"]
    assert ready.states(kind, name) == ["rejected"]


@meets("R45")
def test_a_retained_order_is_not_carried_out(ready: Scene) -> None:
    since = ready.now()
    ready.send("cmd/mark/kept/req", {"args": {"name": "kept"}}, retain=True)
    ready.wait("e/command_ignored", lambda d: "retained" in d["message"], since)
    ready.restart()
    ready.done("mark", "after-kept", {"name": "after-kept"})
    assert "kept" not in ready.marks()
    ready.send("cmd/mark/kept/req", b"", retain=True)


@meets("R46")
def test_a_deflated_order_is_read(ready: Scene) -> None:
    ready.send("cmd/mark/z/req", zlib.compress(b'{"args": {"name": "z"}}'), expiry_s=600, deflated=True)
    assert ready.end_of("mark", "z")["state"] == "successful"


@meets("R47")
def test_orders_for_all_and_for_a_group_are_carried_out_once(ready: Scene) -> None:
    desired(ready, 10, {"groups": ["press"]})
    for level in ("_all", "_g.press", DEVICE):
        ready.fleet.send(f"{level}/cmd/mark/g1/req", {"args": {"name": "g1"}}, expiry_s=600)
    ready.fleet.send("_g.other/cmd/mark/g2/req", {"args": {"name": "g2"}}, expiry_s=600)
    assert ready.end_of("mark", "g1")["state"] == "successful"
    ready.done("mark", "g3", {"name": "g3"})
    assert (ready.marks().count("g1"), ready.marks().count("g2")) == (1, 0)


@meets("R48")
@pytest.mark.parametrize(
    "key", ["paths.state", "uplink.password_file", "serving.http", "engine.backends", "uplink.commands.allow"]
)
def test_the_fleet_cannot_set_what_is_the_machines_own(ready: Scene, key: str) -> None:
    end = ready.done("config", f"own-{key.replace('.', '-')}", {"action": "apply", "set": {key: "x"}})
    assert end["state"] == "failed"
    assert key in end["reason"]


@meets("R49")
def test_settings_are_validated_applied_and_rolled_back(ready: Scene) -> None:
    change = {"governor.dwell_s": 3.25}
    assert ready.done("config", "c1", {"action": "validate", "set": change})["result"]["settings"] == {}
    wrong = ready.done("config", "c2", {"action": "apply", "set": {"governor.dwell_s": "long"}})
    assert (wrong["state"], "governor.dwell_s" in wrong["reason"]) == ("failed", True)
    applied = ready.done("config", "c3", {"action": "apply", "set": change})
    assert (applied["state"], applied["result"]["settings"]) == ("successful", change)
    assert "verifying" in ready.states("config", "c3")
    assert ready.done("config", "c4", {"action": "rollback"})["result"]["settings"] == {}


@meets("R50")
@pytest.mark.parametrize("url", ["http://models.example/a.tar", "https://evil.example/a.tar", "file:///etc/passwd"])
def test_ladders_come_from_listed_https_hosts_only(ready: Scene, url: str) -> None:
    args = {"url": url, "sha256": "0" * 64, "ladder": "a", "version": "1"}
    end = ready.done("ladder.install", f"i-{abs(hash(url))}", args)
    assert end["state"] in ("failed", "rejected")
    assert "url" in end["reason"] or "install_hosts" in end["reason"] or "https" in end["reason"]


# ------------------------------------------------------------------------------------------------------------ twin


def desired(ready: Scene, version: int, doc: object) -> object:
    """Sent, and the first report of it."""
    since = ready.now()
    ready.send("twin/desired", {"version": version, "doc": doc}, retain=True)
    return ready.wait("twin/reported", lambda d: version in (d["desired_version"], d["refused_version"]), since)


@meets("R60", "R61")
def test_a_desired_document_is_applied_whole_and_an_older_one_is_not(ready: Scene) -> None:
    doc = {"groups": ["hall2"], "tags": {"site": "oslo"}, "config": {"governor.dwell_s": 4.5}}
    report = desired(ready, 20, doc)
    assert isinstance(report, dict)
    assert (report["desired_version"], report["doc"], report["errors"]) == (20, doc, [])
    report = desired(ready, 19, {"groups": []})
    assert isinstance(report, dict)
    assert (report["desired_version"], report["doc"]) == (20, doc)
    assert "older" in report["errors"][0]["message"]


@meets("R62")
def test_a_bad_document_changes_nothing_and_its_keys_are_named(ready: Scene) -> None:
    held = desired(ready, 30, {"tags": {"a": "b"}})
    bad = desired(ready, 31, {"tags": {"x": 5}, "config": {"paths.state": "/tmp"}, "more": 1})
    assert isinstance(held, dict)
    assert isinstance(bad, dict)
    assert (bad["desired_version"], bad["doc"]) == (30, held["doc"])
    assert {e["key"] for e in bad["errors"]} >= {"tags.x", "more"}


@meets("R63")
def test_one_message_cannot_use_up_the_versions_and_an_operator_resets_them(ready: Scene) -> None:
    desired(ready, 40, {})
    since = ready.now()
    ready.send("twin/desired", {"version": 2**63, "doc": {}}, retain=True)
    refused = ready.wait("twin/reported", lambda d: bool(d["errors"]), since)
    assert (refused["desired_version"], refused["errors"][0]["key"]) == (40, "version")
    command = [sys.executable, "-m", "flyball", "uplink", "reset-twin"]
    config = str(ready.state.parent / "daemon.toml")
    done = subprocess.run([*command, "--config", config], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    report = desired(ready, 1, {"tags": {"again": "yes"}})
    assert isinstance(report, dict)
    assert (report["desired_version"], report["doc"]["tags"]) == (1, {"again": "yes"})


@meets("R64")
def test_reports_are_retained_and_counted(ready: Scene) -> None:
    with Fleet(ready.broker.port, ROOT) as late:
        first = late.wait(f"{DEVICE}/twin/reported")
        assert all(h.retain for h in late.heard if h.suffix == f"{DEVICE}/twin/reported")
    since = ready.now()
    ready.restart()
    assert ready.wait("twin/reported", since=since)["version"] > first["version"]
