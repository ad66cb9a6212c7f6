"""What the readings say that somebody should hear of: told once when it begins, once when it is over.

latest readings -> conditions (kind, name, how far) -> begun | over -> events

under_voltage, throttled (with its cause), over_current, near_trip_point, memory_pressure, alarm. A condition is over
when it has not held for some time, so that one that flutters is told of once; while its sensor is silent nothing is
known, and nothing is told. Decides nothing: the governor has limits of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flyball.clock import Clock
from flyball.events import Event, Events
from flyball.ports import Reading

OVER_AFTER_S = 10.0
# OC3 comes 7.6 times a second under full load on a healthy Orin: it is the rate that tells.
OVER_CURRENT_PER_S = 50.0
NEAR_TRIP_C = 5.0
PRESSURE = 0.10  # of the last 10 s some task waited for memory
STAYS = 0.5  # of the threshold: a condition that has begun holds until it falls below

SINCE_BOOT = "_since_boot"
# Cooling devices that slow something down; fans cool without, whatever they blow at.
SLOWING = re.compile(r"^(?!.*fan).*(cpu|gpu|devfreq|processor|throttl)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`value` against `limit`, in the reading's unit; it holds from `limit` on, and once begun from `stays` on."""

    kind: str
    name: str
    value: float
    limit: float
    stays: float
    message: str


class Alarms:
    """All methods from one thread."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._held_s: dict[tuple[str, str], float] = {}  # of those that have begun: when they last held

    def look(self, readings: Sequence[Reading]) -> None:
        now_s = self._clock.monotonic_s()
        for condition in conditions(readings):
            key = (condition.kind, condition.name)
            begun = key in self._held_s
            if condition.value >= (condition.stays if begun else condition.limit):
                self._held_s[key] = now_s
                if not begun:
                    self._tell(condition, now_s)
            elif begun and now_s - self._held_s[key] >= OVER_AFTER_S:
                del self._held_s[key]
                self._tell(condition, now_s, over=True)

    def _tell(self, condition: Condition, now_s: float, over: bool = False) -> None:
        self._events.publish(
            Event(
                kind=f"{condition.kind}_over" if over else condition.kind,
                t_s=now_s,
                message=f"no longer: {condition.message}" if over else condition.message,
                severity="info" if over else "warning",
                detail={"name": condition.name, "value": condition.value, "limit": condition.limit},
            )
        )


def conditions(readings: Sequence[Reading]) -> Iterator[Condition]:
    """What could be told of, whether it holds now or not. What was not read is not among them."""
    for reading in readings:
        if reading.quantity in ("throttled", "alarm") and not reading.name.endswith(SINCE_BOOT):
            yield _flag(reading)
        elif reading.quantity == "cooling" and SLOWING.search(reading.name):
            yield Condition(
                kind="throttled",
                name=f"cooling:{reading.name}",
                value=reading.value,
                limit=0.01,
                stays=0.01,
                message=f"{reading.name} slows the machine down by {reading.value:.0%} of what it can, against heat",
            )
        elif reading.quantity == "over_current":
            yield Condition(
                kind="over_current",
                name=reading.name,
                value=reading.value,
                limit=OVER_CURRENT_PER_S,
                stays=OVER_CURRENT_PER_S * STAYS,
                message=f"{reading.name}: {reading.value:.0f} over-current events a second",
            )
        elif reading.quantity == "pressure" and reading.name == "memory_some":
            yield Condition(
                kind="memory_pressure",
                name=reading.name,
                value=reading.value,
                limit=PRESSURE,
                stays=PRESSURE * STAYS,
                message=f"in {reading.value:.0%} of the last 10 s some task waited for memory",
            )
    yield from _near_trips(readings)


def _flag(reading: Reading) -> Condition:
    words = reading.name.replace("_", " ")
    under_voltage = reading.name.rpartition("/")[2] == "under_voltage"
    kind = "under_voltage" if under_voltage else reading.quantity
    message = f"{reading.sensor}: {words}"
    return Condition(kind=kind, name=reading.name, value=reading.value, limit=1.0, stays=1.0, message=message)


def _near_trips(readings: Iterable[Reading]) -> Iterator[Condition]:
    """Per zone the lowest trip point that it is near to or beyond; names of limits are "<zone>/<trip>"."""
    kept = list(readings)
    zones = {r.name: r.value for r in kept if r.quantity == "temperature"}
    for limit in (r for r in kept if r.quantity == "temperature_limit"):
        zone, _, trip = limit.name.rpartition("/")
        temperature_c = zones.get(zone)
        if temperature_c is not None:
            yield Condition(
                kind="near_trip_point",
                name=limit.name,
                value=temperature_c,
                limit=limit.value - NEAR_TRIP_C,
                stays=limit.value - 2 * NEAR_TRIP_C,
                message=f"{zone} is at {temperature_c:.1f} C; its trip point {trip} is at {limit.value:.1f} C",
            )
