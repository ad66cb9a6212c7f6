"""Two ladders on one accelerator: chosen together, against each for itself.

A simulated accelerator that serves one request at a time, in turn; two ladders with rungs of MobileNet's proportions,
requests at random, twenty minutes in which the rates of both change every minute. "Each for itself" is the same law
asked for one ladder at a time, as two daemons would; together it sees both. Same arrivals and same noise.

joint_latency_ratio  mean latency of all requests, together over each for itself; the mean over three deadlines, and
                     each of them. A latency within the deadline is no aim of the law, so this alone may go either way:
late_pct_*           of all requests, later than their ladder's deadline
accuracy_*           mean over the answers

    python bench/joint.py [--quick] [--json]
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from dataclasses import dataclass, field

from _rig import arguments, ended, show

from flyball.config import Governor as Rules
from flyball.governor.policy import decide
from flyball.governor.state import State
from flyball.governor.values import LadderView, Limits, Machine, Rung, Seen, View

NAMES = ("left", "right")
# Accuracy and work of one inference, after MobileNet v2 1.0, v1 0.5 and v1 0.25 (uint8) on the machine of RESULTS.md.
SIZES = ((0.719, 0.0100), (0.633, 0.0040), (0.498, 0.0016))
DEADLINES_S = (0.030, 0.060, 0.100)
SPREAD = 0.05
PERIOD_S, WINDOW = 1.0, 5
RATES = (20.0, 45.0, 90.0)


@dataclass(slots=True)
class Side:
    """One ladder: what it answers with, and what its last periods were like."""

    name: str
    active: int = 0
    latencies: list[list[float]] = field(default_factory=list)
    works: list[float] = field(default_factory=list)

    def rungs(self) -> tuple[Rung, ...]:
        return tuple(
            Rung(
                name=f"r{i}", accuracy=accuracy, accelerator="edgetpu", resident=True, work_s=work_s, spread=SPREAD,
                load_s=0.3,
            )
            for i, (accuracy, work_s) in enumerate(SIZES)
        )  # fmt: skip


def simulate(together: bool, deadline_s: float, seed: int, minutes: int) -> tuple[list[float], int, list[float]]:
    """Latencies of all requests, how many were late, and the accuracy of each answer's rung."""
    dice = random.Random(seed)
    sides = [Side(name) for name in NAMES]
    states = [State()] if together else [State(), State()]
    rules, limits = Rules(), Limits(deadline_s=deadline_s)
    free_s, took, late, accuracies = 0.0, [], 0, []
    rates = [RATES[0], RATES[0]]
    for second in range(minutes * 60):
        if second % 60 == 0:
            rates = [dice.choice(RATES) for _ in sides]
        arrivals = sorted(
            (second + offset, which) for which, rate in enumerate(rates) for offset in _offsets(dice, rate)
        )
        newest: list[list[float]] = [[] for _ in sides]
        for side in sides:
            side.works = []
        for at_s, which in arrivals:
            noise = math.exp(dice.gauss(-0.5 * SPREAD * SPREAD, SPREAD))
            accuracy, work_s = SIZES[sides[which].active]
            begin_s = max(free_s, at_s)
            free_s = begin_s + work_s * noise
            latency_s = free_s - at_s
            newest[which].append(latency_s)
            sides[which].works.append(work_s * noise)
            took.append(latency_s)
            late += latency_s > deadline_s
            accuracies.append(accuracy)
        views = [_view(side, newest[i], limits) for i, side in enumerate(sides)]
        groups = [views] if together else [[view] for view in views]
        for index, group in enumerate(groups):
            look = View(now_s=second + 1.0, wall_s=1e9 + second, machine=Machine(), ladders=tuple(group))
            decisions, states[index] = decide(look, rules, states[index])
            for decision in decisions:
                if decision.target != decision.source:
                    side = sides[NAMES.index(decision.ladder)]
                    side.active, side.latencies = int(decision.target[1:]), []
                    states[index] = states[index].moved(decision, second + 1.0, rules)
    return took, late, accuracies


def _offsets(dice: random.Random, rate: float) -> list[float]:
    found, at_s = [], dice.expovariate(rate)
    while at_s < PERIOD_S:
        found.append(at_s)
        at_s += dice.expovariate(rate)
    return found


def _view(side: Side, newest: list[float], limits: Limits) -> LadderView:
    deadline_s = limits.deadline_s or 0.0
    side.latencies = [*side.latencies, newest][-WINDOW:]
    window = sorted(latency for part in side.latencies for latency in part)
    works = side.works
    return LadderView(
        name=side.name,
        active=f"r{side.active}",
        rungs=side.rungs(),
        limits=limits,
        seen=Seen(
            arrivals_per_s=len(newest) / PERIOD_S,
            answers=len(newest),
            work_mean_s=statistics.fmean(works) if works else None,
            work_std_s=statistics.stdev(works) if len(works) > 1 else None,
            late=sum(latency > deadline_s for latency in newest) / len(newest) if newest else None,
            window_answers=len(window),
            window_late=sum(latency > deadline_s for latency in window) / len(window) if window else None,
            p50_s=statistics.median(window) if window else None,
        ),
    )


def main() -> int:
    options = arguments(__doc__, "four seeds of five minutes").parse_args()
    seeds, minutes = (range(4), 5) if options.quick else (range(20), 20)
    result: dict[str, object] = {}
    ratios = []
    for deadline_s in DEADLINES_S:
        means: dict[bool, list[float]] = {True: [], False: []}
        late: dict[bool, list[float]] = {True: [], False: []}
        right: dict[bool, list[float]] = {True: [], False: []}
        for seed in seeds:
            for together in (True, False):
                took, missed, accuracies = simulate(together, deadline_s, seed, minutes)
                means[together].append(statistics.fmean(took))
                late[together].append(100 * missed / len(took))
                right[together].append(statistics.fmean(accuracies))
        ratios.append(statistics.fmean(a / b for a, b in zip(means[True], means[False], strict=True)))
        name = f"{deadline_s * 1e3:.0f}ms"
        result[f"ratio_{name}"] = round(ratios[-1], 4)
        for together, how in ((True, "together"), (False, "each")):
            result[f"late_pct_{how}_{name}"] = round(statistics.fmean(late[together]), 3)
            result[f"accuracy_{how}_{name}"] = round(statistics.fmean(right[together]), 4)
    show({"joint_latency_ratio": round(statistics.fmean(ratios), 4), **result, "seeds": len(seeds)}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
