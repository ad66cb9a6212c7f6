"""What batching brings, and whether mixed deadlines hold with it.

    python bench/batch.py [--quick] [--json]

ResNet-8 (CIFAR-10, fp32, ONNX Runtime, one thread; 12 KB inputs) with `batch = 8` and without.
batch_throughput_x: answers per second with 32 requests in flight, batched over unbatched, alternating blocks.
met_pct: open-loop Poisson arrivals at 40 % of the unbatched capacity, every third request with a limit of 2, 10 and
50 ms: the share answered within its own limit; a refusal is not met. met_2ms_pct, met_10ms_pct, met_50ms_pct: of each.
delayed_met_*: the same with `batch_delay_ms = 5`, which is longer than the shortest limit: nobody may be late for it.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import uvloop
from _rig import arguments, missing, show

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.inspect import inspect
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.errors import FlyballError
from flyball.events import Events
from flyball.ladder.draft import DraftRequest, draft
from flyball.ladder.manifest import FILE_NAME, load
from flyball.ports import InferRequest, Tensor

MODEL = Path(__file__).resolve().parents[2] / "shared/data/models/onnx_derived/resnet8_cifar10_fp32.onnx"
LIMITS_MS = (2, 10, 50)
SHARE_OF_CAPACITY = 0.4
DELAY_MS = 5


async def opened(root: Path, batch: int, delay_ms: int = 0) -> LadderRunner:
    facts = await inspect(MODEL, 60)
    (root / MODEL.name).write_bytes(MODEL.read_bytes())
    text = draft(DraftRequest(name=f"batch{batch}", version="1", task="tensor", models=(facts,)))
    keys = f"batch = {batch}\nbatch_delay_ms = {delay_ms}\n"
    (root / FILE_NAME).write_text(text.replace("[[rung]]\n", f"[[rung]]\n{keys}"))
    runner = LadderRunner(load(root), Engine(threads=1), Standby(0), Events(), SystemClock())
    await runner.start()
    return runner


async def rate(runner: LadderRunner, request: InferRequest, in_flight: int, seconds: float) -> float:
    answers, end = 0, time.perf_counter() + seconds

    async def client() -> None:
        nonlocal answers
        while time.perf_counter() < end:
            await runner.infer(request)
            answers += 1

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(in_flight)))
    return answers / (time.perf_counter() - began)


async def deadlines(runner: LadderRunner, tensor: Tensor, per_s: float, seconds: float) -> dict[str, float]:
    chance = random.Random(1)
    asked: Counter[int] = Counter()
    met: Counter[int] = Counter()
    tasks: set[asyncio.Task[None]] = set()

    async def one(limit_ms: int, due_s: float) -> None:
        asked[limit_ms] += 1
        left_s = limit_ms / 1e3 - (time.perf_counter() - due_s)  # lateness of this generator counts against the limit
        try:
            await runner.infer(InferRequest(inputs=(tensor,), timeout_s=max(left_s, 1e-6)))
        except FlyballError:
            return
        met[limit_ms] += time.perf_counter() - due_s <= limit_ms / 1e3

    began = due_s = time.perf_counter()
    number = 0
    while due_s - began < seconds:
        due_s += chance.expovariate(per_s)
        while (wait_s := due_s - time.perf_counter()) > 0:  # noqa: ASYNC110 - a clock is waited for, not an event
            await asyncio.sleep(
                max(0.0, wait_s - 0.002)
            )  # the loop's timers count whole milliseconds: the rest is spun
        task = asyncio.create_task(one(LIMITS_MS[number % len(LIMITS_MS)], due_s))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)
    shares = {f"met_{limit}ms_pct": round(100 * met[limit] / asked[limit], 3) for limit in LIMITS_MS}
    return {"met_pct": round(100 * met.total() / asked.total(), 3), **shares, "asked": asked.total()}


async def measure(quick: bool) -> dict[str, float]:
    image = np.random.default_rng(0).uniform(0, 1, (1, 32, 32, 3)).astype(np.float32)
    blocks, seconds = (3, 1.0) if quick else (9, 3.0)
    async with AsyncExitStack() as stack:
        runners = {}
        for batch in (1, 8):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            runners[batch] = await opened(Path(folder), batch)
            stack.push_async_callback(runners[batch].close)
        (given,) = runners[1].interface.inputs
        tensor = Tensor(given.name, "FP32", image.shape, image.tobytes())
        request = InferRequest(inputs=(tensor,))
        rates: dict[int, list[float]] = {1: [], 8: []}
        for _ in range(blocks):
            for batch, runner in runners.items():
                rates[batch].append(await rate(runner, request, 32, seconds))
        capacity = statistics.median(rates[1])
        per_s, mixed_s = SHARE_OF_CAPACITY * capacity, 5 if quick else 30
        held = await deadlines(runners[8], tensor, per_s, mixed_s)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        delayed = await opened(Path(folder), 8, DELAY_MS)
        stack.push_async_callback(delayed.close)
        waited = await deadlines(delayed, tensor, per_s, mixed_s)
    return {
        "batch_throughput_x": round(statistics.median(rates[8]) / capacity, 3),
        "unbatched_per_s": round(capacity, 1),
        "batched_per_s": round(statistics.median(rates[8]), 1),
        **held,
        **{f"delayed_{key}": value for key, value in waited.items()},
    }


def main() -> int:
    options = arguments(__doc__, "fewer and shorter blocks").parse_args()
    if missing(MODEL):
        return 1
    result = uvloop.run(measure(options.quick))
    show(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
