"""How few late answers can be had for how much accuracy, with every rate and load of a trace known beforehand.

    python bench/frontier.py [--quick] [--json] [--trace LADDER/TRACE ...] [--workers N]

For each price of a late answer, in accuracy, the rungs that make accuracy less that price as large as can be, period
by period, switch costs paid. What is late at a rate and load is known to half a point (replay/misses.py); the chance
of single requests is not foreseen, nor can a law foresee it. The simulated machine then runs these paths. Their upper
edge, mixtures included, is what can be had at about those prices: a law that sees only the past does not come far
above it. (With the very requests foreseen one could.) Where bench/governor.py asks for two things that lie well above
the edge together, one of the two cannot be had.

least_loss_pct        the accuracy that has to be given up, in percent of the oracle's, to be late in no more than a
                      point above threshold + hysteresis: the most of the traces, means over seeds, on the edge; null
                      where no path is late so seldom
least_loss_worst      which trace that is
seeds                 how many, from 100 on

--quick: 2 seeds of one trace. The default traces are the MobileNets' and the defects' arrival-bursts and cpu-bursts.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import cast

from _rig import arguments, ended, show, within

from flyball.errors import ConfigError, FlyballError
from flyball.governor.replay import oracle, standard
from flyball.governor.replay.baselines import Path, Threshold
from flyball.governor.replay.policies import Policy
from flyball.governor.replay.run import TUNED, policy, run
from flyball.governor.replay.sample import draw
from flyball.governor.replay.score import score
from governor import LADDERS, POINT, SEEDS, rungs

PRICES = (0.0, 0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0)
TRACES = tuple(
    f"{ladder}/{trace}" for ladder in ("mobilenets", "defects") for trace in ("arrival-bursts", "cpu-bursts")
)
QUICK_SEEDS = SEEDS[:2]

Point = tuple[float, float]  # share of late and refused requests, mean accuracy of the answers


def points_of(job: tuple[str, int]) -> list[Point]:
    """Of the oracle, of threshold + hysteresis, and of every price; in a process of the pool."""
    name, seed = job
    ladder, _, kind = name.partition("/")
    trace = standard.standard(kind, ladder, rungs(ladder), seed)
    start_s, period_s, sample = trace.steps[0].t_s, trace.header.period_s, draw(trace)
    ways = [oracle.choose(trace, oracle.Aim(late_price=price)) for price in PRICES]
    chosen: list[Policy] = [policy("oracle", trace), Threshold(TUNED)]
    chosen += [Path(way, start_s, period_s) for way in ways]
    scores = [score(run(trace, each, sample=sample)) for each in chosen]
    found = [(each.violations, each.accuracy) for each in scores]
    if any(late is None or accuracy is None for late, accuracy in found):
        raise FlyballError(f"{name}, seed {seed}: nothing was asked, or nothing answered")
    return cast("list[Point]", found)


def edge(points: Sequence[Point], late: float) -> float | None:
    """The most accuracy that a mixture of two points has with no more late than that; None where all are later."""
    best = max((accuracy for share, accuracy in points if share <= late), default=None)
    if best is None:
        return None
    for near, low in points:
        for far, high in points:
            if near <= late < far:
                best = max(best, low + (high - low) * (late - near) / (far - near))
    return best


def loss_pct(points: Sequence[Point]) -> float | None:
    """`points` are means over seeds, in the order of `points_of`."""
    best = edge([points[0], *points[2:]], points[1][0] + POINT)
    return None if best is None else max(0.0, (1.0 - best / points[0][1]) * 100.0)


def main() -> int:
    parser = arguments(__doc__, "2 seeds of one trace")
    parser.add_argument("--trace", action="append", metavar="LADDER/TRACE", help="repeatable")
    parser.add_argument("--workers", type=within(1, 64, whole=True), default=2, help="processes (default: 2)")
    options = parser.parse_args()
    names = options.trace or (TRACES[:1] if options.quick else TRACES)
    for name in names:
        ladder, _, kind = name.partition("/")
        if ladder not in LADDERS or kind not in standard.NAMES:
            raise ConfigError(
                f"--trace {name}: expected {' or '.join(LADDERS)}, a slash and one of {', '.join(standard.NAMES)}"
            )
    seeds = QUICK_SEEDS if options.quick else SEEDS
    jobs = [(name, seed) for name in names for seed in seeds]
    losses: dict[str, float | None] = {}
    with ProcessPoolExecutor(options.workers) as pool:
        rows = list(pool.map(points_of, jobs))
    for name in names:
        own = [row for job, row in zip(jobs, rows, strict=True) if job[0] == name]
        points = [(statistics.fmean(p[0] for p in each), statistics.fmean(p[1] for p in each))
                  for each in zip(*own, strict=True)]  # fmt: skip
        losses[name] = loss_pct(points)
        if not options.json:
            print(f"\n{name}\n{'price':>22}{'late %':>10}{'accuracy %':>12}")
            for label, (late, accuracy) in zip(("oracle", "threshold+hysteresis", *PRICES), points, strict=True):
                print(f"{label:>22}{late * 100:>10.2f}{accuracy * 100:>12.2f}")
    ranks = {name: math.inf if loss is None else loss for name, loss in losses.items()}
    worst = max(ranks, key=lambda name: ranks[name])
    most = losses[worst]
    found = {"least_loss_pct": None if most is None else round(most, 2), "least_loss_worst": worst,
             "seeds": len(seeds)}  # fmt: skip
    show(found, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
