"""The governor on this machine, with burners beside it: how soon it is back within the limit, and what it costs.

The real daemon with the ladder of examples/defects and the profile of `flyball bench`; pictures at random, 20 a second;
three burners for every core come and go. The same arrivals and burners for the governor, for the three strongest rungs
each held throughout, and so for no governor (the top rung). The deadline is twice the top rung's p95 at rest under
these arrivals, and 5 % may be late; by the daemon's own figure, from the request read to the answer ready: what the
sender and HTTP add is left out.

recovery_s                 burners come: until no more than 5 % of two seconds' requests are late; they go: until the
                           rung from before the first burst answers again; the median of each, the longer of the
                           two; 1000 s stand for never
violations_vs_best_static  the governor's share of late requests, less that of the best static rung in hindsight: the
                           most accurate one of those within the 5 %, or the least late where none is; in points
violations_vs_none         the same against the top rung held throughout
stolen_pct_...             what a hypervisor kept of the processor time asked for while each was run, and at rest

    python bench/live_governor.py [--quick] [--json]
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence

from _live import ALLOWED, GOVERNED, LADDER, Asked, Plan, between, late_share, rig, stolen_pct
from _rig import arguments, ended, missing, show

from flyball.ladder.manifest import FILE_NAME

NEVER_S = 1e3
HELD = 3  # the strongest; the others are left out to bound the time
LOOK_S = 2.0


def main() -> int:
    options = arguments(__doc__, "one burst of 5 s, two rungs held until its end, no profile").parse_args()
    if missing(LADDER / FILE_NAME):
        return 2
    cores = os.cpu_count() or 1
    phases = (2.0, 5.0, 6.0) if options.quick else (15.0, 30.0, 30.0, 30.0, 30.0)
    plan = Plan(phases_s=phases, rate_per_s=20.0, cores=cores, calm_s=1.0 if options.quick else 4.0)
    shared = dataclasses.replace(plan, phases_s=phases[:2]) if options.quick else plan  # of all policies
    with rig(quick=options.quick) as live:
        held = live.rungs[: 2 if options.quick else HELD]
        found: dict[str, list[Asked]] = {}
        stolen: dict[str, Sequence[float | None]] = {"rest": live.stolen_at_rest}
        for policy in (GOVERNED, *held):
            if not options.json:
                print(f"{policy} ...", file=sys.stderr)
            found[policy] = live.run(policy, plan if policy == GOVERNED else shared)
            stolen[policy] = [live.stolen]
        deadline_s = live.deadline_s
    show(scores(found, held, plan, deadline_s, shared.ends_s()) | stolen_pct(stolen), options.json)
    return 0


def scores(
    found: Mapping[str, Sequence[Asked]],
    held: Sequence[str],
    plan: Plan,
    deadline_s: float,
    shared_s: float = math.inf,
) -> dict[str, object]:
    """`found` has GOVERNED and every rung of `held`, the strongest first; what all of them were asked until `shared_s`
    is compared."""
    down, up = recoveries(found[GOVERNED], plan, deadline_s)
    found = {policy: between(asked, 0.0, shared_s) for policy, asked in found.items()}
    late = {policy: late_share(asked, deadline_s) for policy, asked in found.items()}
    best = next((rung for rung in held if late[rung] <= ALLOWED), min(held, key=late.__getitem__))
    governed = found[GOVERNED]
    return {
        "recovery_s": round(max(statistics.median(down), statistics.median(up)), 2),
        "recovery_down_s": round(statistics.median(down), 2),
        "recovery_up_s": round(statistics.median(up), 2),
        "violations_vs_best_static": round((late[GOVERNED] - late[best]) * 100, 2),
        "violations_vs_none": round((late[GOVERNED] - late[held[0]]) * 100, 2),
        "best_static": best,
        "deadline_ms": round(deadline_s * 1e3, 2),
        "right_pct": round(100 * sum(a.right for a in governed) / len(governed), 2),
        "right_best_static_pct": round(100 * sum(a.right for a in found[best]) / len(found[best]), 2),
        **{f"late_pct_{policy}": round(share * 100, 2) for policy, share in late.items()},
        "requests": len(governed),
    }


def recoveries(asked: Sequence[Asked], plan: Plan, deadline_s: float) -> tuple[list[float], list[float]]:
    """After every coming and every going of the burners. The rung to come back to is the one from before the first
    burst: a governor that stays below has not recovered."""
    bursts = plan.bursts()
    first_s = bursts[0][0]
    rung = next((a.rung for a in reversed(between(asked, 0.0, first_s)) if a.rung), None)
    down, up = [], []
    for index, (begin_s, end_s) in enumerate(bursts):
        down.append(_until_in_time(asked, begin_s, end_s, deadline_s))
        calm_s = bursts[index + 1][0] if index + 1 < len(bursts) else plan.ends_s()
        back = [a.due_s for a in between(asked, end_s, calm_s) if a.rung and a.rung == rung]
        up.append(back[0] - end_s if back else NEVER_S)
    return down, up


def _until_in_time(asked: Sequence[Asked], begin_s: float, end_s: float, deadline_s: float) -> float:
    for a in between(asked, begin_s, end_s - LOOK_S):
        following = between(asked, a.due_s, a.due_s + LOOK_S)
        if late_share(following, deadline_s) <= ALLOWED:
            return a.due_s - begin_s
    return NEVER_S


if __name__ == "__main__":
    sys.exit(ended(main))
