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


class Victim:
    def __init__(self, port: int, folder: Path) -> None:
        self.marks_file = folder / "marks"
        self.state_dir = folder / "state"
        self._command = [sys.executable, str(Path(__file__).parent / "marking_device.py")]
        self._command += [str(port), str(self.state_dir), str(self.marks_file)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, fleet: Fleet) -> None:
        since = len(fleet.heard)
        self._process = subprocess.Popen(self._command)
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
        wait_for(lambda: "Sending PUBLISH to edge-1 (d0" in mosquitto.log_text())
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
