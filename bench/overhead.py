"""What the runner adds to a model run: p50 of runner.infer minus p50 of a direct session.run.

Both run the same artifact with one intra-op thread, in alternating blocks of one process run, so that what the machine
does meanwhile hits both. The direct session lives in this process; the runner's in a worker, as always.

    python bench/overhead.py [--quick] [--json]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop
from _rig import arguments, missing

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.inspect import inspect
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.events import Events
from flyball.ladder.draft import DraftRequest, draft
from flyball.ladder.manifest import FILE_NAME, load
from flyball.ports import InferRequest, Tensor
from flyball_backends.contract import Session
from flyball_backends.litert import LiteRtBackend

DATA = Path(__file__).resolve().parents[2] / "shared/data/models/imagenet"
MODEL = DATA / "mobilenet_v1_0.25_224_quant.tflite"  # input uint8 1x224x224x3: 150,528 bytes


def direct(session: Session, tensors: dict[str, np.ndarray], runs: int) -> list[float]:
    spans = []
    for _ in range(runs):
        started_s = time.perf_counter()
        session.run(tensors)
        spans.append(time.perf_counter() - started_s)
    return spans


async def through_runner(runner: LadderRunner, request: InferRequest, runs: int) -> list[float]:
    spans = []
    for _ in range(runs):
        started_s = time.perf_counter()
        await runner.infer(request)
        spans.append(time.perf_counter() - started_s)
    return spans


async def measure(root: Path, blocks: int, runs: int) -> dict[str, float]:
    facts = await inspect(MODEL, 60)
    (root / MODEL.name).write_bytes(MODEL.read_bytes())
    manifest = draft(DraftRequest(name="overhead", version="1", task="tensor", models=(facts,)))
    (root / FILE_NAME).write_text(manifest)
    backend = LiteRtBackend()
    session = backend.open(MODEL, backend.Options(threads=1))
    (given,) = session.signature.inputs
    image = np.random.default_rng(0).integers(0, 256, given.shape, dtype=np.uint8)
    tensors = {given.name: image}
    request = InferRequest(inputs=(Tensor(given.name, "UINT8", image.shape, image.tobytes()),))
    runner = LadderRunner(load(root), Engine(threads=1), Standby(0), Events(), SystemClock())
    await runner.start()
    try:
        answer = (await runner.infer(request)).outputs[0]
        (expected,) = session.run(tensors).values()
        if bytes(answer.data) != expected.tobytes():
            raise SystemExit("the runner's answer differs from the direct one")
        raw, served = [], []
        for _ in range(blocks):
            raw.append(statistics.median(direct(session, tensors, runs)))
            served.append(statistics.median(await through_runner(runner, request, runs)))
    finally:
        await runner.close()
    added = [(s - r) * 1e6 for r, s in zip(raw, served, strict=True)]
    return {
        "overhead_p50_us": round(statistics.median(added), 1),
        "overhead_block_min_us": round(min(added), 1),
        "overhead_block_max_us": round(max(added), 1),
        "raw_p50_us": round(statistics.median(raw) * 1e6, 1),
        "runner_p50_us": round(statistics.median(served) * 1e6, 1),
        "input_bytes": image.nbytes,
    }


def main() -> int:
    options = arguments(__doc__, "fewer and shorter blocks").parse_args()
    if missing(MODEL):
        return 1
    blocks, runs = (7, 200) if options.quick else (25, 400)
    with tempfile.TemporaryDirectory() as folder:
        uvloop.install()
        result = asyncio.run(measure(Path(folder), blocks, runs))
    if not options.json:
        print(
            f"direct session.run p50 {result['raw_p50_us']:.0f} us, through the runner {result['runner_p50_us']:.0f} us"
        )
        print(f"added by the runner: {result['overhead_p50_us']:.0f} us (median of {blocks} blocks of {runs})")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
