"""kill -9 at every moment of a command's life: it has its effect once, or the fleet hears that it failed."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_side import Fleet

from real_broker import Mosquitto

FINAL = ("successful", "failed")
COLLECT_S = 1.0


class Victim:
    def __init__(self, port: int, folder: Path) -> None:
        self.marks_file = folder / "marks"
        self.state_dir = folder / "state"
        self._command = [sys.executable, str(Path(__file__).parent / "marking_device.py")]
        self._command += [str(port), str(self.state_dir), str(self.marks_file)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, fleet: Fleet, *pace: str) -> None:
        since = len(fleet.heard)
        self._process = subprocess.Popen([*self._command, *pace])
        fleet.wait("status", lambda d: d["state"] == "ready", since=since)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def marks(self) -> list[str]:
        return self.marks_file.read_text().split() if self.marks_file.exists() else []


@pytest.fixture
def victim(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Victim]:
    victim = Victim(mosquitto.port, tmp_path)
    yield victim
    victim.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_between_receipt_and_commit_it_is_sent_again(mosquitto: Mosquitto, victim: Victim) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(fleet)
        holder = sqlite3.connect(victim.state_dir / "state.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")  # the commit now waits
        fleet.order("mark", "m1", {"name": "one"})
        wait_for(lambda: "Sending PUBLISH to edge-1 (d0, q1" in mosquitto.log_text())
        time.sleep(0.2)  # it has been received, and stands before the lock
        victim.kill()
        holder.execute("ROLLBACK")
        assert holder.execute("SELECT count(*) FROM command").fetchone() == (0,)
        holder.close()
        assert "Received PUBACK from edge-1" not in mosquitto.log_text()
        assert victim.marks() == []
        victim.start(fleet)
        fleet.wait("cmd/mark/m1/st", lambda d: d["state"] == "successful")
        wait_for(lambda: "Received PUBACK from edge-1" in mosquitto.log_text())
        assert "Sending PUBLISH to edge-1 (d1" in mosquitto.log_text()
        assert victim.marks() == ["one"]


def test_killed_while_executing_it_has_failed_and_is_not_run_again(mosquitto: Mosquitto, victim: Victim) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(fleet)
        fleet.order("mark", "m1", {"name": "one", "wait": True})
        fleet.order("mark", "m2", {"name": "two"})
        fleet.wait("cmd/mark/m2/st", lambda d: d["state"] == "received")
        wait_for(lambda: victim.marks() == ["one"])
        victim.kill()
        victim.start(fleet)
        failed = fleet.wait("cmd/mark/m1/st", lambda d: d["state"] == "failed")
        assert failed["reason"].startswith("interrupted")
        fleet.wait("cmd/mark/m2/st", lambda d: d["state"] == "successful")
        since = len(fleet.heard)
        fleet.order("mark", "m1", {"wait": True, "name": "one"})
        assert fleet.wait("cmd/mark/m1/st", since=since)["state"] == "failed"
        assert victim.marks() == ["one", "two"]


@pytest.mark.parametrize("delay_s", [0.0, 0.003, 0.01, 0.03])
def test_killed_at_any_moment_every_order_ends_and_none_runs_twice(
    mosquitto: Mosquitto, victim: Victim, delay_s: float
) -> None:
    orders = [f"m{n}" for n in range(6)]
    with Fleet(mosquitto.port) as fleet:
        victim.start(fleet)
        for id in orders:
            fleet.order("mark", id, {"name": id})
        time.sleep(delay_s)
        victim.kill()
        victim.start(fleet)
        ends = {id: fleet.wait(f"cmd/mark/{id}/st", lambda d: d["state"] in FINAL) for id in orders}
    marks = victim.marks()
    assert len(marks) == len(set(marks))
    for id, end in ends.items():
        assert (end["state"] == "successful" and id in marks) or end["reason"].startswith("interrupted")


def numbers_in(fleet: Fleet) -> list[int]:
    return [b["first_seq"] + i for b in fleet.all("t/main") for i in range(b["count"])]


def contradictions(fleet: Fleet) -> set[int]:
    """Numbers that came twice, and not with the same record."""
    monos: dict[int, set[float]] = {}
    for batch in fleet.all("t/main"):
        for i, mono in enumerate(batch["columns"]["mono"]):
            monos.setdefault(batch["first_seq"] + i, set()).add(mono)
    return {number for number, seen in monos.items() if len(seen) > 1}


def lost_in(fleet: Fleet, stream: str = "main") -> set[int]:
    ranges = [r for d in fleet.all("gap") if d["stream"] == stream for r in d["ranges"]]
    return {n for first, last in ranges for n in range(first, last + 1)}


def test_a_kill_loses_nothing_sealed_and_gives_no_number_out_twice(mosquitto: Mosquitto, victim: Victim) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(fleet, "0.1", "5")
        fleet.wait("t/main", lambda d: d["first_seq"] + d["count"] >= 15)
        victim.kill()
        delivered = set(numbers_in(fleet))
        events = {h.doc["seq"]: h.doc["stamp"] for h in list(fleet.heard) if h.suffix.startswith("e/")}
        since = len(fleet.heard)
        victim.start(fleet, "0.1", "5")
        fleet.wait("t/main", lambda d: d["first_seq"] > max(delivered) + 5, since=since)
        wait_for(lambda: set(numbers_in(fleet)) == set(range(max(numbers_in(fleet)) + 1)))  # what is new overtakes
        told = [(h.doc["seq"], h.doc["stamp"]) for h in list(fleet.heard) if h.suffix.startswith("e/")]
    assert delivered >= set(range(15))
    assert contradictions(fleet) == set()
    assert all(events.get(seq, stamp) == stamp for seq, stamp in told)
    assert set(numbers_in(fleet)) == set(range(max(numbers_in(fleet)) + 1))
    assert fleet.all("gap") == []


def test_what_was_acknowledged_and_written_down_does_not_come_again(mosquitto: Mosquitto, victim: Victim) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(fleet, "0.1", "600", str(COLLECT_S))
        fleet.send("sig/sync", expiry_s=60)
        fleet.wait("t/main")
        time.sleep(COLLECT_S + 1.0)
        victim.kill()
        before = numbers_in(fleet)
        since = len(fleet.heard)
        victim.start(fleet, "0.1", "5", str(COLLECT_S))
        assert fleet.wait("t/main", since=since)["first_seq"] == max(before) + 1
        assert fleet.all("gap") == []


def test_what_was_sealed_in_a_blackout_comes_after_a_kill(mosquitto: Mosquitto, victim: Victim) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(fleet, "0.1", "5")
        fleet.wait("t/main", lambda d: d["first_seq"] >= 5)
        mosquitto.stop()
        time.sleep(2.5)  # some batches that nobody takes
        victim.kill()
        delivered = set(numbers_in(fleet))
        mosquitto.start()
        since = len(fleet.heard)
        victim.start(fleet, "0.1", "5")
        fleet.wait("t/main", lambda d: d["first_seq"] > max(delivered) + 15 and not d["hist"], since=since)
        wait_for(lambda: set(numbers_in(fleet)) == set(range(max(numbers_in(fleet)) + 1)))
    late = {b["first_seq"] for b in fleet.all("t/main") if b["hist"]}
    assert late - delivered
    assert contradictions(fleet) == set()
    assert fleet.all("gap") == []
