"""A pin holds against everything but the limits of temperature and memory, unless it is forced."""

import pytest
from simulated_plant import LADDER, NAME, Plant

from flyball.config import Governor as Rules
from flyball.governor.policy import against_order
from flyball.governor.values import MIB, Limits


def test_a_pin_holds_and_says_which_limit_is_broken() -> None:
    plant = Plant()
    plant.run(20)
    plant.pin("a", until_s=plant.now_s + 30)
    plant.contended = True
    assert plant.moves(25) == []
    assert plant.log[-1].binding == "pin"
    assert plant.log[-1].reason == (
        "held at a by a pin for another 5.0 s, although "
        "latency p95 62.0 ms, 100.0% of 25 later than 18.0 ms, 5.0% allowed"
    )
    assert plant.moves(7) == [("a", "c")]  # over: the breaches of the last periods count at once
    assert plant.own.pin is None


def test_a_pin_brings_its_rung_back() -> None:
    plant = Plant(active="c")
    plant.pin("b")
    decision = plant.step()
    assert (decision.action, decision.target) == ("pin", "b")
    assert plant.step().reason == "held at b by a pin until released"


@pytest.mark.parametrize(
    ("field", "expected"), [("unusable", "which cannot be had: it broke"), ("failed", "cannot be had: it failed")]
)
def test_a_pin_on_a_rung_that_cannot_be_had(field: str, expected: str) -> None:
    plant = Plant(active="c")
    setattr(plant, field, frozenset("b"))
    plant.pin("b")
    assert plant.moves(10) == []
    assert expected in plant.log[-1].reason


def test_a_rung_that_the_engine_asks_to_leave_alone_is_not_pinned_again() -> None:
    plant = Plant(active="c", leave_alone_s={"b": 40.0})
    plant.pin("b")
    assert plant.moves(10) == []
    assert "which cannot be had: it failed" in plant.log[-1].reason


def test_a_pin_on_a_rung_that_the_ladder_does_not_have_is_told() -> None:
    plant = Plant()
    plant.pin("huge")
    assert plant.moves(10) == []
    assert plant.log[-1].reason == "held at huge by a pin until released, but the ladder has no such rung"


@pytest.mark.parametrize("power_known", [True, False])
def test_heat_wins_over_a_pin_which_is_taken_up_again_when_it_has_gone(power_known: bool) -> None:
    plant = Plant(limits=Limits(temperature_c=70.0), temp_c=60.0, power_known=power_known)
    plant.pin("a")
    down, *_ = plant.run(60)
    assert (down.action, down.source, down.binding) == ("down", "a", "temperature")
    assert down.reason.startswith(
        "held at a by a pin until released, but a limit of temperature stands above it: temperature"
    )
    assert max(d.inputs["temperature_c"] for d in plant.log) < 70
    plant.run(60)
    assert any(d.action == "stay" and d.binding == "temperature" for d in plant.log)  # it waits, and says for what
    assert plant.own.pin is not None
    for _ in range(120):  # air gets cooler within minutes, not at once
        plant.ambient_c -= 45.0 / 120.0
        plant.step()
    plant.run(1200)
    assert plant.active == "a"
    assert plant.log[-1].binding == "pin"
    assert plant.moves(600) == []


@pytest.mark.parametrize("power_known", [True, False])
def test_a_pin_that_heat_overrules_again_and_again_comes_back_seldom(power_known: bool) -> None:
    plant = Plant(limits=Limits(temperature_c=70.0), temp_c=60.0, ambient_c=15.0, power_known=power_known)
    plant.pin("a")
    backs = [d.t_s for d in plant.run(7200) if d.action == "pin"]
    assert len(backs) < 30
    assert max(d.inputs["temperature_c"] for d in plant.log) < 70


def test_short_memory_wins_over_a_pin() -> None:
    plant = Plant(limits=Limits(memory_available_bytes=64 * MIB), memory_mib=50.0)
    plant.pin("a")
    (down,) = plant.run(4)
    assert (down.target, down.binding) == ("b", "memory")
    plant.memory_mib = 400.0
    assert plant.moves(120) == [("b", "a")]


