"""Times without answers: what is old says nothing, and what has eased is seen without them."""

from simulated_plant import LADDER, MIB, Plant

from flyball.governor.state import FLAG_S
from flyball.governor.values import Limits


def moves(plant: Plant, seconds: float) -> list[tuple[str, str]]:
    return [(d.source, d.target) for d in plant.run(seconds)]


def heated(limits: Limits) -> Plant:
    """From a through b to c, all for heat."""
    plant = Plant(limits=limits, temp_c=60.0, ambient_c=30.0)
    while plant.active != "c":
        plant.step()
    assert {left.cause for left in plant.state.left.values()} == {"temperature"}
    return plant


def late_once(plant: Plant) -> None:
    plant.answers, plant.contended = 50, True
    plant.step()
    plant.answers, plant.contended = 0, False


def test_a_breach_before_a_long_silence_does_not_count() -> None:
    plant = Plant()
    plant.run(30)
    late_once(plant)
    plant.run(3600)
    late_once(plant)
    assert plant.active == "a"
    assert "latency p95 62.0 ms over the limit 18.0 ms in 1 of the last 3 periods;" in plant.log[-1].reason
    assert moves(plant, 60) == []


def test_late_answers_that_are_far_between_count_and_are_told_as_such() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.run(30)
    late_once(plant)
    plant.run(FLAG_S / 3)
    late_once(plant)
    assert plant.log[-1].target == "c"
    assert plant.log[-1].reason.startswith(
        "latency p95 62.0 ms over the limit 18.0 ms in 2 of the last 3 periods with answers, 22 s in all; "
    )


def test_an_idle_ladder_climbs_back_after_heat() -> None:
    plant = heated(Limits(latency_p95_s=0.018, temperature_c=70.0))
    plant.answers, plant.ambient_c = 0, 0.0
    up, *_ = plant.run(7200)
    assert (up.action, up.source, up.target) == ("up", "c", "b")
    assert up.reason.startswith("b is predicted at 6.0 ms; safe in 10 of 10 periods")
    assert plant.active == "a"
    assert plant.log[-1].inputs["answers"] == 0


def test_an_idle_ladder_climbs_back_after_memory_was_short() -> None:
    plant = Plant(limits=Limits(latency_p95_s=0.018, memory_available_bytes=64 * MIB), memory_mib=400.0)
    plant.run(20)
    plant.memory_mib = 50.0
    assert moves(plant, 5) == [("a", "b")]
    plant.answers, plant.memory_mib = 0, 400.0
    assert moves(plant, 60) == [("b", "a")]


def test_an_idle_ladder_does_not_climb_to_what_was_slow_when_it_was_calm() -> None:
    plant = heated(Limits(latency_p95_s=0.015, temperature_c=70.0))
    plant.answers, plant.ambient_c = 0, 0.0
    assert moves(plant, 7200) == [("c", "b")]
    assert plant.log[-1].candidates[0].ruled_out_by == "latency: predicted 13.2 ms, 85% of the limit is 12.8 ms"


def test_an_idle_ladder_does_not_climb_to_a_rung_that_it_knows_nothing_of() -> None:
    plant = Plant(limits=Limits(latency_p95_s=0.018, temperature_c=70.0), temp_c=60.0, answers=0)
    plant.run(120)
    plant.ambient_c = 0.0
    assert moves(plant, 3600) == []
    assert plant.log[-1].reason == "no new answers: latency is unknown, which speaks for nothing"
