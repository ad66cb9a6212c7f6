"""Alarms: told once when they begin and once when they are over, and never because a sensor is silent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.events import Event, Events
from flyball.ports import UNITS, Quantity, Reading
from flyball.sensing.alarms import OVER_AFTER_S, Alarms
from flyball.testing import FakeClock


def of(quantity: Quantity, name: str, value: float) -> Reading:
    return Reading(
        quantity=quantity, name=name, value=value, unit=UNITS[quantity], scope="chip", sensor="told", t_s=0.0
    )


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.heard: list[Event] = []
        events = Events()
        events.subscribe(self.heard.append)
        self.alarms = Alarms(events, self.clock)

    def look(self, *readings: Reading, after_s: float = 1.0) -> list[str]:
        """The kinds of what was told."""
        self.clock.advance(after_s)
        self.heard.clear()
        self.alarms.look(readings)
        return [event.kind for event in self.heard]


@pytest.mark.parametrize(
    ("quantity", "name", "low", "high", "kind"),
    [
        ("throttled", "under_voltage", 0.0, 1.0, "under_voltage"),
        ("alarm", "under_voltage", 0.0, 1.0, "under_voltage"),
        ("throttled", "soft_temperature_limit", 0.0, 1.0, "throttled"),
        ("throttled", "gpu0/hw_thermal", 0.0, 1.0, "throttled"),
        ("alarm", "apex_0", 0.0, 1.0, "alarm"),
        ("cooling", "thermal-cpufreq-0", 0.0, 0.4, "throttled"),
        ("over_current", "oc3", 8.0, 60.0, "over_current"),
        ("pressure", "memory_some", 0.02, 0.2, "memory_pressure"),
    ],
)
def test_each_is_told_once_and_once_when_it_is_over(
    quantity: Quantity, name: str, low: float, high: float, kind: str
) -> None:
    rig = Rig()
    assert rig.look(of(quantity, name, low)) == []
    assert rig.look(of(quantity, name, high)) == [kind]
    assert rig.heard[0].severity == "warning"
    assert rig.heard[0].detail["value"] == high
    assert rig.look(of(quantity, name, high)) == []
    assert rig.look(of(quantity, name, low)) == [], "it may come back at once"
    assert rig.look(of(quantity, name, high)) == []
    assert rig.look(of(quantity, name, low), after_s=OVER_AFTER_S - 1) == []
    assert rig.look(of(quantity, name, low), after_s=2) == [f"{kind}_over"]
    assert rig.look(of(quantity, name, low), after_s=60) == []


@pytest.mark.parametrize(
    ("quantity", "name"),
    [
        ("throttled", "under_voltage_since_boot"),
        ("cooling", "pwm-fan"),
        ("cooling", "cpu_fan"),
        ("cooling", "GPU Fan"),
        ("pressure", "io_some"),
        ("fan", "fan"),
    ],
)
def test_what_is_not_told_of(quantity: Quantity, name: str) -> None:
    assert Rig().look(of(quantity, name, 1.0)) == []


def test_a_zone_near_its_trip_point() -> None:
    rig = Rig()
    limits = (
        of("temperature_limit", "cpu-thermal/passive", 80.0),
        of("temperature_limit", "cpu-thermal/critical", 95.0),
    )
    assert rig.look(of("temperature", "cpu-thermal", 74.9), *limits) == []
    assert rig.look(of("temperature", "cpu-thermal", 75.0), *limits) == ["near_trip_point"]
    assert "trip point passive is at 80.0 C" in rig.heard[0].message
    assert rig.look(of("temperature", "cpu-thermal", 90.0), *limits) == ["near_trip_point"]
    assert "critical" in rig.heard[0].message
    assert rig.look(of("temperature", "cpu-thermal", 71.0), *limits, after_s=60) == ["near_trip_point_over"]
    assert rig.look(of("temperature", "cpu-thermal", 69.0), *limits, after_s=60) == ["near_trip_point_over"]


def test_a_silent_sensor_ends_no_alarm() -> None:
    rig = Rig()
    assert rig.look(of("throttled", "under_voltage", 1.0)) == ["under_voltage"]
    assert rig.look(after_s=3600) == []
    assert rig.look(of("throttled", "under_voltage", 1.0)) == [], "told already"


@given(st.lists(st.tuples(st.floats(0, 200, allow_nan=False), st.floats(0.1, 30)), max_size=60))
def test_beginnings_and_ends_alternate_whatever_is_read(steps: list[tuple[float, float]]) -> None:
    rig = Rig()
    told: list[str] = []
    for value, after_s in steps:
        told += rig.look(of("over_current", "oc3", value), after_s=after_s)
    assert all(kind == ("over_current_over" if n % 2 else "over_current") for n, kind in enumerate(told))
