"""The readings that the limits of temperature and memory rest on, and which of them are lost.

Machine -> sources -> State.sensed -> losses -> [policy: no climb, and after HOLD_S the last proven rung]

Each thermal zone counts by itself: when the hottest is gone, those that are left would say that all is well. A reading
that never was there is no loss. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flyball.governor.values import Constraint, Machine

HOLD_S = 60.0  # a sensor that is read again within it costs no change of rung; heat takes minutes to build up


class Loss(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`since_s` is when it was last there."""

    constraint: Constraint
    zone: str
    since_s: float

    def text(self) -> str:
        if self.zone:
            return f"no reading of the zone {self.zone}"
        return _TEXTS.get(self.constraint, f"no reading of {self.constraint}")

    def name(self) -> str:
        return f"{self.constraint}({self.zone})" if self.zone else self.constraint


_TEXTS = {"memory": "no reading of available memory", "temperature": "no temperature reading"}


CONTENTION = "contention"  # no limit rests on it


def sources(machine: Machine) -> frozenset[str]:
    """Those that are there now, as "constraint" or "constraint/zone", and CONTENTION."""
    found = {f"temperature/{zone}" for zone in (*machine.zones, *machine.off)}
    if machine.zones:
        found.add("temperature")
    if machine.memory_available_bytes is not None:
        found.add("memory")
    if machine.power_w is not None:
        found.update(("power", "energy"))
    if machine.contention is not None:
        found.add(CONTENTION)
    return frozenset(found)


def losses(sensed: Mapping[str, float], machine: Machine, limited: frozenset[Constraint]) -> tuple[Loss, ...]:
    """Of the constraints in `limited`; where nothing is left of a quantity, its zones are not told one by one."""
    here = sources(machine)
    if here.issuperset(sensed):
        return ()
    gone = [(*name.partition("/")[::2], since_s) for name, since_s in sorted(sensed.items()) if name not in here]
    whole = {constraint for constraint, zone, _ in gone if not zone}
    return tuple(
        Loss(constraint=constraint, zone=zone, since_s=since_s)
        for constraint, zone, since_s in gone
        if constraint in limited and (not zone or constraint not in whole)
    )
