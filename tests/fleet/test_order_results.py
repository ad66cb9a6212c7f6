"""How much of the disk the orders of one device take, and that what was dropped is counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fleet_rig import run_cli, samples, status
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from flyball.clock import SystemClock
from flyball.errors import MessageError, StateError
from flyball.uplink.messages import CommandState
from flyball_fleet import intake, retention, schema, view
from flyball_fleet.counters import Counters
from flyball_fleet.limits import Limits
from flyball_fleet.metrics import Exporter
from flyball_fleet.store import Store
from flyball_fleet.writer import Writer

ROOT = "flyball/v1/default"


def state(result: object = None, rev: int = 1, **more: object) -> bytes:
    raw = msgspec.Raw(msgspec.json.encode(result))
    message = CommandState(state="successful", rev=rev, ts=1.0, epoch="e1", result=raw, **more)  # type: ignore[arg-type]
    return msgspec.json.encode(message)  # not deflated, however large


class Shelf:
    def __init__(self, path: Path, **limits: int) -> None:
        self.path = path
        self.db = schema.open_writer(path)
        self.limits = Limits(**limits)  # type: ignore[arg-type]
        self.store = Store(self.db, self.limits)
        self.now = SystemClock().wall_s()
        self.step_s = 1.0

    def take(self, id: str, payload: bytes, device: str = "d1", *, retain: bool = False) -> str:
        self.now += self.step_s
        arrival = intake.read(f"{ROOT}/{device}/cmd/logs/{id}/st", payload, retain=retain)
        return self.store.apply(arrival, payload, False, self.now).result

    def held(self, device: str = "d1") -> dict[str, int]:
        """Order -> bytes of its result; 4 are none."""
        query = "SELECT id, LENGTH(result) FROM command WHERE device = ? ORDER BY number"
        return dict(self.db.execute(query, (device,)).fetchall())

    def dropped(self, device: str = "d1") -> tuple[int, int]:
        """Orders, results."""
        query = "SELECT orders_dropped, results_dropped FROM device WHERE device = ?"
        found: tuple[int, int] = self.db.execute(query, (device,)).fetchone()
        return found


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path / "fleet.db", words_bytes=1000, commands=6)
    yield made
    made.db.close()


def test_the_oldest_results_go_and_their_orders_stay(shelf: Shelf) -> None:
    for number in range(5):
        shelf.take(f"c{number}", state("x" * 298))  # 300 bytes
    shelf.take("c5", state())
    assert shelf.held() == {"c0": 4, "c1": 4, "c2": 300, "c3": 300, "c4": 300, "c5": 4}
    assert shelf.dropped() == (0, 2)
    orders = {c["id"]: c for c in view.details([shelf.path], "d1")["commands"]}
    assert [orders[f"c{n}"]["result_dropped_b"] for n in range(6)] == [300, 300, 0, 0, 0, 0]
    assert {c["state"] for c in orders.values()} == {"successful"}
    assert (orders["c0"]["result"], orders["c4"]["result"]) == (None, "x" * 298)


def test_what_comes_again_brings_no_dropped_result_back(shelf: Shelf) -> None:
    """Retained states come at every connection; the count is of results, not of connections."""
    for number in range(5):
        shelf.take(f"c{number}", state("x" * 298))
    for number in range(5):
        assert shelf.take(f"c{number}", state("x" * 298)) == "duplicate"
    assert (shelf.held()["c0"], shelf.dropped()) == (4, (0, 2))
    assert shelf.take("c0", state("y" * 98, rev=2)) == "stored"  # it has more to say
    assert (shelf.held(), shelf.dropped()) == ({"c1": 4, "c2": 300, "c3": 300, "c4": 300, "c0": 100}, (0, 2))


def test_the_newest_result_is_kept_when_it_fills_the_share_alone(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "f.db", words_bytes=intake.MOST_RESULT)
    largest = "x" * (intake.MOST_RESULT - 2)
    shelf.take("c0", state("small"))
    shelf.take("c1", state(largest))
    assert shelf.held() == {"c0": 4, "c1": intake.MOST_RESULT}
    with pytest.raises(MessageError, match=r"result: 65537 bytes, expected at most 65536"):
        shelf.take("c2", state(largest + "x"))
    assert shelf.dropped() == (0, 1)
    shelf.db.close()


def test_orders_beyond_the_share_are_counted(shelf: Shelf) -> None:
    for number in range(20):
        shelf.take(f"c{number}", state())
    assert list(shelf.held()) == [f"c{n}" for n in range(14, 20)]
    assert shelf.dropped() == (14, 0)


@pytest.mark.parametrize("step_s", [-86400.0, 0.0])  # a clock that goes back; many states in one commit
def test_what_is_new_is_kept_whatever_the_clock_says(shelf: Shelf, step_s: float) -> None:
    shelf.step_s = step_s
    for number in range(6):
        shelf.take(f"c{number}", state("x" * 298))
    for id in ("z", "m", "a"):
        assert shelf.take(id, state("x" * 298)) == "stored"
        assert list(shelf.held())[-1] == id
    assert shelf.held() == {"c3": 4, "c4": 4, "c5": 4, "z": 300, "m": 300, "a": 300}
    shelf.take("c3", state("y" * 298, rev=2))
    assert shelf.held() == {"c4": 4, "c5": 4, "z": 4, "m": 300, "a": 300, "c3": 300}
    newest = [c["id"] for c in view.details([shelf.path], "d1")["commands"]]
    assert newest == ["c3", "a", "m", "z", "c5", "c4"]


def test_retained_orders_beyond_the_share_push_nothing_out_and_count_once(shelf: Shelf) -> None:
    """Every connection brings all of them, in any order."""
    ids = [f"c{number}" for number in range(15)]
    for id in ids:
        shelf.take(id, state("x", rev=1), retain=True)
    held = shelf.held()
    assert list(held) == ids[:6]
    for order in (ids, ids[::-1]):
        found = {id: shelf.take(id, state("x", rev=1), retain=True) for id in order}
        assert {id for id, result in found.items() if result == "duplicate"} == set(ids[:6])
        assert {id for id, result in found.items() if result == "outdated"} == set(ids[6:])
    assert shelf.held() == held
    assert shelf.dropped() == (9, 0)


def test_orders_that_gave_way_and_come_again_are_counted_once(shelf: Shelf) -> None:
    for number in range(9):
        shelf.take(f"c{number}", state())
    assert shelf.dropped() == (3, 0)
    for number in range(9):
        shelf.take(f"c{number}", state(), retain=True)
    assert (list(shelf.held()), shelf.dropped()) == ([f"c{n}" for n in range(3, 9)], (3, 0))
    assert shelf.take("c0", state(rev=2)) == "stored"  # live: it goes on, and another one gives way
    assert shelf.take("c4", state(rev=2), retain=True) == "stored"  # of an order that is known
    assert (list(shelf.held()), shelf.dropped()) == (["c5", "c6", "c7", "c8", "c0", "c4"], (4, 0))
    for number in range(6):
        shelf.take(f"n{number}", state())
    assert shelf.dropped() == (9, 0)  # of 15, c0 for the second time


def test_the_names_of_dropped_orders_are_bounded(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "f.db", commands=2, commands_dropped=5)
    for _ in range(3):
        for number in range(20):
            shelf.take(f"c{number}", state(), retain=True)
    assert shelf.dropped() == (5, 0)  # at least so many
    for number in range(20, 30):
        shelf.take(f"c{number}", state())
    assert shelf.dropped() == (15, 0)
    assert shelf.db.execute("SELECT COUNT(*) FROM order_dropped").fetchone() == (5,)
    shelf.db.close()


def test_reasons_and_steps_are_of_the_same_share_as_results(shelf: Shelf) -> None:
    for number in range(4):
        shelf.take(f"c{number}", state(None, reason="\u20ac" * 100, step="s" * 50))  # 350 bytes
    found = dict(shelf.db.execute("SELECT id, reason || step FROM command").fetchall())
    assert {id: len(text) for id, text in found.items()} == {"c0": 0, "c1": 0, "c2": 150, "c3": 150}
    orders = {c["id"]: c for c in view.details([shelf.path], "d1")["commands"]}
    assert [orders[f"c{n}"]["result_dropped_b"] for n in range(4)] == [350, 350, 0, 0]
    assert shelf.dropped() == (0, 2)


def test_a_device_that_fills_its_share_takes_nothing_from_another(shelf: Shelf) -> None:
    shelf.take("c1", state("mine" * 100), device="d2")
    for number in range(50):
        shelf.take(f"c{number}", state("x" * 900))
    assert shelf.held("d2") == {"c1": 402}
    assert shelf.dropped("d2") == (0, 0)
    assert shelf.dropped() == (44, 49)


def test_a_hostile_device_cannot_fill_the_disk_with_orders(tmp_path: Path) -> None:
    """As much as it may say, in every field, with the limits that ship."""
    shelf = Shelf(tmp_path / "f.db")
    words = {"reason": "\u20ac" * 4000, "step": "\u20ac" * 4000}
    worst, small = state("x" * (intake.MOST_RESULT - 2), **words), state("x" * 900, **words)
    shelf.db.execute("BEGIN")
    for number in range(1100):
        shelf.take(f"c{number}", small if number % 10 else worst)
    shelf.db.execute("COMMIT")
    shelf.db.execute("PRAGMA incremental_vacuum").fetchall()
    query = "SELECT SUM(LENGTH(CAST(step AS BLOB)) + LENGTH(CAST(reason AS BLOB)) + LENGTH(result)) FROM command"
    assert shelf.db.execute(query).fetchone()[0] <= shelf.limits.words_bytes + 4 * 1000
    assert len(shelf.held()) == 1000
    assert retention.used_bytes(shelf.db) < 2 << 20
    shelf.db.close()


def test_people_and_prometheus_see_what_was_dropped(shelf: Shelf) -> None:
    payload = status("ready", 1)
    shelf.store.apply(intake.read(f"{ROOT}/d1/status", payload), payload, False, shelf.now)
    for number in range(8):
        shelf.take(f"c{number}", state("x" * 298))
    found = run_cli("show", "d1", "--db", str(shelf.path))
    assert "no longer kept here: 2 of its orders, 5 results of orders" in found.stdout, found.stderr
    clock = SystemClock()
    registry = CollectorRegistry(auto_describe=False)
    writer = Writer(shelf.path, shelf.limits, clock, lambda _: None, lambda _: None)
    registry.register(Exporter(shelf.path, Counters(), writer, clock))
    page = generate_latest(registry).decode()
    assert samples(page, "flyball_fleet_device_orders_dropped") == {'{device="d1"}': 2.0}
    assert samples(page, "flyball_fleet_device_results_dropped") == {'{device="d1"}': 5.0}


def test_a_file_of_the_version_before_is_taken_over_with_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with sqlite3.connect(path) as db:
        db.executescript(f"PRAGMA auto_vacuum = INCREMENTAL; {schema._FIRST} PRAGMA user_version = 1;")
        db.execute(
            "INSERT INTO device (device, epoch, session, state, commands, first_at) VALUES ('d1', 'e1', 1, '', '', 1)"
        )
        db.execute("INSERT INTO command VALUES ('d1', 'c0', 'logs', 'e1', 'successful', 1, '', NULL, '', '\"old\"', 1)")
    db.close()
    with pytest.raises(StateError, match=r"found 1.*flyball fleet serve"), schema.reading(path):
        pass
    shelf = Shelf(path, commands=1)
    assert [c["result"] for c in view.details([path], "d1")["commands"]] == ["old"]
    shelf.take("c1", state("new"))
    assert (list(shelf.held()), shelf.dropped()) == (["c1"], (1, 0))
    shelf.db.close()
    Shelf(path).db.close()  # and once only


def test_a_file_of_version_2_is_taken_over_in_the_order_that_its_clock_gave(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with sqlite3.connect(path) as db:
        db.executescript(
            f"PRAGMA auto_vacuum = INCREMENTAL; {schema._FIRST} {schema._SINCE_2} PRAGMA user_version = 2;"
        )
        for device in ("d1", "d2"):
            db.execute(
                "INSERT INTO device (device, epoch, session, state, commands, first_at, orders_dropped)"
                " VALUES (?, 'e1', 1, '', '', 1, 590)",
                (device,),
            )
            for id, at, result in (("c0", 30.0, b'"newest"'), ("c1", 10.0, b"null"), ("c2", 20.0, b'"x"')):
                db.execute(
                    "INSERT INTO command VALUES (?, ?, 'logs', 'e1', 'failed', 1, 'st', NULL, '\u20ac', ?, ?, 0)",
                    (device, id, result, at),
                )
        for last, at in ((1, 5.0), (2, 4.0)):
            db.execute("INSERT INTO gap_reason VALUES ('d1', 'e1', 'main', 0, ?, 'why', ?)", (last, at))
    db.close()
    shelf = Shelf(path, commands=3)
    assert shelf.db.execute("SELECT device, id, number, words_b FROM command ORDER BY device, number").fetchall() == [
        (device, *row) for device in ("d1", "d2") for row in (("c1", 1, 5), ("c2", 2, 8), ("c0", 3, 13))
    ]
    assert shelf.db.execute("SELECT last FROM gap_reason ORDER BY number").fetchall() == [(2,), (1,)]
    assert shelf.dropped() == (0, 0)  # it had counted deliveries
    shelf.take("c3", state("new"))
    assert (list(shelf.held()), shelf.dropped()) == (["c2", "c0", "c3"], (1, 0))
    shelf.db.close()
