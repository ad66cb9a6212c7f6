"""The best that can be had with the whole trace known: a rung for every period, switch costs paid.

Trace -> worth of every (period, rung) -> dynamic programming -> Path (baselines.py) for the plant

The worth of a period is the governor's own aim: the accuracy of its requests where at most 1 - quantile of them are
missed (in the long run: misses.py; the chance of single requests is not foreseen) and every limit holds, else less by
so much as it is broken. Temperature is too high as in the governor's law: when within the horizon it would come nearer
to the limit than the margin. Heat depends on the way: each cell carries the temperature of the best way to it, so that
with heat the choice is very good, and without it the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flyball.config import Governor as Rules
from flyball.governor.replay import plant
from flyball.governor.replay.misses import missed
from flyball.governor.replay.trace import Model, Step, Trace

LATE = 20.0  # accuracy that one missed request too many costs: more than any rung can make good
BROKEN = 5.0  # the same for a hard limit that is broken, and as much again for each tenth of it
RATE_PERIODS = 5  # to either side, where the trace does not say its rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What the rules say of heat. `late_price`: accuracy that every missed request costs, in place of those beyond
    1 - quantile only; the paths for a row of prices are the frontier of missed requests and accuracy."""

    margin_c: float = Rules().temperature_margin_c
    horizon_s: float = Rules().horizon_s
    late_price: float | None = None


def aim_of(rules: Rules) -> Aim:
    return Aim(margin_c=rules.temperature_margin_c, horizon_s=rules.horizon_s)


AIM = Aim()


def choose(trace: Trace, aim: Aim = AIM) -> list[str]:
    """The rung for each period."""
    rungs, steps = trace.header.rungs, trace.steps
    rates = rates_of(trace)
    values = [worths(trace, i, rates[i], aim) for i in range(len(steps))]
    warm_c = steps[0].ambient_c + trace.header.board.idle_rise_c
    best = [-math.inf if j else 0.0 for j in range(len(rungs))]  # every policy begins on the strongest
    temps = [warm_c] * len(rungs)
    came: list[list[int]] = []
    for i, step in enumerate(steps):
        costs = [_costs(trace, i, rates[i], values[i], j) for j in range(len(rungs))] if i else None
        after, heated, row = [], [], []
        for j, rung in enumerate(rungs):
            k, value = j, best[j]
            if costs is not None:
                for other in range(len(rungs)):
                    if other != j and best[other] - costs[j] > value:
                        k, value = other, best[other] - costs[j]
            settles_c = settled_c(trace, step, rung, rates[i])
            after.append(value + values[i][j] - _too_hot(trace, settles_c, temps[k], aim) * step.arrivals)
            share = 1.0 - math.exp(-trace.header.period_s / trace.header.board.tau_s)
            heated.append(temps[k] + (settles_c - temps[k]) * share)
            row.append(k)
        best, temps = after, heated
        came.append(row)
    j = max(range(len(rungs)), key=best.__getitem__)
    path = []
    for row in reversed(came):
        path.append(rungs[j].name)
        j = row[j]
    return path[::-1]


def worth(trace: Trace, path: Sequence[str | None], aim: Aim = AIM) -> float:
    """Of a row of rungs (None: none answers), for each request: what `choose` makes as large as it can."""
    names = [rung.name for rung in trace.header.rungs]
    rates = rates_of(trace)
    board = trace.header.board
    temp_c = trace.steps[0].ambient_c + board.idle_rise_c
    share = 1.0 - math.exp(-trace.header.period_s / board.tau_s)
    total, requests, before = 0.0, 0, names[0]
    for i, step in enumerate(trace.steps):
        requests += step.arrivals
        now = path[i]
        if now is None:
            total -= LATE * step.arrivals
            continue
        j = names.index(now)
        values = worths(trace, i, rates[i], aim)
        settles_c = settled_c(trace, step, trace.header.rungs[j], rates[i])
        total += values[j] - _too_hot(trace, settles_c, temp_c, aim) * step.arrivals
        total -= _costs(trace, i, rates[i], values, j) if now != before else 0.0
        temp_c += (settles_c - temp_c) * share
        before = now
    return total / max(requests, 1)


