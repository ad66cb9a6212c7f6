"""What people ask of a trace: several policies side by side, or the same one under other limits.

trace, policies -> compare -> Compared (runs, scores); trace, wishes -> changed -> Trace

Every policy meets the same sample. Never prints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from flyball.config import Governor as Rules
from flyball.errors import ConfigError
from flyball.governor.replay.baselines import Hysteresis
from flyball.governor.replay.oracle import aim_of
from flyball.governor.replay.run import POLICIES, TUNED, Run, policy, run
from flyball.governor.replay.sample import draw
from flyball.governor.replay.score import Score, score
from flyball.governor.replay.trace import Trace
from flyball.governor.values import LARGEST, SHORTEST_S

ORACLE = "oracle"
LEAST = SHORTEST_S  # seconds, watts; a trace file takes no less either
AMBIENT_C = (-273.0, 1000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """In the order asked for. `best_static` is the static rung of the greatest worth, in hindsight; None unless all of
    them were asked for."""

    runs: tuple[Run, ...]
    scores: tuple[Score, ...]
    best_static: str | None


def everything(trace: Trace) -> list[str]:
    """Every policy that there is for this trace, the governor first."""
    return ["governor", *statics(trace), *POLICIES[1:]]


def statics(trace: Trace) -> list[str]:
    return [f"static:{rung.name}" for rung in trace.header.rungs]


def compare(
    trace: Trace,
    names: Sequence[str],
    rules: Rules | None = None,
    tuned: Hysteresis = TUNED,
    progress: Callable[[float], None] | None = None,
) -> Compared:
    """The oracle is run in any case: it is what regret is measured against. Raises ConfigError."""
    wanted = list(dict.fromkeys([*names, ORACLE]))
    chosen = {name: policy(name, trace, rules, tuned) for name in wanted}
    sample = draw(trace)
    runs: dict[str, Run] = {}
    for place, name in enumerate(wanted):

        def told(share: float, place: int = place) -> None:
            if progress is not None:
                progress((place + share) / len(wanted))

        runs[name] = run(trace, chosen[name], name, sample, told)
    scores = {name: score(runs[name], runs[ORACLE], aim_of(rules or Rules())) for name in names}
    still = statics(trace)
    best = max(still, key=lambda name: scores[name].worth) if set(still) <= set(scores) else None
    return Compared(runs=tuple(runs[name] for name in names), scores=tuple(scores[name] for name in names),
                    best_static=best)  # fmt: skip


def changed(
    trace: Trace, deadline_s: float | None = None, ambient_c: float | None = None, power_cap_w: float | None = None
) -> Trace:
    """The same requests and the same load, under another deadline, ambient or cap (None: as it was). An ambient and a
    cap hold from beginning to end. Raises ConfigError for what cannot be a limit, and would silently be none."""
    wishes = (("deadline_s", deadline_s, LEAST, LARGEST), ("ambient_c", ambient_c, *AMBIENT_C),
              ("power_cap_w", power_cap_w, LEAST, LARGEST))  # fmt: skip
    for name, value, low, high in wishes:
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{name}: expected {low:g} to {high:g}, found {value:g}")
    header, steps = trace.header, trace.steps
    if deadline_s is not None:
        header = msgspec.structs.replace(header, limits=msgspec.structs.replace(header.limits, deadline_s=deadline_s))
    if ambient_c is not None:
        steps = tuple(msgspec.structs.replace(step, ambient_c=ambient_c) for step in steps)
    if power_cap_w is not None:
        steps = tuple(msgspec.structs.replace(step, power_cap_w=power_cap_w) for step in steps)
    return Trace(header=header, steps=steps)
