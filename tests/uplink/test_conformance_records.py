"""Conformance: telemetry, events, gaps. The requirements stand in docs/protocol/conformance.md."""

import re
import time
from collections.abc import Iterator

import pytest
from conformance import COLLECT_S, DEVICE, Scene, meets, scene
from fleet_side import Heard
from received import Ledger


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("records")) as found:
        found.wait("t/main")
        yield found


def ledger(ready: Scene) -> Ledger:
    """Of all that the device has said, with the device's name taken away."""
    fields = ("payload", "retain", "qos", "expiry_s", "deflated")
    return Ledger.of(
        Heard(suffix=h.suffix.removeprefix(f"{DEVICE}/"), **{name: getattr(h, name) for name in fields})
        for h in ready.heard()
    )


@meets("R70")
def test_a_batch_is_a_table_with_its_header(ready: Scene) -> None:
    batch = ready.wait("t/main")
    assert batch["epoch"]
    assert re.fullmatch(r"[0-9a-f-]{36}", batch["boot"])
    assert batch["clk"] in ("synced", "unsynced")
    assert batch["hist"] is False
    assert {len(cells) for cells in batch["columns"].values()} == {batch["count"]}
    assert {"ts", "mono"} <= set(batch["columns"])
    assert list(batch["columns"]["mono"]) == sorted(batch["columns"]["mono"])


@meets("R71")
def test_what_was_not_measured_is_no_zero(ready: Scene) -> None:
    for batch in ready.all("t/main"):
        assert 0 not in batch["columns"].get("power_w", ())
        assert 0 not in batch["columns"].get("temperature_c", ())
        assert batch["columns"]["memory_available_b"][0] > 0
        assert not any("/" in name for name in batch["columns"])  # there is no ladder


@meets("R72")
def test_an_event_has_a_number_a_stamp_and_a_severity(ready: Scene) -> None:
    ready.wait("e/uplink_up")
    for event in (h.doc for h in ready.heard("e/")):
        assert event["severity"] in ("info", "warning", "error")
        assert event["seq"] >= 0
        assert set(event["stamp"]) == {"ts", "mono", "boot", "clk"}
        assert event["message"]


@meets("R73")
def test_sync_sends_what_waits(ready: Scene) -> None:
    since = ready.now()
    top = max(b["first_seq"] + b["count"] for b in ready.all("t/main"))
    ready.send("sig/sync", expiry_s=60)
    ready.wait("t/main", lambda d: d["first_seq"] >= top, since)


@meets("R74", "R75")
def test_what_was_measured_while_the_broker_was_away_comes_late_and_marked(ready: Scene) -> None:
    since, top = ready.now(), max(b["first_seq"] + b["count"] for b in ready.all("t/main"))
    ready.broker.stop()
    time.sleep(COLLECT_S + 2)  # what has collected until now is written down, and more
    ready.broker.start()
    ready.wait("t/main", lambda d: d["hist"] and d["first_seq"] >= top, since, timeout_s=40)
    ready.wait("t/main", lambda d: not d["hist"] and d["first_seq"] >= top + 40, since, timeout_s=40)
    ready.until(lambda: ledger(ready).adds_up(), 30)
    assert ready.all("gap") == []


@meets("R76")
def test_a_kill_gives_no_number_out_twice(ready: Scene) -> None:
    for _ in range(3):
        since = ready.now()
        ready.wait("t/main", since=since)
        ready.restart()
    ready.until(lambda: ledger(ready).received() > 100, 30)
    ready.until(lambda: ledger(ready).adds_up(), 30)
    found = ledger(ready)
    assert found.streams() == 2  # telemetry and events, of one epoch
    assert found.received() > 100


@meets("R77")
def test_numbers_that_will_not_come_are_told_as_a_gap(ready: Scene) -> None:
    since = ready.now()
    ready.kill()
    for file in ready.state.glob("spool.db*"):
        file.unlink()
    ready.start()
    gap = ready.wait("gap", lambda d: d["stream"] == "main", since)
    assert gap["reason"] == "lost with the spool, or with an earlier one"
    assert all(first <= last for first, last in gap["ranges"])
    ready.wait("t/main", since=since)
    ready.until(lambda: ledger(ready).adds_up(), 30)


@meets("R78")
def test_a_damaged_spool_is_kept_and_told(ready: Scene) -> None:
    since = ready.now()
    ready.kill()
    damaged = b"this is no database" * 300
    for log in ready.state.glob("spool.db-*"):
        log.unlink()  # else SQLite mends the file with it
    (ready.state / "spool.db").write_bytes(damaged)
    ready.start()
    assert ready.wait("a/spool_replaced", since=since)["message"]
    kept = [f for f in ready.state.glob("spool.db.corrupt-*") if not f.name.endswith(("-wal", "-shm"))]
    assert [f.read_bytes() for f in kept] == [damaged]
    ready.wait("gap", lambda d: d["stream"] == "main", since)
    ready.until(lambda: ledger(ready).adds_up(), 30)
