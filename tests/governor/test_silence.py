"""Times without answers: what is old says nothing, and what has eased is seen without them."""

import msgspec
from simulated_plant import LADDER, Plant

from flyball.governor.state import FLAG_S
from flyball.governor.values import MIB, Limits


def late_once(plant: Plant) -> None:
    """Answers that came late although they took no more work than ever."""
    plant.rate, plant.late = 5.0, 1.0
    plant.step()
    plant.rate, plant.late = 0.0, None


def test_a_breach_before_a_long_silence_does_not_count() -> None:
    plant = Plant()
    plant.run(30)
    late_once(plant)
    plant.run(3600)
    late_once(plant)
    assert plant.active == "a"
    assert "100.0% of 25 later than 18.0 ms, 5.0% allowed in 1 of the last 3 periods;" in plant.log[-1].reason
    assert plant.moves(60) == []


def test_late_answers_that_are_far_between_count_and_are_told_as_such() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.run(30)
    late_once(plant)
    plant.run(FLAG_S / 3)
    late_once(plant)
    assert plant.log[-1].target == "c"
    assert " in 2 of the last 3 periods with answers, 22 s in all; " in plant.log[-1].reason


def test_no_answers_are_no_breach_and_no_proof() -> None:
    plant = Plant(models=LADDER[:1])
    plant.run(30)
    learnt = plant.own.slow
    plant.rate = 0.0
    plant.run(300)
    assert plant.own.slow == learnt
    assert plant.own.flags["latency"] == ()  # what was seen five minutes ago says nothing of now
    assert plant.log[-1].inputs["answers"] == 0


def test_an_idle_ladder_climbs_back_after_heat() -> None:
    plant = Plant(limits=Limits(deadline_s=0.018, temperature_c=70.0), temp_c=68.0, ambient_c=45.0)
    plant.run(120)
    assert plant.active == "c"
    plant.rate, plant.ambient_c = 0.0, 0.0
    plant.run(3600)
    assert plant.active == "a"
    assert plant.log[-1].inputs["answers"] == 0


def test_an_idle_ladder_climbs_back_after_memory_was_short() -> None:
    plant = Plant(limits=Limits(deadline_s=0.018, memory_available_bytes=64 * MIB), memory_mib=400.0)
    plant.run(20)
    plant.memory_mib = 50.0
    assert plant.moves(3) == [("a", "b")]
    plant.rate, plant.memory_mib = 0.0, 400.0
    assert plant.moves(60) == [("b", "a")]


def test_an_idle_ladder_climbs_back_when_the_load_has_gone_by_its_own_slow_down() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.run(30)
    plant.contended = True
    plant.run(30)
    assert plant.active == "c"
    plant.rate = 0.0
    assert plant.moves(120) == []  # the load is still there: predictions need no answers, nor do they forget
    plant.contended = False
    assert plant.moves(60) == [("c", "a")]


def test_an_idle_ladder_does_not_climb_to_what_is_too_slow_at_rest() -> None:
    plant = Plant(active="b", limits=Limits(deadline_s=0.0115), rate=0.0)
    assert plant.moves(7200) == []
    assert plant.log[-1].candidates[0].ruled_out_by.startswith("latency: ")


def test_a_ladder_that_never_had_a_request_is_governed_by_its_profiles() -> None:
    plant = Plant(active="c", rate=0.0)
    view = plant.view()
    assert view.ladders[0].seen.arrivals_per_s == 0.0
    assert plant.moves(60) == [("c", "a")]
    unknown = msgspec.structs.replace(view.ladders[0].seen, arrivals_per_s=None)
    assert unknown.late is None
