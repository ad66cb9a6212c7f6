"""What a decision was made from: the figures that went in, and how every rung looked.

Decision + View + Party -> explained -> Decision with inputs and candidates

Apart from the choice, which is due sooner; it changes nothing of it. Pure.
"""

from __future__ import annotations

import msgspec

from flyball.governor.joint import Party, judge_beside
from flyball.governor.judgement import candidate
from flyball.governor.outlook import Scene
from flyball.governor.state import State
from flyball.governor.values import LadderView, View
from flyball.ports import Decision


def explained(
    decision: Decision, view: View, ladder: LadderView, state: State, party: Party | None, around: Scene
) -> Decision:
    inputs = _inputs(view, ladder, state)
    if party is None:
        return msgspec.structs.replace(decision, inputs=inputs)
    limits = ladder.limits
    for at, one in enumerate(party.options[: party.at]):  # why not those that are better
        if one.index != party.active:
            judge_beside(party, one, around, climbs=at < party.rank)
    candidates = tuple(candidate(o, limits, around) for o in party.outlooks)
    return msgspec.structs.replace(decision, inputs=inputs, candidates=candidates)


def _inputs(view: View, ladder: LadderView, state: State) -> dict[str, float]:
    """What is known; what is not is absent."""
    seen, machine, limits, own = ladder.seen, view.machine, ladder.limits, state.ladders[ladder.name]
    figures: dict[str, float | None] = {
        "answers": float(seen.answers),
        "arrivals_per_s": own.arrivals_per_s,
        "latency_p50_s": seen.p50_s,
        "latency_p95_s": seen.p95_s,
        "work_mean_s": seen.work_mean_s,
        "late": seen.window_late,
        "contention": state.contention if machine.contention is not None else None,
        "cpu_utilization": machine.cpu_utilization,
        "memory_available_bytes": machine.memory_available_bytes,
        "temperature_c": max(machine.zones.values(), default=None),
        "power_w": machine.power_w,
        "limit_deadline_s": limits.deadline_s,
        "limit_memory_available_bytes": limits.memory_available_bytes,
        "limit_temperature_c": limits.temperature_c,
        "limit_power_w": limits.power_w,
    }
    return {name: value for name, value in figures.items() if value is not None}
