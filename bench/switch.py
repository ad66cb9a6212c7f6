"""What clients notice of a switch: the worst answer among 100 switches, against a run without any.

    python bench/switch.py [--quick] [--json]

One client asks every 10 ms (open loop: it does not wait for the answers) while the ladder goes to and fro between
MobileNet v1 0.25 128 and MobileNet v2 1.0 224, LiteRT, one thread.
worst_over_p99_ms: the worst answer with 100 switches, minus the p99 of an equal run without, minus one inference of the
slower rung; the best of three rounds. quiet_max_over_p99_ms is the quiet run's own worst, minus its p99. cold_*: the
same with no memory for a standby, so that every switch starts a process. naive_*: close, then open, as a server does
that has one model loaded at a time.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
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
from flyball.ladder.manifest import FILE_NAME, LadderFolder, load
from flyball.ports import InferRequest, Tensor

MODELS = Path(__file__).resolve().parents[2] / "shared/data/models/imagenet"
STRONG, WEAK = MODELS / "mobilenet_v2_1.0_224_quant.tflite", MODELS / "mobilenet_v1_0.25_128_quant.tflite"
LABELS = MODELS / "imagenet_labels.txt"
PERIOD_S = 0.01
IMAGE = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
REQUEST = InferRequest(inputs=(Tensor("image", "UINT8", IMAGE.shape, IMAGE.tobytes()),))


async def ladder(root: Path) -> LadderFolder:
    facts = tuple([await inspect(model, 60) for model in (STRONG, WEAK)])
    for file in (STRONG, WEAK, LABELS):
        (root / file.name).write_bytes(file.read_bytes())
    labels = len(LABELS.read_text().splitlines())
    request = DraftRequest(
        name="switching", version="1", task="image-classification", models=facts, labels=LABELS.name, label_count=labels
    )
    (root / FILE_NAME).write_text(draft(request))
    return load(root)


class Traffic:
    """Asks every PERIOD_S and keeps how long each answer took and what failed."""

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        self._ask = ask
        self.latencies_ms: list[float] = []
        self.failures: list[str] = []

    async def during(self, work: Awaitable[None]) -> None:
        asked: set[asyncio.Task[None]] = set()
        job = asyncio.ensure_future(work)
        next_s = time.perf_counter()
        while not job.done():
            task = asyncio.create_task(self._one())
            asked.add(task)
            task.add_done_callback(asked.discard)
            next_s += PERIOD_S
            await asyncio.sleep(max(0.0, next_s - time.perf_counter()))
        await job
        await asyncio.gather(*asked)

    async def _one(self) -> None:
        began = time.perf_counter()
        try:
            await self._ask()
        except FlyballError as error:
            self.failures.append(str(error))
        else:
            self.latencies_ms.append((time.perf_counter() - began) * 1e3)

    def p99(self) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[int(0.99 * (len(ordered) - 1))]


async def switching(
    folder: LadderFolder, standby_mib: int, switches: int, pause_s: float
) -> tuple[Traffic, Traffic, float]:
    """A run with switches, an equal one without, and the slower rung's inference in ms."""
    runner = LadderRunner(
        folder, Engine(threads=1, queue_limit=1000), Standby(standby_mib << 20), Events(), SystemClock()
    )
    await runner.start()
    await runner.settled()
    names = [r.name for r in folder.manifest.rung]

    async def to_and_fro() -> None:
        for number in range(switches):
            await runner.switch(names[(number + 1) % 2], "bench")
            await asyncio.sleep(pause_s)

    try:
        for name in reversed(names):  # both are known, and open where memory is kept for them
            await runner.switch(name, "bench")
        alone = [(await runner.infer(REQUEST)).timing.total_s * 1e3 for _ in range(30)]
        busy = Traffic(lambda: runner.infer(REQUEST))
        began = time.perf_counter()
        await busy.during(to_and_fro())
        lasted_s = time.perf_counter() - began
        quiet = Traffic(lambda: runner.infer(REQUEST))
        await quiet.during(asyncio.sleep(lasted_s))
    finally:
        await runner.close()
    return busy, quiet, statistics.median(alone)


async def naive(folder: LadderFolder, switches: int, pause_s: float) -> Traffic:
    """One model at a time: requests that come in between wait for the next one."""
    names = [r.name for r in folder.manifest.rung]
    current: list[LadderRunner] = []
    opened = asyncio.Event()

    async def open_one(name: str) -> None:
        runner = LadderRunner(folder, Engine(threads=1, queue_limit=1000), Standby(0), Events(), SystemClock())
        await runner.start(name)
        current[:] = [runner]
        opened.set()

    async def ask() -> None:
        await opened.wait()
        await current[0].infer(REQUEST)

    async def to_and_fro() -> None:
        for number in range(switches):
            await asyncio.sleep(pause_s)
            opened.clear()
            await current[0].close()
            await open_one(names[(number + 1) % 2])

    await open_one(names[0])
    traffic = Traffic(ask)
    try:
        await traffic.during(to_and_fro())
    finally:
        await current[0].close()
    return traffic


async def measure(quick: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as root:
        folder = await ladder(Path(root))
        rounds = []
        failures = 0
        for _ in range(1 if quick else 3):
            busy, quiet, slower_ms = await switching(folder, 1024, 100, 0.05)
            failures += len(busy.failures) + len(quiet.failures)
            rounds.append(
                (
                    max(busy.latencies_ms) - quiet.p99() - slower_ms,
                    max(quiet.latencies_ms) - quiet.p99(),
                    busy,
                    slower_ms,
                )
            )
        best = min(rounds, key=lambda r: r[0])
        busy, quiet, slower_ms = await switching(folder, 0, 4 if quick else 20, 0.3)
        failures += len(busy.failures) + len(quiet.failures)
        slow = await naive(folder, 3 if quick else 20, 0.3)
    return {
        "worst_over_p99_ms": round(best[0], 2),
        "quiet_max_over_p99_ms": round(best[1], 2),
        "worst_ms": round(max(best[2].latencies_ms), 2),
        "p99_ms": round(best[2].p99(), 2),
        "slower_inference_ms": round(best[3], 2),
        "switches": 100 * len(rounds),
        "requests": sum(len(r[2].latencies_ms) for r in rounds),
        "failures": failures,
        "cold_worst_over_p99_ms": round(max(busy.latencies_ms) - quiet.p99() - slower_ms, 2),
        "naive_worst_ms": round(max(slow.latencies_ms), 2),
        "naive_failures": len(slow.failures),
    }


def main() -> int:
    options = arguments(__doc__, "one round, fewer cold and naive switches").parse_args()
    if missing(STRONG):
        return 1
    result = uvloop.run(measure(options.quick))
    show(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
