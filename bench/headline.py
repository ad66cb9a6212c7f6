"""Correct answers within the deadline per second, under the same contention: governed, and every rung held throughout.

The real daemon with the ladder of examples/defects on generated pictures whose class is known. Pictures come at random
at 20 a second, three burners for every core come and go. The oracle is the best rung of every phase in hindsight, with
nothing lost between: no policy can have it.

vs_best_static_x  governed over the best rung held throughout
vs_oracle         governed over the oracle

    python bench/headline.py [--quick] [--json]
"""

from __future__ import annotations

import os
import sys

from _live import GOVERNED, LADDER, Asked, Plan, between, correct_per_s, rig
from _rig import arguments, missing, show

from flyball.ladder.manifest import FILE_NAME


def main() -> int:
    options = arguments(__doc__, "one burst, and only two rungs held").parse_args()
    if missing(LADDER / FILE_NAME):
        return 2
    phases = (3.0, 4.0, 3.0) if options.quick else (10.0, 15.0, 15.0, 15.0, 10.0)
    plan = Plan(
        phases_s=phases, rate_per_s=20.0, cores=os.cpu_count() or 1, calm_s=2.0 if options.quick else 5.0, seed=2
    )
    with rig() as live:
        held = live.rungs[:2] if options.quick else live.rungs
        found: dict[str, list[Asked]] = {}
        for policy in (GOVERNED, *held):
            if not options.json:
                print(f"{policy} ...", file=sys.stderr)
            found[policy] = live.run(policy, plan)
        deadline_s = live.deadline_s
    seconds = plan.ends_s()
    per_s = {policy: correct_per_s(asked, deadline_s, seconds) for policy, asked in found.items()}
    best = max(held, key=per_s.__getitem__)
    oracle, at_s = 0.0, 0.0
    for length_s in plan.phases_s:
        oracle += max(correct_per_s(between(found[rung], at_s, at_s + length_s), deadline_s, seconds) for rung in held)
        at_s += length_s
    result: dict[str, object] = {
        "vs_best_static_x": round(per_s[GOVERNED] / per_s[best], 4),
        "vs_oracle": round(per_s[GOVERNED] / oracle, 4),
        "best_static": best,
        "governed_per_s": round(per_s[GOVERNED], 3),
        "oracle_per_s": round(oracle, 3),
        "deadline_ms": round(deadline_s * 1e3, 2),
        **{f"per_s_{rung}": round(per_s[rung], 3) for rung in held},
    }
    show(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
