"""One policy on one trace.

Trace, policy -> run -> Run -> score.py, page.py

The strongest rung answers when a trace begins. The policy, a static rung too, is asked at the end of every period,
unless its last switch is still on its way: as in the daemon.

    from flyball.governor.replay import profiles, run, score, standard
    trace = standard.standard("cpu-bursts", "defects", profiles.STAND_INS["defects"], seed=3)
    governed = run.run(trace, run.policy("governor", trace, rules))
    best = run.run(trace, run.policy("oracle", trace, rules))
    print(score.score(governed, best))
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from flyball.config import Governor as Rules
from flyball.errors import ConfigError
from flyball.governor.replay import oracle
from flyball.governor.replay.baselines import Hysteresis, Path, Pid, Static, Threshold
from flyball.governor.replay.period import Period
from flyball.governor.replay.plant import Plant
from flyball.governor.replay.policies import Governed, Policy
from flyball.governor.replay.sample import Sample, draw
from flyball.governor.replay.trace import Trace
from flyball.ports import Decision

POLICIES = ("governor", "threshold", "hysteresis", "pid", "oracle")  # and static:RUNG
LOOK_EVERY = 200  # periods between two calls of `progress`
# The best of the search in bench/governor.py.
TUNED = Hysteresis(down=0.5, up=0.2, down_windows=1, up_windows=900, dwell_s=3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A switch that was asked for; `error` says why it was not made."""

    t_s: float
    source: str
    target: str
    reason: str
    binding: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`p95_s` is the window's at the end of each period, and `predicted_s` what the decision then foretold for the
    rung that it chose. `switches` also counts those that the machine itself made when an accelerator was lost;
    `decide_s` is the policy's own time in all."""

    policy: str
    trace: Trace
    periods: tuple[Period, ...]
    p95_s: tuple[float | None, ...]
    predicted_s: tuple[float | None, ...]
    changes: tuple[Change, ...]
    switches: int
    decide_s: float


def policy(name: str, trace: Trace, rules: Rules | None = None, tuned: Hysteresis = TUNED) -> Policy:
    """By name: one of POLICIES or static:RUNG. Raises ConfigError for another name."""
    rungs = [rung.name for rung in trace.header.rungs]
    if name.startswith("static:"):
        rung = name.removeprefix("static:")
        if rung not in rungs:
            raise ConfigError(f"policy {name}: no rung is called {rung!r}; there are {', '.join(rungs)}")
        return Static(rung)
    if name == "governor":
        return Governed(rules_for(trace, rules or Rules()))
    if name == "threshold":
        return Threshold()
    if name == "hysteresis":
        return Threshold(tuned)
    if name == "pid":
        return Pid()
    if name == "oracle":
        return Path(oracle.choose(trace, oracle.aim_of(rules or Rules())), trace.steps[0].t_s, trace.header.period_s)
    raise ConfigError(f"no policy is called {name!r}; there are {', '.join(POLICIES)} and static:RUNG")


def rules_for(trace: Trace, rules: Rules) -> Rules:
    """The same rules, decided once a period of the trace; a window is not shorter than that."""
    period_s = trace.header.period_s
    return msgspec.structs.replace(rules, period_s=period_s, window_s=max(rules.window_s, period_s))


def run(
    trace: Trace,
    chosen: Policy,
    name: str = "",
    sample: Sample | None = None,
    progress: Callable[[float], None] | None = None,
) -> Run:
    """`sample` spares drawing it again for every policy; `progress` is told the share done."""
    plant = Plant(trace, sample or draw(trace))
    periods: list[Period] = []
    p95s: list[float | None] = []
    predicted: list[float | None] = []
    changes: list[Change] = []
    asked: Decision | None = None
    decide_s = 0.0
    count = len(trace.steps)
    for i in range(count):
        ready_s = plant.pending.ready_s if plant.pending is not None else None
        periods.append(plant.advance(i))
        if asked is not None and plant.pending is None:
            if plant.active is not None and plant.active.name == asked.target and ready_s is not None:
                chosen.moved(asked, ready_s)
            else:
                chosen.refused(asked, "the accelerator went while it loaded", plant.now_s)
            asked = None
        view = plant.view()
        p95s.append(view.ladders[0].seen.p95_s)
        foretold = None
        if plant.pending is None:
            began = time.perf_counter()
            decision = chosen.decide(view)
            decide_s += time.perf_counter() - began
            foretold = next((c.predicted_p95_s for c in decision.candidates if c.rung == decision.target), None)
            if decision.target != decision.source:
                error = plant.switch(decision.target)
                if error:
                    chosen.refused(decision, error, plant.now_s)
                elif plant.pending is not None:
                    asked = decision
                changes.append(Change(t_s=view.now_s, source=decision.source, target=decision.target,
                                      reason=decision.reason, binding=decision.binding, error=error))  # fmt: skip
        predicted.append(foretold)
        if progress is not None and i % LOOK_EVERY == 0:
            progress(i / count)
    return Run(policy=name, trace=trace, periods=tuple(periods), p95_s=tuple(p95s), predicted_s=tuple(predicted),
               changes=tuple(changes), switches=plant.switches, decide_s=decide_s)  # fmt: skip
