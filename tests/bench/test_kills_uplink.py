"""What bench/kills_uplink.py counts, and what it has committed."""

import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/uplink")]

import kills_uplink  # noqa: E402
from fleet_side import Heard  # noqa: E402
from received import Ledger  # noqa: E402

from flyball.uplink import batch  # noqa: E402
from flyball.uplink.messages import Batch  # noqa: E402

NOTHING = Ledger()


def heard(suffix: str, payload: bytes) -> Heard:
    return Heard(suffix=suffix, payload=payload, retain=False, qos=1, expiry_s=None, deflated=False)


def records(first: int, *mono: float) -> Heard:
    made = Batch(epoch="e", first_seq=first, count=len(mono), boot="b", clk="synced", columns={"mono": mono})
    return heard("t/main", batch.encode(made).payload)


def gap(first: int, last: int) -> Heard:
    return heard("gap", json.dumps({"epoch": "e", "stream": "main", "ranges": [[first, last]]}).encode())


def test_commands_that_are_lost_or_have_two_effects_are_counted() -> None:
    told = {
        "good": {"state": "successful", "reason": ""},
        "empty": {"state": "successful", "reason": ""},
        "cut": {"state": "failed", "reason": "interrupted: the daemon ended"},
        "twice": {"state": "successful", "reason": ""},
    }
    effects = Counter(["good", "cut", "twice", "twice"])
    found = kills_uplink.figures([*told, "silent"], told, effects, NOTHING)
    assert (found["commands_lost"], found["commands_twice"], found["interrupted"]) == (2, 1, 1)


def test_a_hole_a_contradiction_and_a_gap_are_told_apart() -> None:
    whole = Ledger.of([records(0, 1.0, 2.0), records(0, 1.0, 2.0), gap(2, 3), records(4, 5.0)])
    assert (whole.received(), whole.declared(), whole.missing(), whole.adds_up()) == (3, 2, 0, True)
    hole = Ledger.of([records(0, 1.0), records(3, 4.0)])
    assert (hole.missing(), hole.adds_up()) == (2, False)
    contradiction = Ledger.of([records(0, 1.0), records(0, 9.0)])
    assert (contradiction.missing(), contradiction.adds_up()) == (0, False)


def test_the_committed_figures_are_of_a_thousand_kills_and_good() -> None:
    found = json.loads(kills_uplink.COMMITTED.read_text())
    assert found["kills"] >= 1000
    assert found["whole_daemon"] > 0
    assert (found["commands_lost"], found["commands_twice"], found["records_lost"]) == (0, 0, 0)
    assert found["ledger_ok"] is True
    assert found["commit"]
    assert found["date"]
