"""Two ladders share the memory that is left: what one of them is opening is not there for the other."""

import msgspec
import pytest
from pair_of_ladders import BIG, Pair

from flyball.governor.values import MIB
from flyball.ports import Pin


@pytest.mark.parametrize("opens_s", [0.0, 8.0])
def test_two_climbs_that_do_not_fit_together_are_not_made_together(opens_s: float) -> None:
    pair = Pair(available_mib=64 / 0.85 + BIG + BIG / 2, opens_s=opens_s)
    said = pair.run(120)
    assert sorted(pair.active.values()) == ["big", "small"]
    assert pair.least_mib >= pair.reserve_mib
    waiting = [d for d in said if "while another ladder opens" in d.reason]
    assert waiting
    assert {d.binding for d in waiting} == {"memory"}
    assert waiting[0].reason == "big would fit; but it needs 100 MiB while another ladder opens 100 MiB"


@pytest.mark.parametrize("opens_s", [0.0, 8.0])
def test_two_climbs_that_fit_are_made_at_once(opens_s: float) -> None:
    pair = Pair(available_mib=64 / 0.85 + 2 * BIG + 1, opens_s=opens_s)
    climbs = [d for d in pair.run(60) if d.action == "up"]
    assert sorted(pair.active.values()) == ["big", "big"]
    assert len({d.t_s for d in climbs}) == 1


def test_nobody_climbs_while_another_ladder_is_between_two_rungs() -> None:
    """What it is going to take of the processors is not in the choice; but nobody waits for it without end."""
    pair = Pair(available_mib=1000.0, opens_s=1e6)
    pair.active["y"] = "big"
    pair.run(10)
    assert list(pair.coming) == ["x"]
    at_s, pair.active["y"] = pair.coming["x"][1].t_s, "small"
    said = pair.run(60)
    waiting = [d for d in said if "x is being changed to another rung" in d.reason]
    assert waiting
    assert {d.action for d in waiting} == {"stay"}
    (climb,) = [d for d in said if d.action == "up"]
    assert climb.ladder == "y"
    assert 30.0 <= climb.t_s - at_s <= 36.0


def test_what_could_not_be_opened_is_not_waited_for() -> None:
    pair = Pair(available_mib=64 / 0.85 + BIG + BIG / 2, opens_s=3.0, refusing=True)
    asked = [d.ladder for d in pair.run(30) if d.action == "up"]
    assert asked[:2] == ["x", "y"]
    assert set(pair.state.opening) <= set(pair.coming)


def test_pins_wait_for_each_other_too_but_not_by_force() -> None:
    for force, expected in ((False, ["big", "small"]), (True, ["big", "big"])):
        pair = Pair(available_mib=64 / 0.85 + BIG + BIG / 2)
        for name in pair.active:
            pair.state = pair.state.pinned(name, Pin(ladder=name, rung="big", until_s=None, force=force))
        pair.run(3)
        assert sorted(pair.active.values()) == expected


def test_what_a_ladder_was_opening_is_forgotten_with_it() -> None:
    pair = Pair(available_mib=64 / 0.85 + BIG + BIG / 2, opens_s=1e6)
    pair.run(30)
    assert list(pair.coming) == list(pair.state.opening) == ["x"]
    assert pair.active["y"] == "small"
    del pair.active["x"], pair.coming["x"]
    pair.state = msgspec.structs.replace(pair.state, ladders={"y": pair.state.of("y")})
    pair.run(1)
    assert list(pair.coming) == ["y"]
    assert {name: one.takes_bytes for name, one in pair.state.opening.items()} == {"y": BIG * MIB}
