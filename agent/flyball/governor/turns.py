"""Who gives way first for a limit that all ladders share.

verdicts of all ladders -> take_turns -> for memory, power, energy: as many steps as the lack asks for; the others stay

What is measured does not say whose fault it is: every ladder would step down for a breach that one of them can end. A
prediction needs none of this, the joint choice (joint.py) has it. Heat is left to every ladder: it follows too late to
be waited for. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.hysteresis import Verdict, ripe
from flyball.governor.joint import LEAST_LOSS, Party, worth
from flyball.governor.opening import under_way
from flyball.governor.state import State
from flyball.governor.values import Constraint, View

SHARED: frozenset[Constraint] = frozenset({"memory", "power", "energy"})
TURN = {"memory": 3.0, "power": 6.0, "energy": 6.0}  # periods, until what one gave can be seen: power is smoothed
SHORTEST_S = 3.0  # since sensors are not read in every short period
LONGEST_S = {"memory": 10.0, "power": 30.0, "energy": 30.0}  # that a limit waits for what another ladder gives
URGENT = 0.5  # of the memory that has to be left: with less there is no time for turns


def take_turns(
    parties: Sequence[Party | None], verdicts: list[Verdict], view: View, state: State, rules: Rules
) -> list[Verdict]:
    """The verdicts in their order, with a stay for whoever leaves a limit that is measured to break to others, that
    change their rung for it now or have just done so. Now do as many as it takes to make up for what is too much."""
    for constraint in sorted(SHARED.intersection([v.binding for v in verdicts if v.action != "stay"])):
        asked = [(p, v) for p, v in zip(parties, verdicts, strict=True) if p and _for(p, v, constraint, rules)]
        if not asked or (constraint == "memory" and _urgent(view)):
            continue
        giving = _giving(parties, view, state, constraint, rules)
        acting = {giving} if giving else _enough(asked, view, state, constraint, rules)
        held = {party.ladder.name for party, _ in asked if party.ladder.name not in acting and _may_wait(party)}
        first = giving or next(iter(acting))
        verdicts = [
            _held(v, first) if p is not None and p.ladder.name in held else v
            for p, v in zip(parties, verdicts, strict=True)
        ]
    return verdicts


def _for(party: Party, verdict: Verdict, constraint: Constraint, rules: Rules) -> bool:
    """Whether that is a change which a measured breach of this limit asks for."""
    if verdict.binding != constraint or verdict.action not in ("down", "up"):
        return False
    return any(c.constraint == constraint for c in ripe(party.own, party.seen, rules))


def _may_wait(party: Party) -> bool:
    """Not one that is predicted to break another limit, too."""
    foreseen = party.outlooks[party.active].foreseen
    return foreseen is None or foreseen in SHARED


def _giving(parties: Sequence[Party | None], view: View, state: State, constraint: Constraint, rules: Rules) -> str:
    """The ladder that has just given way for it, or is about to; "" when there is none."""
    turn_s = min(max(TURN[constraint] * rules.period_s, SHORTEST_S), LONGEST_S[constraint])
    for party in parties:
        if party is not None and party.own.stepped_for == constraint and view.now_s - party.own.since_s < turn_s:
            return party.ladder.name
    return under_way(state, view.now_s, constraint, LONGEST_S[constraint])


def _enough(
    asked: Sequence[tuple[Party, Verdict]], view: View, state: State, constraint: Constraint, rules: Rules
) -> dict[str, None]:
    """Those that free most for the accuracy it costs, until what is too much is made up for. What a rung frees of which
    it is not stated has to be seen."""
    lacking = _lacking(view, state, constraint)
    order = sorted(asked, key=lambda one: _rate(one[0], one[1], constraint, rules), reverse=True)
    found: dict[str, None] = {}
    for party, verdict in order:
        found[party.ladder.name] = None
        freed = _freed(party, verdict, constraint)
        if freed is None or freed >= lacking:
            break
        lacking -= freed
    return found


def _lacking(view: View, state: State, constraint: Constraint) -> float:
    """Bytes or watts."""
    limits = [ladder.limits for ladder in view.ladders]
    if constraint == "memory":
        return max(one.memory_available_bytes or 0.0 for one in limits) - (view.machine.memory_available_bytes or 0.0)
    caps_w = [one.power_w for one in limits if one.power_w is not None and constraint == "power"]
    caps_w += [one.energy_j_per_h / 3600.0 for one in limits if one.energy_j_per_h and constraint == "energy"]
    return (state.power_w or 0.0) - min(caps_w, default=0.0)


def _urgent(view: View) -> bool:
    available = view.machine.memory_available_bytes
    reserve = max((ladder.limits.memory_available_bytes or 0.0 for ladder in view.ladders), default=0.0)
    return available is None or available < URGENT * reserve


def _freed(party: Party, verdict: Verdict, constraint: Constraint) -> float | None:
    """Bytes or watts; None where it is not stated of both rungs."""
    here = party.outlooks[party.active]
    then = next(one for one in party.outlooks if one.rung.name == verdict.target)
    if constraint == "memory":
        before, after = here.rung.rss_bytes, then.rung.rss_bytes
    else:
        before, after = here.watts, then.watts
    return None if before is None or after is None else max(before - after, 0.0)


def _rate(party: Party, verdict: Verdict, constraint: Constraint, rules: Rules) -> float:
    """What it frees for the accuracy that it costs; 0 where that is not known, to be tried last."""
    here = party.outlooks[party.active]
    then = next(one for one in party.outlooks if one.rung.name == verdict.target)
    freed = _freed(party, verdict, constraint) or 0.0
    return freed / max(worth(here, rules.mode) - worth(then, rules.mode), LEAST_LOSS)


def _held(verdict: Verdict, giving: str) -> Verdict:
    why = verdict.reason.rpartition("; ")[0] or verdict.reason
    return msgspec.structs.replace(
        verdict, action="stay", target="", reason=f"{why}; {giving} gives way for it first", unforeseen=False,
        narrow=False,
    )  # fmt: skip
