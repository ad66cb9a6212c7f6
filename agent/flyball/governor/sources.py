"""The readings that the limits of temperature and memory rest on, and which of them are lost.

Observation -> sources -> State.sensed -> losses -> [policy: no climb, and after HOLD_S the last proven rung]

Each thermal zone counts by itself: when the hottest is gone, those that are left would say that all is well. A reading
that never was there is no loss. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flyball.governor.values import Constraint, Observation

HOLD_S = 60.0  # a sensor that is read again within it costs no change of rung; heat takes minutes to build up

Source = tuple[Constraint, str]  # with the zone, or "" for the reading as a whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`since_s` is when it was last there."""

    constraint: Constraint
    zone: str
    since_s: float

    def text(self) -> str:
        if self.zone:
            return f"no reading of the zone {self.zone}"
        return "no reading of available memory" if self.constraint == "memory" else "no temperature reading"

    def name(self) -> str:
        return f"{self.constraint}({self.zone})" if self.zone else self.constraint


def sources(seen: Observation) -> frozenset[Source]:
    """Those that are there now."""
    found: set[Source] = {("temperature", zone) for zone in seen.zones}
    if seen.temperature_c is not None:
        found.add(("temperature", ""))
    if seen.memory_available_bytes is not None:
        found.add(("memory", ""))
    return frozenset(found)


def losses(sensed: Mapping[Source, float], seen: Observation, limited: frozenset[Constraint]) -> tuple[Loss, ...]:
    """Of the constraints in `limited`; where nothing is left of a quantity, its zones are not told one by one."""
    here = sources(seen)
    gone = [s for s in sorted(sensed) if s not in here and s[0] in limited]
    whole = {constraint for constraint, zone in gone if not zone}
    return tuple(Loss(constraint=c, zone=z, since_s=sensed[c, z]) for c, z in gone if not z or c not in whole)
