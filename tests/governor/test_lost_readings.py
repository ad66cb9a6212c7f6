"""A reading that was there and is gone: no climb, and after a while the last rung that was proven."""

import msgspec
import pytest
from simulated_plant import LADDER, Plant

from flyball.config import Config
from flyball.config import Governor as Rules
from flyball.governor.sources import HOLD_S
from flyball.governor.state import State
from flyball.governor.survey import Sources, Survey
from flyball.governor.values import MIB, Limits
from flyball.ports import SensorHealth
from flyball.testing import FakeClock, FakeLadder, FakeReadings

HEAT = Limits(temperature_c=70.0)


def test_losing_the_temperature_does_not_lead_to_the_hottest_rung() -> None:
    plant = Plant(limits=HEAT, temp_c=68.0, ambient_c=30.0)
    plant.run(300)
    while plant.active != "c":
        plant.ambient_c = 45.0
        plant.step()
    plant.temp_c = None
    assert plant.moves(3600) == []
    assert plant.log[-1].reason.endswith("no temperature reading: no climb until it is back")
    plant.temp_c, plant.ambient_c = 20.0, 0.0
    assert plant.moves(1200)[0][0] == "c"


def test_after_the_hold_time_it_goes_to_the_last_proven_rung() -> None:
    plant = Plant(active="b", limits=HEAT, temp_c=40.0, ambient_c=-10.0, unusable=frozenset("a"))
    plant.run(1000)
    assert plant.own.proven == {"temperature": "b"}
    plant.unusable = frozenset()
    assert plant.moves(30) == [("b", "a")]
    plant.temp_c = None
    assert plant.moves(HOLD_S - 2) == []
    assert plant.log[-1].reason.startswith("the limits hold that can be told; no temperature reading: no climb")
    assert "and in 2.0 s down to b, the last one proven to keep the limit of temperature" in plant.log[-1].reason
    (down,) = plant.run(60)
    assert (down.action, down.target, down.binding) == ("down", "b", "sensor")
    assert down.reason == (
        "no temperature reading for 60 s: down to b, the last one proven to keep the limit of temperature"
    )
    assert plant.moves(3600) == []


def test_where_none_was_proven_it_goes_to_the_weakest_that_is_allowed() -> None:
    plant = Plant(limits=Limits(temperature_c=95.0, accuracy=0.85), temp_c=85.0)
    plant.run(60)
    plant.temp_c = None
    assert plant.moves(300) == [("a", "b")]


def test_on_a_rung_that_is_proven_it_stays() -> None:
    plant = Plant(limits=Limits(temperature_c=95.0), temp_c=85.0)
    plant.run(1000)
    plant.temp_c = None
    assert plant.moves(300) == []


def test_a_short_loss_costs_nothing() -> None:
    plant = Plant(limits=Limits(temperature_c=95.0), temp_c=85.0)
    plant.run(60)
    plant.temp_c = None
    plant.run(HOLD_S - 5)
    plant.temp_c = 85.0
    assert plant.moves(300) == []
    assert plant.log[-1].reason == "the limits hold at the best rung"


def test_a_rung_that_grew_hot_later_is_not_proven_any_more() -> None:
    plant = Plant(models=LADDER[:1], limits=Limits(temperature_c=95.0), temp_c=85.0)
    plant.run(1000)
    assert plant.own.proven == {"temperature": "a"}
    plant.ambient_c = 60.0
    plant.run(300)
    assert plant.own.proven == {}


def test_one_zone_of_two_is_a_loss_too() -> None:
    plant = Plant(active="b", models=LADDER[1:], limits=HEAT, zones={"x/cpu": 58.0, "x/pmic": 40.0})
    plant.step()
    plant.zones = {"x/pmic": 40.0}
    assert plant.moves(HOLD_S - 2) == []
    assert "no reading of the zone x/cpu: no climb until it is back, and in" in plant.log[-1].reason
    assert plant.moves(30) == [("b", "c")]
    plant.zones = {"x/cpu": 45.0, "x/pmic": 40.0}
    assert plant.moves(60) == [("c", "b")]