def test_a_pin_does_not_lead_to_a_rung_for_which_memory_is_too_short() -> None:
    plant = Plant(active="c", limits=Limits(memory_available_bytes=64 * MIB), memory_mib=100.0)
    plant.pin("a")
    assert plant.moves(60) == []
    assert "once a limit allows it: memory: needs 120 MiB of 100 MiB" in plant.log[-1].reason


def test_a_pin_on_a_weaker_rung_is_had_at_once_whatever_the_heat() -> None:
    plant = Plant(limits=Limits(temperature_c=70.0), temp_c=69.0)
    plant.pin("c")
    assert plant.step().target == "c"


def test_by_force_a_pin_holds_against_heat_too_and_says_so() -> None:
    plant = Plant(limits=Limits(temperature_c=70.0), temp_c=60.0)
    plant.pin("a", force=True)
    assert plant.moves(120) == []
    assert plant.log[-1].reason.startswith("held at a by a pin until released, although temperature 8")


def test_latency_never_wins_over_a_pin() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.pin("a")
    plant.contended = True
    assert plant.moves(300) == []


def test_neither_does_a_cap_of_power() -> None:
    plant = Plant(limits=Limits(power_w=3.0))
    plant.pin("a")
    assert plant.moves(300) == []
    assert "although power 6.00 W over the limit 3.00 W" in plant.log[-1].reason


@pytest.mark.parametrize("mode", ["accuracy-first", "observe", "pinned"])
@pytest.mark.parametrize("odd", ["memory", "temperature"])
def test_one_odd_reading_does_not_let_latency_win_over_a_pin(odd: str, mode: str) -> None:
    limits = Limits(deadline_s=0.018, memory_available_bytes=64 * MIB, temperature_c=80.0)
    plant = Plant(rules=Rules(mode=mode), limits=limits, contended=True, memory_mib=1000.0, zones={"x/cpu": 50.0})
    plant.pin("a")
    plant.run(60)
    if odd == "memory":
        plant.memory_mib = 10.0
    else:
        plant.zones = {"x/cpu": 90.0}
    assert plant.moves(1) == []
    assert "held at a by a pin" in plant.log[-1].reason
    assert f"{odd} " in plant.log[-1].reason, "and it is told"
    plant.memory_mib, plant.zones = 1000.0, {"x/cpu": 50.0}
    assert plant.moves(60) == []


@pytest.mark.parametrize(("force", "expected"), [(False, [("a", "c")]), (True, [])])
def test_a_lost_sensor_stands_for_its_limit(force: bool, expected: list[tuple[str, str]]) -> None:
    plant = Plant(limits=Limits(temperature_c=95.0), temp_c=60.0)
    plant.pin("a", force=force)
    plant.run(30)
    plant.temp_c = None
    assert plant.moves(120) == expected


def test_a_pin_outlasts_a_change_of_mode() -> None:
    plant = Plant(active="c", rules=Rules(mode="pinned"))
    plant.pin("b")
    assert plant.moves(10) == [("c", "b")]


def test_an_order_is_told_which_hard_limit_forbids_it() -> None:
    plant = Plant(active="c", limits=Limits(deadline_s=0.001, temperature_c=70.0), temp_c=69.0, ambient_c=50.0)
    plant.step()
    assert against_order(plant.view(), plant.rules, plant.state, NAME, "a").startswith("temperature: temperature 6")
    assert against_order(plant.view(), plant.rules, plant.state, NAME, "c") == ""
    assert against_order(plant.view(), plant.rules, plant.state, "nobody", "a") == ""
    cool = Plant(active="c", limits=Limits(deadline_s=0.001, temperature_c=70.0), temp_c=20.0, ambient_c=0.0)
    cool.step()
    assert against_order(cool.view(), cool.rules, cool.state, NAME, "a") == ""  # latency forbids no order
