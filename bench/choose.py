"""How long a request with a limit of its own waits for the choice of its rung: the example ladder, every rung warm.

    python bench/choose.py [--quick] [--json]

choose_us: median of a choice that looks at every warm rung and takes the quickest. Bar: 20 us.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import uvloop
from _rig import arguments, show

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.queue import DEFAULT_PRIORITY, Urgency
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.events import Events
from flyball.ladder.manifest import load
from flyball.ports import InferRequest

LADDER = Path(__file__).resolve().parents[1] / "examples/defects/ladder"


async def measure(quick: bool) -> dict[str, float]:
    runner = LadderRunner(load(LADDER), Engine(threads=1), Standby(1 << 30), Events(), SystemClock())
    runner.limit_to({"cpu"})
    await runner.start()
    await runner.settled()
    try:
        for rung in reversed([r for r in runner.folder.manifest.rung if runner._book.usable(r.name)]):
            await runner._switch.to(rung.name, "bench")  # bench only: each is opened, and the strongest is active last
        opened = runner._seats.opened()
        pace_s = sorted(o.pace.own_s for o in opened)
        limit_s = (pace_s[0] + pace_s[1]) / 2 / 0.75  # so that only the quickest will do
        request = InferRequest(inputs=(), timeout_s=limit_s)  # its tensors are not looked at
        urgency = Urgency(DEFAULT_PRIORITY, time.monotonic() + 1.0)
        taken, choices = [], set()
        for _ in range(2_000 if quick else 20_000):
            began = time.perf_counter()
            chosen = runner._requests._rung_in_time(request, urgency, limit_s)
            taken.append(time.perf_counter() - began)
            choices.add(chosen.rung.name if chosen is not None else "")
        if choices != {min(opened, key=lambda o: o.pace.own_s).rung.name}:
            raise SystemExit(f"expected the quickest rung to be chosen, found {sorted(choices)}")
    finally:
        await runner.close()
    ordered = sorted(taken)
    return {
        "choose_us": round(statistics.median(taken) * 1e6, 2),
        "choose_p99_us": round(ordered[int(len(ordered) * 0.99)] * 1e6, 2),
        "warm_rungs": len(opened),
    }


def main() -> int:
    options = arguments(__doc__, "2,000 choices instead of 20,000").parse_args()
    show(uvloop.run(measure(options.quick)), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
