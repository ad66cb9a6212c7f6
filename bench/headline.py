"""Correct answers within the deadline per second, under the same contention: governed, and each rung held throughout.

The real daemon; pictures come at random at 20 a second; three burners for every core are there for 40 s of every 100,
as in the standard trace cpu-bursts (30 to 60 s every 90 to 150). The oracle is the best rung of every phase in
hindsight, with nothing lost between: no policy can have it. Only the three strongest rungs are held, to bound the time.
The governor has seen one burst before its run, which is not scored: a device in the field learns how its rungs fare
beside other work once, not every two minutes (--cold leaves that out). In time is by the daemon's own figure, from the
request read to the answer ready; what the sender and HTTP add is left out. Two ladders:

defects     generated pictures whose class is known, so that an answer is seen to be right or wrong; its rungs are all
            within 5.4 points of each other
mobilenets  no labelled pictures lie here: an answer in time counts as much as its rung's measured top-1 says

vs_best_static_x, vs_oracle              governed over the best rung held throughout, and over the oracle; defects
mobilenets_vs_best_static_x, ..._oracle  the same

    python bench/headline.py [--quick] [--json] [--cold] [--ladder defects|mobilenets]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from _live import GOVERNED, IMAGENET, LADDER, MOBILENETS, Asked, Plan, between, mobilenets, rig
from _rig import arguments, missing, show

from flyball.ladder.manifest import FILE_NAME

HELD = 3


def main() -> int:
    parser = arguments(__doc__, "one burst, the defects' ladder, two rungs held")
    parser.add_argument("--ladder", choices=("defects", "mobilenets"), help="only this one")
    parser.add_argument("--cold", action="store_true", help="no burst before the governor's run")
    options = parser.parse_args()
    if missing(LADDER / FILE_NAME):
        return 2
    phases = (3.0, 4.0, 3.0) if options.quick else (25.0, 40.0, 60.0, 40.0, 25.0)
    calm_s = 2.0 if options.quick else 4.0
    plan = Plan(phases_s=phases, rate_per_s=20.0, cores=os.cpu_count() or 1, calm_s=calm_s, seed=2)
    before = () if options.cold else (3.0, 4.0, 3.0) if options.quick else (10.0, 40.0, 10.0)
    first = Plan(phases_s=before, rate_per_s=20.0, cores=plan.cores, calm_s=calm_s, seed=1)
    result: dict[str, object] = {}
    if options.ladder in (None, "defects"):
        result |= compared(LADDER, first, plan, 2 if options.quick else HELD, {}, options.json)
    models = [IMAGENET / f"mobilenet_{name}_quant.tflite" for name in MOBILENETS]
    if options.ladder == "mobilenets" or (not options.quick and not options.ladder and not missing(*models)):
        with tempfile.TemporaryDirectory(prefix="flyball-mobilenets-") as place:
            worths = {f"mobilenet_{name}_quant": accuracy for name, accuracy in MOBILENETS.items()}
            found = compared(mobilenets(Path(place) / "ladder"), first, plan, HELD, worths, options.json)
            result |= {f"mobilenets_{key}": value for key, value in found.items()}
    show(result, options.json)
    return 0


def compared(
    ladder: Path, first: Plan, plan: Plan, most: int, worths: Mapping[str, float], quiet: bool
) -> dict[str, object]:
    with rig(ladder) as live:
        held = live.rungs[:most]
        found: dict[str, list[Asked]] = {}
        for policy in (GOVERNED, *held):
            if not quiet:
                print(f"{live.ladder}: {policy} ...", file=sys.stderr)
            if policy == GOVERNED and first.phases_s:
                live.run(policy, first)
            found[policy] = live.run(policy, plan)
        deadline_s = live.deadline_s
    seconds = plan.ends_s()

    def per_s(asked: Sequence[Asked]) -> float:
        return sum(_worth(a, worths) for a in asked if a.in_time(deadline_s)) / seconds

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
    sys.exit(main())
