"""Correct answers within the deadline per second, under the same contention: governed, and each rung held throughout.

The real daemon; pictures come at random at 20 a second; three burners for every core are there for 40 s of every 95, as
in the standard trace cpu-bursts (30 to 60 s every 90 to 150). As there, the deadline is twice the top rung's p95 at
rest, without waits, at that pace. The policies take turns, a burst each, since the machine is not the same all day.

What counts is right answers in time, and the daemon is told so: half of them may be late (`quantile = 0.5`), and within
that the governor takes the rung with the most right answers in time. The oracle is the best rung of every phase in
hindsight, with nothing lost between: no policy that keeps to those rungs can have it. Only the three strongest are
held, to bound the time. The governor has the profile of `flyball bench` and has seen one burst before its run, which is
not scored: a device in the field learns how its rungs fare beside other work once, not every two minutes (--cold leaves
the burst out). In time is by the daemon's own figure, from the request read to the answer ready; what the sender and
HTTP add is left out. Two ladders:

mobilenets  steps of 10 points and more; no labelled pictures lie here: an answer in time counts as much as its rung's
            measured top-1 says
defects     generated pictures whose class is known, so that an answer is seen to be right or wrong; its second rung is
            half a point less accurate and four times as quick, so that little can be won over holding that

vs_best_static_x, vs_oracle              governed over the best rung held throughout, and over the oracle: mobilenets,
                                         or defects where those models are not
stolen_pct_...                           what a hypervisor kept of the processor time asked for, in the worst burst of
                                         each policy: above a few per cent the others say little; and at rest, while
                                         the deadline was measured, where one tick is 2 % of the little asked for
defects_vs_best_static_x, ..._oracle     the same of the defects

    python bench/headline.py [--quick] [--json] [--cold] [--ladder defects|mobilenets]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from _live import GOVERNED, IMAGENET, LADDER, MOBILENETS, Asked, Plan, between, mobilenets, rig, stolen_pct
from _rig import arguments, ended, missing, show

from flyball.errors import FlyballError
from flyball.ladder.manifest import FILE_NAME

HELD, ROUNDS = 3, 2
QUANTILE = 0.5


def main() -> int:
    parser = arguments(__doc__, "one short burst, one ladder, two rungs held, nothing known: says nothing")
    parser.add_argument("--ladder", choices=("defects", "mobilenets"), help="only this one")
    parser.add_argument("--cold", action="store_true", help="no burst before the governor's run")
    options = parser.parse_args()
    models = [IMAGENET / f"mobilenet_{name}_quant.tflite" for name in MOBILENETS]
    if options.ladder != "defects" and missing(*models):
        if options.ladder:
            return 2
        options.ladder = "defects"
    if options.ladder == "defects" and missing(LADDER / FILE_NAME):
        return 2
    result: dict[str, object] = {}
    if options.ladder != "defects":
        with tempfile.TemporaryDirectory(prefix="flyball-mobilenets-") as place:
            worths = {f"mobilenet_{name}_quant": accuracy for name, accuracy in MOBILENETS.items()}
            result = compared(mobilenets(Path(place) / "ladder"), worths, options)
    if options.ladder == "defects":
        result = compared(LADDER, {}, options)
    elif not options.ladder and not options.quick and not missing(LADDER / FILE_NAME):
        result |= {f"defects_{key}": value for key, value in compared(LADDER, {}, options).items()}
    show(result, options.json)
    return 0


def compared(ladder: Path, worths: Mapping[str, float], options: argparse.Namespace) -> dict[str, object]:
    quick = options.quick
    plan = Plan(
        phases_s=(2.0, 4.0, 2.0) if quick else (20.0, 40.0, 35.0),
        rate_per_s=20.0,
        cores=os.cpu_count() or 1,
        calm_s=0.5 if quick else 4.0,
        seed=2,
    )
    first = dataclasses.replace(plan, phases_s=(10.0, 40.0, 10.0), seed=1)
    rounds = 1 if quick else ROUNDS
    with rig(ladder, quick=quick, quantile=QUANTILE, waits=False) as live:
        held = live.rungs[: 2 if quick else HELD]
        found: dict[str, list[Asked]] = {policy: [] for policy in (GOVERNED, *held)}
        stolen: dict[str, list[float | None]] = {"rest": [*live.stolen_at_rest], **{policy: [] for policy in found}}
        for turn, policy in itertools.product(range(rounds), found):
            if not options.json:
                print(f"{live.ladder}: {policy} ...", file=sys.stderr)
            if policy == GOVERNED and turn == 0 and not options.cold and not quick:
                live.run(policy, first)
            asked = live.run(policy, dataclasses.replace(plan, seed=plan.seed + turn))
            found[policy] += [dataclasses.replace(a, due_s=a.due_s + turn * plan.ends_s()) for a in asked]
            stolen[policy].append(live.stolen)
        deadline_s = live.deadline_s
    whole = dataclasses.replace(plan, phases_s=plan.phases_s * rounds)
    return scores(found, held, whole, deadline_s, worths) | stolen_pct(stolen)


def scores(
    found: Mapping[str, Sequence[Asked]],
    held: Sequence[str],
    plan: Plan,
    deadline_s: float,
    worths: Mapping[str, float],
) -> dict[str, object]:
    """`found` has GOVERNED and every rung of `held`; an answer in time counts as much as `worths` says of its rung, or,
    without any, 1 if it was right. Raises FlyballError where there is nothing to compare with."""
    seconds = plan.ends_s()

    def per_s(asked: Sequence[Asked]) -> float:
        return sum(_worth(a, worths) for a in asked if a.in_time(deadline_s)) / seconds

    if not any(per_s(found[rung]) for rung in held):
        raise FlyballError(
            f"no rung that was held had a right answer within {deadline_s * 1e3:.1f} ms: nothing to compare"
        )
    best = max(held, key=lambda rung: per_s(found[rung]))
    oracle, at_s = 0.0, 0.0
    for length_s in plan.phases_s:
        oracle += max(per_s(between(found[rung], at_s, at_s + length_s)) for rung in held)
        at_s += length_s
    return {
        "vs_best_static_x": round(per_s(found[GOVERNED]) / per_s(found[best]), 4),
        "vs_oracle": round(per_s(found[GOVERNED]) / oracle, 4),
        "best_static": best,
        "governed_per_s": round(per_s(found[GOVERNED]), 3),
        "oracle_per_s": round(oracle, 3),
        "deadline_ms": round(deadline_s * 1e3, 2),
        **{f"per_s_{rung}": round(per_s(found[rung]), 3) for rung in held},
    }


def _worth(asked: Asked, worths: Mapping[str, float]) -> float:
    return worths[asked.rung] if worths else float(asked.right)


if __name__ == "__main__":
    sys.exit(ended(main))
