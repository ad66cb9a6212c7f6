"""kill -9 at every moment of a command's life: it has its effect once, or the fleet hears that it failed."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_side import Fleet

from flyball.uplink.ledger import SETTLE_S
from real_broker import Mosquitto

FINAL = ("successful", "failed")


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


def numbers_in(fleet: Fleet, suffix: str = "t/main") -> list[int]:
    return [b["first_seq"] + i for b in fleet.all(suffix) for i in range(b["count"])]


def lost_in(fleet: Fleet, stream: str = "main") -> set[int]:
    ranges = [r for d in fleet.all("gap") if d["stream"] == stream for r in d["ranges"]]
    return {n for first, last in ranges for n in range(first, last + 1)}


def test_what_was_delivered_before_a_kill_is_not_told_as_lost(mosquitto: Mosquitto, victim: Victim) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(fleet, "0.1", "5")
        fleet.wait("t/main", lambda d: d["first_seq"] >= 10)
        time.sleep(0.1)
        mosquitto_knows = len(numbers_in(fleet))
        assert mosquitto_knows >= 15
        victim.kill()
        delivered = set(numbers_in(fleet))
        events = {h.doc["seq"] for h in list(fleet.heard) if h.suffix.startswith("e/")}
        since = len(fleet.heard)
        victim.start(fleet, "0.1", "5")
        fleet.wait("t/main", lambda d: d["first_seq"] > max(delivered) + 5, since=since)
        numbers, told = numbers_in(fleet), [h.doc["seq"] for h in list(fleet.heard) if h.suffix.startswith("e/")]
    assert len(numbers) == len(set(numbers)), "a number was given out twice"
    assert len(told) == len(set(told))
    # What the kill cut off after its acknowledgement had come, and before that was written down, may be told: SETTLE_S.
    assert lost_in(fleet) <= set(sorted(delivered)[-10:])
    assert set(numbers) | lost_in(fleet) == set(range(max(numbers) + 1))
    assert lost_in(fleet, "events") <= events


def test_a_quiet_kill_leaves_no_gap_at_all(mosquitto: Mosquitto, victim: Victim) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(fleet, "0.1", "600")
        fleet.send("sig/sync", expiry_s=60)
        fleet.wait("t/main")
        time.sleep(SETTLE_S + 0.5)
        victim.kill()
        before = numbers_in(fleet)
        since = len(fleet.heard)
        victim.start(fleet, "0.1", "5")
        assert fleet.wait("t/main", since=since)["first_seq"] == max(before) + 1
        assert fleet.all("gap") == []


def test_what_was_handed_out_and_never_delivered_is_told_after_a_kill(mosquitto: Mosquitto, victim: Victim) -> None:
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
        fleet.wait("gap", lambda d: d["stream"] == "main", since=since)
        fleet.wait("t/main", lambda d: d["first_seq"] > max(delivered) + 15, since=since)
        numbers = numbers_in(fleet)
    assert len(lost_in(fleet) - delivered) >= 10
    assert len(lost_in(fleet)) < 60
    assert set(numbers) | lost_in(fleet) == set(range(max(numbers) + 1))
    assert len(numbers) == len(set(numbers))
