"""kill -9 at every transition of a command and at every commit, and at 40 random moments: one effect, one end."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fleet_side import Fleet

from flyball.uplink import configuring, twin
from flyball.uplink.state import peek
from real_broker import Mosquitto

FINAL = ("successful", "failed")
RANDOM_KILLS = 40
SEED = 20_261_121


class Victim:
    def __init__(self, port: int, folder: Path) -> None:
        self.state_dir = folder / "state"
        self.marks_file = folder / "marks"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, point: str = "") -> None:
        device = str(Path(__file__).parent / "killing_device.py")
        arguments = [str(self._port), str(self.state_dir), str(self.marks_file), *([point] if point else [])]
        self._process = subprocess.Popen([sys.executable, device, *arguments])

    def died(self) -> None:
        """Of itself, at its point."""
        assert self._process is not None
        assert self._process.wait(15) == -9

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def marks(self) -> Counter[str]:
        return Counter(self.marks_file.read_text().split() if self.marks_file.exists() else [])

    def settings(self) -> dict[str, Any]:
        kept = self._document(configuring.DOCUMENT)
        assert kept.get("trial") is None
        found = kept.get("settings", {})
        assert isinstance(found, dict)
        return found

    def twin_version(self) -> int:
        return int(self._document(twin.DOCUMENT).get("version", 0))

    def _document(self, name: str) -> dict[str, Any]:
        body = peek(self.state_dir, name)
        return msgspec.json.decode(body, type=dict[str, Any]) if body else {}


@pytest.fixture
def victim(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Victim]:
    victim = Victim(mosquitto.port, tmp_path)
    yield victim
    victim.kill()


def ready(fleet: Fleet, since: int = 0) -> None:
    fleet.wait("status", lambda d: d["state"] == "ready", 20, since)


def end_of(fleet: Fleet, kind: str, id: str, since: int = 0) -> Any:
    return fleet.wait(f"cmd/{kind}/{id}/st", lambda d: d["state"] in FINAL, 20, since)


STATES = ("received", "accepted", "executing", "successful", "told")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_mark_has_one_effect_wherever_the_daemon_dies(
    mosquitto: Mosquitto, victim: Victim, when: str, state: str
) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(f"{when}:{state}")
        ready(fleet)
        fleet.order("mark", "m1", {"name": "one"})
        victim.died()
        since = len(fleet.heard) if f"{when}:{state}" != "after:told" else 0  # that one need not be told again
        victim.start()
        end = end_of(fleet, "mark", "m1", since)
        interrupted = f"{when}:{state}" in ("after:executing", "before:successful")
        assert end["state"] == ("failed" if interrupted else "successful")
        assert end["reason"].startswith("interrupted") == interrupted
        assert victim.marks()["one"] == (0 if f"{when}:{state}" == "after:executing" else 1)
        revs = [d["rev"] for d in fleet.all("cmd/mark/m1/st")]
        assert revs == sorted(revs)
        victim.kill()


# The documents are saved: settings on trial, settings kept (config); the same between two saves of the twin.
CONFIG_POINTS = {
    "before:verifying": "failed", "after:verifying": "failed", "before:settings.1": "failed",
    "after:settings.1": "failed", "before:settings.2": "failed", "after:settings.2": "successful",
    "before:successful": "successful", "after:successful": "successful",
}  # fmt: skip


@pytest.mark.parametrize("point", CONFIG_POINTS)
def test_settings_hold_or_not_as_the_command_says(mosquitto: Mosquitto, victim: Victim, point: str) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(point)
        ready(fleet)
        fleet.order("config", "c1", {"action": "apply", "set": {"governor.dwell_s": 3.5}})
        victim.died()
        since = len(fleet.heard)
        victim.start()
        end = end_of(fleet, "config", "c1", since)
        assert end["state"] == CONFIG_POINTS[point]
        ready(fleet, since)
        victim.kill()
        assert victim.settings() == ({"governor.dwell_s": 3.5} if end["state"] == "successful" else {})


# Saves of the twin before the document comes: the report of the session. Then: attempt, in force, report.
@pytest.mark.parametrize(
    "point", ["before:twin.2", "after:twin.2", "after:settings.1", "after:settings.2", "before:twin.3", "after:twin.3"]
)
def test_a_desired_document_is_in_force_or_refused_after_a_kill(
    mosquitto: Mosquitto, victim: Victim, point: str
) -> None:
    desired: dict[str, Any] = {"version": 5, "doc": {"tags": {"a": "b"}, "config": {"governor.dwell_s": 3.5}}}
    with Fleet(mosquitto.port) as fleet:
        victim.start(point)
        ready(fleet)
        fleet.wait("twin/reported")
        fleet.send("twin/desired", desired, retain=True)
        victim.died()
        since = len(fleet.heard)
        victim.start()
        report = fleet.wait("twin/reported", lambda d: d["desired_version"] == 5 or bool(d["errors"]), 20, since)
        if report["desired_version"] == 5:
            assert report["doc"] == {"groups": [], "tags": {"a": "b"}, "config": {"governor.dwell_s": 3.5}}
        else:
            assert "the daemon ended while it tried version 5" in report["errors"][0]["message"]
        since = len(fleet.heard)
        fleet.send("twin/desired", {**desired, "version": 6}, retain=True)
        fleet.wait("twin/reported", lambda d: d["desired_version"] == 6, 20, since)
        victim.kill()
        assert (victim.twin_version(), victim.settings()) == (6, {"governor.dwell_s": 3.5})


@pytest.mark.parametrize("point", ["before:verifying", "after:verifying", ""])
def test_a_restart_is_told_by_the_daemon_that_comes_after(mosquitto: Mosquitto, victim: Victim, point: str) -> None:
    with Fleet(mosquitto.port) as fleet:
        victim.start(point)
        ready(fleet)
        fleet.order("restart", "r1", {})
        victim.died()
        since = len(fleet.heard)
        victim.start()
        end = end_of(fleet, "restart", "r1", since)
        assert (end["state"], end["result"]) == ("successful", {"version": "1"})
        ready(fleet, since)
        fleet.order("restart", "r1", {})  # again, and not done again
        end_of(fleet, "restart", "r1", len(fleet.heard) - 1)
        victim.kill()


def test_forty_kills_at_random(mosquitto: Mosquitto, victim: Victim) -> None:
    dice = random.Random(SEED)
    sent: list[str] = []
    with Fleet(mosquitto.port) as fleet:
        for kill in range(RANDOM_KILLS):
            since = len(fleet.heard)
            victim.start()
            if kill == 0 or dice.random() < 0.5:  # else it dies at its start, with what is left from before
                ready(fleet, since)
            for number in range(3):
                sent.append(f"k{kill}-{number}")
                fleet.order("mark", sent[-1], {"name": sent[-1]})
                if dice.random() < 0.3:
                    fleet.order("mark", sent[-1], {"name": sent[-1]})
            time.sleep(dice.uniform(0, 0.08))
            victim.kill()
        since = len(fleet.heard)
        victim.start()
        ready(fleet, since)
        ends = {id: end_of(fleet, "mark", id) for id in sent}
        victim.kill()
    marks = victim.marks()
    assert set(marks) <= set(sent)
    assert max(marks.values()) == 1
    for id, end in ends.items():
        assert (end["state"] == "successful" and marks[id] == 1) or end["reason"].startswith("interrupted")
    assert sum(end["state"] == "successful" for end in ends.values()) > len(ends) / 2