def rates_of(trace: Trace) -> list[float]:
    """Requests a second: what the trace says, else the mean of some periods about each."""
    steps, period_s = trace.steps, trace.header.period_s
    found = []
    for i, step in enumerate(steps):
        if step.rate_per_s is not None:
            found.append(step.rate_per_s)
        else:
            near = steps[max(0, i - RATE_PERIODS) : i + RATE_PERIODS + 1]
            found.append(sum(s.arrivals for s in near) / len(near) / period_s)
    return found


def worths(trace: Trace, i: int, rate_per_s: float, aim: Aim = AIM) -> list[float]:
    """Of every rung in period i, without heat and switching."""
    step, header = trace.steps[i], trace.header
    found = []
    for rung in header.rungs:
        if rung.accelerator in step.lost:
            found.append(-2.0 * LATE * step.arrivals)
            continue
        value = rung.accuracy
        free = header.board.memory_bytes - step.memory_taken_bytes - rung.rss_bytes
        reserve = header.limits.memory_available_bytes
        short = free < plant.RECLAIM_SHARE * (reserve or plant.RESERVE_BYTES)
        if header.limits.deadline_s is not None:
            slower = plant.RECLAIM_SLOWS if short else 1.0
            share = missed(rung, step.contention, rate_per_s, header.limits.deadline_s, slower)
            if aim.late_price is None:
                value -= LATE * max(0.0, share - (1.0 - header.limits.quantile))
            else:
                value -= aim.late_price * share
        if reserve is not None and free < reserve:
            value -= _broken((reserve - free) / reserve)
        cap_w = step.power_cap_w if step.power_cap_w is not None else header.limits.power_w
        if cap_w is not None:
            over_w = power_w(trace, step, rung, rate_per_s) - cap_w
            value -= _broken(over_w / cap_w) if over_w > 0.0 else 0.0
        if header.limits.accuracy is not None and rung.accuracy < header.limits.accuracy:
            value -= _broken(header.limits.accuracy - rung.accuracy)
        found.append(value * step.arrivals)
    return found


def power_w(trace: Trace, step: Step, rung: Model, rate_per_s: float) -> float:
    """The machine's mean, as the plant has it."""
    board = trace.header.board
    room_w = board.busy_w - board.idle_w
    answered_per_s = min(rate_per_s, 1.0 / (rung.work_s * rung.slowed(step.contention)[0]))
    own_w = answered_per_s * rung.joules
    return board.idle_w + own_w + min(room_w * min(1.0, step.contention), max(room_w - own_w, 0.0))


def settled_c(trace: Trace, step: Step, rung: Model, rate_per_s: float) -> float:
    """Where the temperature would go if this period lasted."""
    board = trace.header.board
    over_idle_w = power_w(trace, step, rung, rate_per_s) - board.idle_w
    return step.ambient_c + board.idle_rise_c + board.r_kw * over_idle_w


def _too_hot(trace: Trace, settles_c: float, temp_c: float, aim: Aim) -> float:
    limit_c = trace.header.limits.temperature_c
    if limit_c is None:
        return 0.0
    most_c = limit_c - aim.margin_c
    horizon_c = settles_c + (temp_c - settles_c) * math.exp(-aim.horizon_s / trace.header.board.tau_s)
    return _broken((horizon_c - most_c) / max(abs(limit_c), 1.0)) if horizon_c > most_c else 0.0


def _broken(share: float) -> float:
    return BROKEN * (1.0 + 10.0 * share)


def _costs(trace: Trace, i: int, rate_per_s: float, values: Sequence[float], j: int) -> float:
    """Of coming to rung j in period i: while it loads, the old one answers, slower; the miss of one request is what an
    opened rung costs (20 ms), and of each that comes while one loads the share that is as much slower."""
    rung, step = trace.header.rungs[j], trace.steps[i]
    load_s = rung.load_s * rung.slowed(step.contention)[0]
    return (rate_per_s * load_s * (plant.LOADING_SLOWS - 1.0) + 0.05 * min(rate_per_s, 1.0)) * rung.accuracy
