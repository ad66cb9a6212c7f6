"""A limit that two ladders share is broken: one of them gives way, and the other only if that was not enough."""

import msgspec
import pytest
from pair_of_ladders import BIG, RULES, SMALL, Pair

from flyball.config import Governor as Rules
from flyball.governor.state import LadderState
from flyball.ports import Pin

FREED = BIG - SMALL


def short_by(mib: float, opens_s: float = 0.0, rules: Rules = RULES) -> Pair:
    """Both on their big rung, with so much less than the 128 MiB that have to be left."""
    pair = Pair(available_mib=128.0 - mib + 2 * BIG, reserve_mib=128.0, opens_s=opens_s, rules=rules)
    pair.active = {"x": "big", "y": "big"}
    return pair


@pytest.mark.parametrize("opens_s", [0.0, 8.0])
def test_one_ladder_gives_way_where_that_is_enough(opens_s: float) -> None:
    pair = short_by(FREED / 2, opens_s=opens_s)
    said = pair.run(40)
    assert sorted(pair.active.values()) == ["big", "small"]
    waited = [d for d in said if d.action == "stay" and d.ladder == "y" and d.binding == "memory"]
    assert "x gives way for it first" in waited[-1].reason


def test_both_give_way_at_once_where_one_is_not_enough() -> None:
    pair = Pair(available_mib=128.0 - 40.0 + 2 * 30.0, reserve_mib=128.0, sizes={"x": 30.0, "y": 30.0})
    pair.active = {"x": "big", "y": "big"}
    downs = [d.t_s for d in pair.run(20) if d.action == "down"]
    assert len(downs) == 2
    assert downs[0] == downs[1]


@pytest.mark.parametrize("period_s", [0.25, 1.0, 10.0])
def test_the_other_follows_once_it_is_to_be_seen_that_it_was_not_enough(period_s: float) -> None:
    pair = short_by(15.0, rules=Rules(period_s=period_s))
    pair.sizes = {"x": 30.0, "y": 30.0}
    pair.available_mib -= 2 * (BIG - 30.0)
    downs = []
    for _ in range(60):
        downs += [(d.ladder, d.t_s) for d in pair.step() if d.action == "down"]
        pair.available_mib -= 30.0 if len(downs) == 1 and pair.free_mib() > 120.0 else 0.0
    (first, at_s), (second, after_s) = downs
    assert first != second
    assert max(3.0, min(3 * period_s, 10.0)) <= after_s - at_s <= max(4.0, 2.0 * period_s)


def test_power_that_nobody_foresaw_is_given_back_by_one_ladder_at_a_time() -> None:
    pair = Pair(available_mib=1000.0, watts=2.0, cap_w=8.0)
    pair.active = {"x": "big", "y": "big"}
    assert [d.ladder for d in pair.run(20) if d.action == "down"] == ["x"]
    pair = Pair(available_mib=1000.0, watts=2.0, cap_w=6.0)
    pair.active = {"x": "big", "y": "big"}
    (first, at_s), (second, after_s) = [(d.ladder, d.t_s) for d in pair.run(20) if d.action == "down"]
    assert (first, second) == ("x", "y")
    assert 6.0 <= after_s - at_s <= 8.0, "power is smoothed: what it brought shows late"


@pytest.mark.parametrize("force", [False, True])
def test_one_that_is_held_does_not_keep_the_other_waiting(force: bool) -> None:
    """A limit of power never stands above a pin, one of memory does but for force."""
    capped = Pair(available_mib=1000.0, watts=2.0, cap_w=8.0)
    short = short_by(FREED / 2)
    for pair in (capped, short) if force else (capped,):
        pair.active = {"x": "big", "y": "big"}
        pair.state = pair.state.pinned("x", Pin(ladder="x", rung="big", until_s=None, force=force))
        pair.run(20)
        assert pair.active == {"x": "big", "y": "small"}


def test_a_change_for_another_reason_is_not_waited_for() -> None:
    pair = short_by(FREED / 2)
    pair.state = pair.state.having("z", LadderState(active="big")).begun("z", 0.0, 0.0)  # a pin, which takes long
    assert [d.action for d in pair.run(6)].count("down") == 1


def test_there_is_no_time_for_turns_when_hardly_any_memory_is_left() -> None:
    pair = short_by(100.0)
    downs = [d.t_s for d in pair.run(20) if d.action == "down"]
    assert len(downs) == 2
    assert downs[0] == downs[1]


def test_the_one_that_frees_more_for_its_accuracy_gives_way() -> None:
    pair = short_by(FREED / 2)
    pair.sizes["y"] = 2 * BIG
    pair.available_mib += BIG
    pair.run(20)
    assert pair.active == {"x": "big", "y": "small"}


def test_one_that_cannot_give_way_does_not_keep_the_other_waiting() -> None:
    pair = short_by(FREED / 2)
    pair.active["x"] = "small"
    pair.available_mib -= FREED
    pair.run(20)
    assert pair.active == {"x": "small", "y": "small"}


def test_a_change_that_does_not_come_to_an_end_is_not_waited_for_without_end() -> None:
    pair = short_by(FREED / 2, opens_s=1e6)
    pair.run(60)
    assert sorted(pair.coming) == ["x", "y"]


def test_a_ladder_that_is_pinned_waits_like_any_other() -> None:
    pair = short_by(FREED / 2)
    for name in pair.active:
        pair.state = pair.state.pinned(name, Pin(ladder=name, rung="big", until_s=None))
    pair.run(20)
    assert sorted(pair.active.values()) == ["big", "small"]


def test_what_is_written_down_of_a_turn_is_read_again() -> None:
    pair = short_by(FREED / 2)
    pair.run(4)
    kept = msgspec.json.decode(msgspec.json.encode(pair.state), type=type(pair.state))
    assert kept.of("x").stepped_for == "memory"
    assert kept == pair.state
