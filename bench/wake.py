"""What engine.wake = "poll" saves and costs, against "sleep": a session that only reads its input, paced requests.

    python bench/wake.py [--quick] [--json]

For 100 and 1,000 requests a second of 150 KB (a lane polls for 2 ms, so that at 100 it has gone to sleep again), the
worker on the second core:
poll_saved_us_*: p50 sleeping minus p50 polling.
poll_worker_cpu_pct_*, sleep_worker_cpu_pct_*: of one core, what the worker takes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import uvloop
from _rig import arguments, show

from engine import HERE, p, running, write_noop
from flyball.config import Engine
from flyball.engine.runner import LadderRunner
from flyball.ports import InferRequest, Tensor

SIZE = 150_528
RATES = (100, 1000)  # a second


async def paced(runner: LadderRunner, request: InferRequest, per_s: float, seconds: float) -> tuple[float, float]:
    """p50 in seconds, and the worker's share of a core."""
    active = runner._seats.active  # bench only: whose processor time it is
    if active is None:
        raise SystemExit("the ladder has no active rung")
    worker = psutil.Process(active.workers[0].pid)
    before, began = worker.cpu_times(), time.perf_counter()
    taken = []
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        await runner.infer(request)
        taken.append(time.perf_counter() - asked)
        await asyncio.sleep(max(0.0, 1 / per_s - taken[-1]))
    after, elapsed = worker.cpu_times(), time.perf_counter() - began
    return p(taken, 0.5), (after.user + after.system - before.user - before.system) / elapsed


async def measure(quick: bool) -> dict[str, float]:
    everything = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {everything[0]})
    data = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8).tobytes()
    request = InferRequest(inputs=(Tensor("x", "UINT8", (SIZE,), data),))
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root, cpus = write_noop(Path(folder)), (everything[-1],)
        async with (
            running(root, Engine(worker_cpus=cpus, wake="sleep")) as sleeping,
            running(root, Engine(worker_cpus=cpus, wake="poll")) as polling,
        ):
            runners = {"sleep": sleeping, "poll": polling}
            for per_s in RATES:
                took: dict[str, list[tuple[float, float]]] = {wake: [] for wake in runners}
                for _ in range(3 if quick else 7):
                    for wake, runner in runners.items():
                        took[wake].append(await paced(runner, request, per_s, 1.5 if quick else 5.0))
                p50_us = {wake: statistics.median(p50 for p50, _ in blocks) * 1e6 for wake, blocks in took.items()}
                share = {wake: statistics.median(part for _, part in blocks) for wake, blocks in took.items()}
                result[f"poll_saved_us_{per_s}"] = round(p50_us["sleep"] - p50_us["poll"], 1)
                for wake in runners:
                    result[f"{wake}_p50_us_{per_s}"] = round(p50_us[wake], 1)
                    result[f"{wake}_worker_cpu_pct_{per_s}"] = round(share[wake] * 100, 1)
    return result


def main() -> int:
    options = arguments(__doc__, "3 blocks of 1.5 s instead of 7 of 5 s").parse_args()
    os.environ["PYTHONPATH"] = str(HERE / "plugin")  # workers find the backend there
    sys.path.insert(0, str(HERE / "plugin"))
    show(uvloop.run(measure(options.quick)), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
