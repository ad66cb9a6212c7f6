"""What is kept, once, and what is refused: intake, store, retention and the ledger over them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_rig import birth, document, event, gap, status, telemetry
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import MessageError, StateError
from flyball.uplink.messages import CommandState, encode
from flyball_fleet import intake, ledger, retention, schema, view
from flyball_fleet.limits import Limits
from flyball_fleet.store import Outcome, Store

ROOT = "flyball/v1/default"
NOW = 1_000_000.0


class Shelf:
    """A store with a clock of its own."""

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.path = path
        self.db = schema.open_writer(path)
        self.limits = limits or Limits()
        self.store = Store(self.db, self.limits)
        self.now = NOW

    def take(self, device: str, suffix: str, payload: bytes, *, retain: bool = False) -> Outcome:
        arrival = intake.read(f"{ROOT}/{device}/{suffix}", payload, retain=retain)
        return self.store.apply(arrival, payload, False, self.now)

    def row(self, device: str = "d1") -> view.Row:
        return {r.device: r for r in view.devices([self.path], self.now)}[device]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path / "fleet.db")
    yield made
    made.db.close()


def test_a_redelivered_batch_counts_once(shelf: Shelf) -> None:
    assert shelf.take("d1", "t/main", telemetry(0, 10)).records == 10
    assert shelf.take("d1", "t/main", telemetry(0, 10)) == Outcome("duplicate", "d1", lacks_birth=True)
    assert shelf.take("d1", "e/decision", event(0)).records == 1
    assert shelf.take("d1", "e/decision", event(0)).result == "duplicate"
    assert [(x.stream, x.received, x.adds_up) for x in ledger.balance(view.spans([shelf.path]))] == [
        ("events", 1, True),
        ("main", 10, True),
    ]


def test_a_batch_that_was_divided_before_it_came_again_loses_nothing(shelf: Shelf) -> None:
    shelf.take("d1", "t/main", telemetry(0, 5))
    shelf.take("d1", "t/main", telemetry(5, 5))
    shelf.take("d1", "t/main", telemetry(0, 10))
    assert view.spans([shelf.path])["d1", "e1", "main"] == ([(0, 9)], [])


def test_received_and_declared_add_up_and_a_hole_does_not(shelf: Shelf) -> None:
    shelf.take("d1", "t/main", telemetry(0, 10))
    shelf.take("d1", "t/main", telemetry(30, 10))
    (line,) = ledger.balance(view.spans([shelf.path]))
    assert (line.sent, line.received, line.missing, line.ranges) == (40, 20, 20, ((10, 29),))
    shelf.take("d1", "gap", gap([(8, 24)]))  # wider than what is lost: 8 and 9 came all the same
    (line,) = ledger.balance(view.spans([shelf.path]))
    assert (line.gaps, line.missing, line.ranges, line.adds_up) == (15, 5, ((25, 29),), False)
    shelf.take("d1", "gap", gap([(25, 29)]))
    (line,) = ledger.balance(view.spans([shelf.path]))
    assert (line.received + line.gaps, line.sent, line.adds_up) == (40, 40, True)


def test_what_the_devices_say_they_sent_shows_a_missing_tail_and_a_surplus(shelf: Shelf) -> None:
    shelf.take("d1", "t/main", telemetry(0, 10))
    found = {sent: ledger.balance(view.spans([shelf.path]), {"d1": {"e1": {"main": sent}}})[0] for sent in (10, 12, 9)}
    assert found[10].adds_up
    assert (found[12].missing, found[12].ranges) == (2, ((10, 11),))
    assert (found[9].surplus, found[9].adds_up) == (1, False)
    (silent,) = ledger.balance({}, {"d2": {"e": {"main": 3}}})
    assert (silent.missing, silent.received) == (3, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 8)), min_size=1, max_size=25))
def test_in_any_order_the_ledger_is_the_union_of_what_came(pieces: list[tuple[bool, int, int]]) -> None:
    came: set[int] = set()
    declared: set[int] = set()
    db = sqlite3.connect(":memory:", isolation_level=None)
    for statement in filter(str.strip, schema.TABLES.split(";")):
        db.execute(statement)
    store = Store(db, Limits())
    for is_gap, first, number in pieces:
        suffix, payload = (
            ("gap", gap([(first, first + number - 1)])) if is_gap else ("t/main", telemetry(first, number))
        )
        store.apply(intake.read(f"{ROOT}/d1/{suffix}", payload), payload, False, NOW)
        (declared if is_gap else came).update(range(first, first + number))
    spans = {
        kind: [tuple(r) for r in db.execute("SELECT first, last FROM span WHERE kind = ? ORDER BY first", (kind,))]
        for kind in ("received", "gap")
    }
    (line,) = ledger.balance({("d1", "e1", "main"): (spans["received"], spans["gap"])})
    highest = max(came | declared)
    assert line.received == len(came)
    assert line.gaps == len(declared - came)
    assert line.missing == len(set(range(highest + 1)) - came - declared)


def test_a_will_that_is_older_than_the_birth_is_ignored(shelf: Shelf) -> None:
    shelf.take("d1", "status", status("init", 4))
    shelf.take("d1", "birth", birth(4))
    shelf.take("d1", "status", status("ready", 4))
    assert shelf.take("d1", "status", status("lost", 3)).result == "outdated"
    assert shelf.row().state == "ready"
    assert shelf.take("d1", "status", status("lost", 4)).result == "stored"
    assert shelf.row().state == "lost"


def test_a_new_epoch_supersedes_and_the_old_ones_will_is_ignored(shelf: Shelf) -> None:
    shelf.take("d1", "birth", birth(70))
    shelf.take("d1", "status", status("ready", 70))
    shelf.take(
        "d1", "a/hot", document(epoch="e1", stamp={"ts": 1, "mono": 1, "boot": "", "clk": "synced"}, message="x")
    )
    assert shelf.take("d1", "status", status("init", 1, "e2")).result == "stored"
    shelf.take("d1", "birth", birth(1, "e2"))
    assert shelf.take("d1", "status", status("lost", 70)).result == "outdated"
    row = shelf.row()
    assert (row.epoch, row.session, row.state, row.alarms) == ("e2", 1, "init", {})


def test_a_birth_is_asked_for_where_it_is_lacking(shelf: Shelf) -> None:
    assert shelf.take("d1", "t/main", telemetry(0, 2)).lacks_birth
    assert shelf.take("d1", "status", status("ready", 1)).lacks_birth
    shelf.take("d1", "birth", birth(1))
    assert not shelf.take("d1", "status", status("ready", 1)).lacks_birth
    assert not shelf.take("d1", "t/main", telemetry(2, 2)).lacks_birth
    assert shelf.take("d1", "status", status("ready", 2)).lacks_birth  # another session, another birth
    assert shelf.take("d1", "birth", birth(2)).result == "stored"
    assert shelf.take("d1", "birth", birth(2)).result == "duplicate"
    assert shelf.take("d1", "birth", birth(2, desc_version=2)).result == "stored"


def test_what_is_retained_is_no_sign_of_life(shelf: Shelf) -> None:
    shelf.take("d1", "status", status("ready", 1), retain=True)
    assert shelf.row().state == "stale"
    shelf.take("d1", "t/main", telemetry(0, 2))
    assert shelf.row().state == "ready"
    assert shelf.row().record == {"power_w": 4.0}
    shelf.now += 181
    assert (shelf.row().state, shelf.row().record) == ("stale", {})


def test_an_older_batch_does_not_replace_the_last_record(shelf: Shelf) -> None:
    shelf.take("d1", "t/main", telemetry(100, 1, power_w=[7.0]))
    shelf.take("d1", "t/main", telemetry(0, 1, power_w=[1.0]))
    shelf.take("d1", "status", status("ready", 1))
    assert shelf.row().record == {"power_w": 7.0}


def test_a_command_state_of_a_lower_rev_changes_nothing(shelf: Shelf) -> None:
    def state(name: str, rev: int) -> bytes:
        return encode(CommandState(state=name, rev=rev, ts=1.0, epoch="e1")).payload

    shelf.take("d1", "cmd/ping/c1/st", state("successful", 4))
    assert shelf.take("d1", "cmd/ping/c1/st", state("executing", 3)).result == "duplicate"
    assert view.details([shelf.path], "d1")["commands"][0]["state"] == "successful"


@pytest.mark.parametrize(
    ("suffix", "payload", "why"),
    [
        ("status", b"\xff\xfe", "UTF-8|utf-8|malformed|JSON"),
        ("status", b'{"state": "dancing", "session": 1, "epoch": "e", "ts": 1}', "state"),
        ("status", document(state="ready", session=-1, epoch="e", ts=1), "session"),
        ("status", document(state="ready", session=2**63, epoch="e", ts=1), "session"),
        ("status", document(state="ready", session=1, epoch="", ts=1), "epoch"),
        ("status", document(state="ready", session=1, epoch="x" * 65, ts=1), "epoch"),
        ("t/main", document(epoch="e", first_seq=0, count=3, boot="", clk="synced", columns={"a": [1]}), "cells"),
        ("t/main", document(epoch="e", first_seq=0, count=10**9, boot="", clk="synced", columns={}), "count"),
        ("t/main", document(epoch="e", first_seq=2**62, count=1, boot="", clk="synced", columns={}), "first_seq"),
        ("e/x", b"[" * 100_000, "deep|malformed|Expected|nested"),
        ("gap", document(epoch="e", stream="main", ranges=[[5, 1]], reason="", ts=1), "before it begins"),
        ("gap", document(epoch="e", stream="main", ranges=[[0, 2**60]], reason="", ts=1), "ranges"),
        ("gap", document(epoch="e", stream="main", ranges=[[i, i] for i in range(300)], reason="", ts=1), "at most"),
        ("gap", document(epoch="e", stream="", ranges=[[0, 1]], reason="", ts=1), "stream"),
        ("birth", b"{}", "session|required"),
        ("nonsense", b"{}", "no suffix"),
        ("t/main", b"x" * 200_000, "at most"),
        ("t/main/more", b"{}", "no suffix"),
    ],
)
def test_what_a_device_must_not_send_is_refused_with_the_reason(
    shelf: Shelf, suffix: str, payload: bytes, why: str
) -> None:
    with pytest.raises(MessageError, match=why):
        shelf.take("d1", suffix, payload)


def test_one_device_fills_only_its_share(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "f.db", Limits(devices=3, streams=2, epochs=4, spans=5, alarms=2, commands=3, rejected=10))
    shelf.take("d1", "t/a", telemetry(0, 1))
    shelf.take("d1", "t/b", telemetry(0, 1))
    with pytest.raises(MessageError, match="more than 2 streams"):
        shelf.take("d1", "t/c", telemetry(0, 1))
    for i in range(1, 5):
        shelf.take("d1", "t/a", telemetry(i * 10, 1))
    with pytest.raises(MessageError, match="more than 5 ranges"):
        shelf.take("d1", "t/a", telemetry(900, 1))
    shelf.take("d1", "t/a", telemetry(41, 1))  # one that touches still goes
    alarm = document(epoch="e1", stamp={"ts": 1, "mono": 1, "boot": "", "clk": "synced"}, message="x")
    shelf.take("d1", "a/one", alarm)
    shelf.take("d1", "a/two", alarm)
    with pytest.raises(MessageError, match="more than 2 alarms"):
        shelf.take("d1", "a/three", alarm)
    shelf.take("d1", "a/one", b"")
    shelf.take("d1", "a/three", alarm)
    for i in range(9):
        shelf.now += 1
        state = encode(CommandState(state="successful", rev=1, ts=1.0, epoch="e1")).payload
        shelf.take("d1", f"cmd/ping/c{i}/st", state)
    assert [c["id"] for c in view.details([shelf.path], "d1")["commands"]] == ["c8", "c7", "c6"]
    for i in range(9):
        shelf.now += 1
        shelf.take("d1", "status", status("ready", 1, f"epoch{i}"))
    assert len(view.details([shelf.path], "d1")["epochs"]) == 4
    shelf.take("d2", "status", status("ready", 1))
    shelf.take("d3", "status", status("ready", 1))
    with pytest.raises(MessageError, match="more than 3 devices"):
        shelf.take("d4", "status", status("ready", 1))
    for i in range(30):
        shelf.store.reject(f"topic {i}", "because", 1, NOW + i)
    assert [r["topic"] for r in view.rejected([shelf.path], 100)] == [f"topic {i}" for i in range(29, 19, -1)]


def test_old_records_go_and_the_ledger_stays(shelf: Shelf) -> None:
    for i in range(10):
        shelf.now = NOW + i * 86400
        shelf.take("d1", "t/main", telemetry(i * 10, 10))
        shelf.take("d1", "e/decision", event(i))
    limits = Limits(keep_days=5)
    assert retention.prune(shelf.db, limits, shelf.now, synchronized=False) == 0  # a clock that may be wrong
    assert retention.prune(shelf.db, limits, shelf.now, synchronized=True) == 8
    assert shelf.db.execute("SELECT COUNT(*), MIN(first_seq) FROM batch").fetchone() == (6, 40)
    assert all(line.adds_up for line in ledger.balance(view.spans([shelf.path])))
    assert {x.stream: x.received for x in ledger.balance(view.spans([shelf.path]))} == {"main": 100, "events": 10}


def test_the_file_stays_below_its_bound(shelf: Shelf) -> None:
    noise = [f"{i:032x}" for i in range(30)]
    for i in range(400):
        shelf.now += 1
        shelf.take("d1", "t/main", telemetry(i * 30, 30, note=noise))
    bound = Limits(keep_bytes=200_000)
    before = retention.used_bytes(shelf.db)
    assert before > bound.keep_bytes
    while retention.prune(shelf.db, bound, shelf.now, synchronized=True):
        pass
    assert retention.used_bytes(shelf.db) <= bound.keep_bytes


def test_several_files_are_one_ledger(tmp_path: Path) -> None:
    one, two = Shelf(tmp_path / "a.db"), Shelf(tmp_path / "b.db")
    one.take("d1", "t/main", telemetry(0, 10))
    two.take("d1", "t/main", telemetry(10, 10))
    one.take("d1", "t/main", telemetry(20, 10))
    two.take("d1", "t/main", telemetry(20, 10))  # redelivered to the other one
    paths = [one.path, two.path]
    (line,) = ledger.balance(view.spans(paths))
    assert (line.received, line.missing) == (30, 0)
    assert not ledger.balance(view.spans([two.path]))[0].adds_up


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="99"):
        schema.open_writer(path)
    with pytest.raises(StateError, match="99"), schema.reading(path):
        pass
    (tmp_path / "text").write_text("this is no database, but a text of some length")
    with pytest.raises(StateError, match="text"):
        schema.open_writer(tmp_path / "text")
    with pytest.raises(StateError, match="not there"), schema.reading(tmp_path / "nothing"):
        pass