def test_a_zone_that_is_switched_off_is_no_loss() -> None:
    plant = Plant(active="b", models=LADDER[1:], limits=HEAT, zones={"x/cpu": 50.0, "x/cv0": 50.0})
    plant.step()
    plant.zones, plant.off = {"x/cpu": 50.0}, ("x/cv0",)
    assert plant.moves(3 * HOLD_S) == []


def test_lost_memory_is_held_likewise() -> None:
    plant = Plant(models=LADDER[:2], active="b", limits=Limits(memory_available_bytes=64 * MIB), memory_mib=150.0)
    plant.run(60)
    plant.memory_mib = None
    assert plant.moves(600) == []
    assert plant.log[-1].reason.endswith("no reading of available memory: no climb until it is back")


def test_without_the_power_a_cap_forbids_the_climb_and_nothing_else() -> None:
    plant = Plant(active="b", limits=Limits(power_w=4.5))
    plant.run(60)
    plant.power_known = False
    assert plant.moves(600) == []
    assert plant.log[-1].reason.endswith("no reading of power: no climb until it is back")


def test_the_other_limits_go_on_to_bind() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]), limits=Limits(deadline_s=0.018, temperature_c=90.0), temp_c=50.0)
    plant.step()
    plant.temp_c = None
    plant.contended = True
    (down,) = plant.run(20)
    assert (down.target, down.binding) == ("c", "latency")
    assert down.reason.endswith("besides, no temperature reading")


def test_what_is_due_for_a_lost_reading_is_not_put_off_by_a_milder_step_for_another_limit() -> None:
    plant = Plant(limits=Limits(deadline_s=0.018, temperature_c=95.0), temp_c=50.0)
    plant.run(20)
    plant.temp_c = None
    plant.run(HOLD_S - 1)
    plant.contended = True
    (down,) = plant.run(2)  # for latency alone b would do
    assert (down.target, down.binding) == ("c", "sensor")


def test_a_rung_below_the_floor_is_left_upwards_all_the_same() -> None:
    plant = Plant(active="c", limits=Limits(temperature_c=95.0), temp_c=50.0)
    plant.step()
    plant.temp_c = None
    plant.floor(0.85)
    (up,) = plant.run(30)
    assert (up.action, up.source, up.binding) == ("up", "c", "accuracy")


def test_a_limit_without_any_sensor_is_not_spoken_of() -> None:
    plant = Plant(limits=Limits(temperature_c=60.0), power_known=False)
    assert plant.step().reason == "the limits hold at the best rung"


def test_a_sensor_without_a_limit_is_not_missed() -> None:
    plant = Plant(active="c", limits=Limits(), temp_c=40.0)
    plant.step()
    plant.temp_c = None
    assert plant.moves(60) == [("c", "a")]


@pytest.mark.parametrize(
    ("health", "off"),
    [
        ([], ()),
        ([SensorHealth(sensor="fake", state="ok", reason="thermal_zone0 (cpu): I/O error")], ()),
        ([SensorHealth(sensor="fake", state="failed", reason="gone")], ()),
        ([SensorHealth(sensor="fake", state="ok")], ("fake/cv0",)),
    ],
)
def test_a_zone_that_its_sensor_leaves_out_without_complaint_is_switched_off(
    health: list[SensorHealth], off: tuple[str, ...]
) -> None:
    clock = FakeClock()
    readings = FakeReadings(clock)
    readings.put("temperature", 50.0, "gpu")
    readings.put("temperature", float("nan"), "cpu")
    readings.sensors = health
    known = State(sensed={"temperature/fake/cv0": 1.0, "temperature/fake/gpu": 1.0, "memory": 1.0})
    survey = Survey(Sources(readings=readings, clock=clock, cpus=2))
    machine = survey.look([FakeLadder("x")], Config(governor=Rules()), known).machine
    assert machine.zones == {"fake/gpu": 50.0}
    assert machine.off == off
    assert msgspec.json.decode(msgspec.json.encode(machine), type=type(machine)) == machine
