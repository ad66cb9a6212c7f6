"""kill -9 where an order ends otherwise than well, and where a session begins: one end, and numbers that go on."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_side import Fleet
from received import Ledger
from test_kill_points import Victim, ready

from real_broker import Mosquitto

FINAL = ("successful", "failed", "rejected", "expired", "timed_out")

# State that is written -> type and payload of an order that comes to it, its effects, and its end when the daemon is
# killed before the state is on the disk, and after.
ENDS: dict[str, tuple[str, dict[str, Any], int, str, str]] = {
    "rejected": ("mark", {"args": {"name": "m", "more": 1}}, 0, "rejected", "rejected"),
    "expired": ("mark", {"args": {"name": "m"}, "expires_at": 1.0}, 0, "expired", "expired"),
    "timed_out": ("mark", {"args": {"name": "m", "wait": True}, "ttl_s": 2.0}, 1, "failed", "timed_out"),
    "failed": ("config", {"args": {"action": "apply", "set": {"paths.state": "x"}}}, 0, "failed", "failed"),
}


@pytest.fixture
def victim(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Victim]:
    victim = Victim(mosquitto.port, tmp_path)
    yield victim
    victim.kill()


@pytest.mark.parametrize("state", ENDS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_every_end_is_told_once_it_is_written(mosquitto: Mosquitto, victim: Victim, when: str, state: str) -> None:
    kind, payload, effects, before, after = ENDS[state]
    with Fleet(mosquitto.port) as fleet:
        victim.start(f"{when}:{state}")
        ready(fleet)
        fleet.send(f"cmd/{kind}/o1/req", payload, expiry_s=600)
        victim.died()
        since = len(fleet.heard)
        victim.start()
        end = fleet.wait(f"cmd/{kind}/o1/st", lambda d: d["state"] in FINAL, 20, since)
        assert end["state"] == (before if when == "before" else after)
        assert end["reason"]
        revs = [d["rev"] for d in fleet.all(f"cmd/{kind}/o1/st")]
        assert revs == sorted(revs)
        assert victim.marks()["m"] == effects


# A block of numbers lasts for thousands of them: only a store that is new is given one.
@pytest.mark.parametrize(
    ("point", "used"),
    [*itertools.product(("before:session", "after:session"), (False, True)),
     ("before:streams", False), ("after:streams", False)],
)  # fmt: skip
def test_a_session_that_could_not_begin_costs_a_number_and_nothing_else(
    mosquitto: Mosquitto, victim: Victim, point: str, used: bool
) -> None:
    with Fleet(mosquitto.port) as fleet:
        if used:
            victim.start()
            ready(fleet)
            victim.kill()
        victim.start(point)
        victim.died()
        since = len(fleet.heard)
        victim.start()
        ready(fleet, since)
        birth = fleet.wait("birth", since=since)
        assert birth["session"] == 1 + used + (point != "before:session")
        fleet.order("mark", "m1", {"name": "one"})
        fleet.wait("cmd/mark/m1/st", lambda d: d["state"] == "successful", 20)
        fleet.send("sig/sync", expiry_s=60)
        fleet.wait("t/main", since=since)
        victim.kill()
    assert {d["epoch"] for d in fleet.all("birth")} == {birth["epoch"]}
    assert victim.marks() == {"one": 1}
    ledger = Ledger.of(fleet.heard)
    ledger.add_disk(victim.state_dir)
    assert ledger.adds_up()
