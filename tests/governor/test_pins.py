"""A pin holds against everything but the limits of temperature and memory, unless it is forced."""

from dataclasses import replace

import pytest
from simulated_plant import LADDER, MIB, Plant

from flyball.governor.values import Limits
from flyball.ports import Pin


def moves(plant: Plant, seconds: float) -> list[tuple[str, str]]:
    return [(d.source, d.target) for d in plant.run(seconds)]


def hold(plant: Plant, rung: str, *, until_s: float | None = None, force: bool = False) -> None:
    plant.state = replace(plant.state, pin=Pin(ladder="plant", rung=rung, until_s=until_s, force=force))


def test_a_pin_holds_and_says_which_limit_is_broken() -> None:
    plant = Plant()
    plant.run(20)
    hold(plant, "a", until_s=plant.now_s + 30)
    plant.contended = True
    assert moves(plant, 25) == []
    assert plant.log[-1].binding == "pin"
    assert plant.log[-1].reason == (
        "held at a by a pin for another 5.0 s, although latency p95 62.0 ms over the limit 18.0 ms"
    )
    assert moves(plant, 7) == [("a", "c")]  # over: the breaches of the last periods count at once
    assert plant.state.pin is None


def test_a_pin_brings_its_rung_back() -> None:
    plant = Plant(active="c")
    hold(plant, "b")
    decision = plant.step()
    assert (decision.action, decision.target) == ("pin", "b")
    assert plant.step().reason == "held at b by a pin until released"


@pytest.mark.parametrize(
    ("field", "expected"), [("unusable", "which cannot be had: it broke"), ("failed", "cannot be had: it failed")]
)
def test_a_pin_on_a_rung_that_cannot_be_had(field: str, expected: str) -> None:
    plant = Plant(active="c")
    setattr(plant, field, frozenset("b"))
    hold(plant, "b")
    assert moves(plant, 10) == []
    assert expected in plant.log[-1].reason


def test_a_rung_that_the_engine_asks_to_leave_alone_is_not_pinned_again() -> None:
    plant = Plant(active="c", leave_alone_s={"b": 40.0})
    hold(plant, "b")
    assert moves(plant, 10) == []
    assert "which cannot be had: it failed" in plant.log[-1].reason


def test_heat_wins_over_a_pin_which_is_taken_up_again_when_it_has_gone() -> None:
    plant = Plant(limits=Limits(temperature_c=70.0), temp_c=60.0)
    hold(plant, "a")
    down, *_ = plant.run(60)
    assert (down.action, down.source, down.target, down.binding) == ("down", "a", "b", "temperature")
    assert down.reason.startswith(
        "held at a by a pin until released, but a limit of temperature stands above it: temperature 65."
    )
    assert max(d.inputs["temperature_c"] for d in plant.log) < 70
    plant.run(60)
    waiting = plant.log[-1]
    assert plant.state.pin is not None
    assert (waiting.action, waiting.binding) == ("stay", "temperature")
    assert "held at a by a pin until released, once a limit allows it: temperature: " in waiting.reason
    plant.ambient_c = 0.0
    (back,) = plant.run(300)
    assert (back.action, back.target, back.binding) == ("pin", "a", "pin")
    assert back.inputs["temperature_c"] <= 60


def test_a_pin_that_heat_overrules_again_and_again_waits_longer_every_time() -> None:
    plant = Plant(limits=Limits(temperature_c=70.0), temp_c=60.0, ambient_c=15.0)
    hold(plant, "a")
    backs = [d.t_s for d in plant.run(7200) if d.action == "pin"]
    assert 3 < len(backs) < 20
    assert max(d.inputs["temperature_c"] for d in plant.log) < 70


def test_short_memory_wins_over_a_pin() -> None:
    plant = Plant(limits=Limits(memory_available_bytes=64 * MIB), memory_mib=50.0)
    hold(plant, "a")
    (down,) = plant.run(15)
    assert (down.target, down.binding) == ("b", "memory")
    plant.memory_mib = 400.0
    assert moves(plant, 120) == [("b", "a")]


def test_a_pin_does_not_lead_to_a_rung_for_which_memory_is_too_short() -> None:
    plant = Plant(active="c", limits=Limits(memory_available_bytes=64 * MIB), memory_mib=100.0)
    hold(plant, "a")
    assert moves(plant, 60) == []
    assert "once a limit allows it: memory: would leave 0 MiB available" in plant.log[-1].reason


def test_a_pin_on_a_weaker_rung_is_had_at_once_whatever_the_heat() -> None:
    plant = Plant(limits=Limits(temperature_c=70.0), temp_c=69.0)
    hold(plant, "c")
    assert plant.step().target == "c"


def test_by_force_a_pin_holds_against_heat_too_and_says_so() -> None:
    plant = Plant(limits=Limits(temperature_c=70.0), temp_c=60.0)
    hold(plant, "a", force=True)
    assert moves(plant, 120) == []
    assert plant.log[-1].reason.startswith("held at a by a pin until released, although temperature 8")


def test_latency_never_wins_over_a_pin() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    hold(plant, "a")
    plant.contended = True
    assert moves(plant, 300) == []


@pytest.mark.parametrize(("force", "expected"), [(False, [("a", "c")]), (True, [])])
def test_a_lost_sensor_stands_for_its_limit(force: bool, expected: list[tuple[str, str]]) -> None:
    plant = Plant(limits=Limits(temperature_c=90.0), temp_c=60.0)
    hold(plant, "a", force=force)
    plant.run(30)
    plant.temp_c = None
    assert moves(plant, 120) == expected
