"""What the engine costs: microseconds added to a bare round trip, throughput kept, and what overlapping brings.

    python bench/engine.py [--quick] [--json]

added_over_bare_us_150k, _600k: p50 of runner.infer with a session that only reads every input byte, minus p50 of a bare
round trip: two processes, shared memory, an eventfd each way, the same bytes copied in and read, the daemon's side
waiting in epoll as its event loop does, the other side blocked in its read. Same affinity on both sides (this process
on the first core, the other one on the second), alternating blocks, the median of their differences.
throughput_ratio_mobilenet: answers per second of MobileNet v2 (uint8, one thread) through the runner with four in
flight, over those of a bare session in a loop, both on the second core, alternating.
overlap_throughput_x: pictures of 640 x 480 in, labels out; four in flight over one at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import uvloop
from _rig import arguments, missing, show

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.inspect import inspect
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.events import Events
from flyball.ladder.draft import DraftRequest, draft
from flyball.ladder.manifest import FILE_NAME, load
from flyball.ports import InferRequest, Tensor
from flyball_backends.litert import LiteRtBackend

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[1] / "shared/data/models/imagenet"
MODEL = MODELS / "mobilenet_v2_1.0_224_quant.tflite"
LABELS = MODELS / "imagenet_labels.txt"
SIZES = {"150k": 150_528, "600k": 602_112}

PEER = """
import mmap, os, sys
import numpy as np
from noop_backend import digest
memory, size, ask, answer = (int(a) for a in sys.argv[1:5])
os.sched_setaffinity(0, {int(sys.argv[5])})
shared = mmap.mmap(memory, size + 4096)
data = np.frombuffer(shared, np.uint8, size)
while True:
    os.read(ask, 8)
    shared[size:size + 8] = digest(data).tobytes()
    os.write(answer, (1).to_bytes(8, "little"))
"""


class Bare:
    """The round trip without an engine."""

    def __init__(self, size: int, core: int) -> None:
        self._size = size
        fd = os.memfd_create("bare", os.MFD_CLOEXEC)
        os.ftruncate(fd, size + 4096)
        self._memory = mmap.mmap(fd, size + 4096)
        self._ask, self._answer = os.eventfd(0), os.eventfd(0, os.EFD_NONBLOCK)
        fds = (fd, self._ask, self._answer)
        arguments = [str(fd), str(size), str(self._ask), str(self._answer), str(core)]
        self._peer = subprocess.Popen([sys.executable, "-c", PEER, *arguments], pass_fds=fds, env=_environment())
        self._epoll = select.epoll()
        self._epoll.register(self._answer, select.EPOLLIN)

    def ask(self, data: bytes) -> bytes:
        self._memory[: self._size] = data
        os.write(self._ask, (1).to_bytes(8, "little"))
        self._epoll.poll()
        os.read(self._answer, 8)
        return self._memory[self._size : self._size + 8]

    def close(self) -> None:
        self._peer.kill()
        self._peer.wait()
        self._epoll.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE / "plugin")}


def write_noop(root: Path) -> Path:
    (root / "nothing").write_bytes(b"nothing")
    sha256 = hashlib.sha256(b"nothing").hexdigest()
    (root / FILE_NAME).write_text(
        'schema = 1\n[ladder]\nname = "noop"\nversion = "1"\ntask = "tensor"\n'
        '[[input]]\nname = "x"\ndatatype = "UINT8"\nshape = [-1]\n'
        '[[output]]\nname = "y"\ndatatype = "UINT8"\nshape = [8]\n'
        f'[[rung]]\nname = "noop"\nbackend = "noop"\nartifact = "nothing"\nsha256 = "{sha256}"\n'
        "canary = []\n"
    )
    return root


async def write_model(root: Path, *, pictures: bool) -> Path:
    facts = await inspect(MODEL, 60)
    (root / MODEL.name).write_bytes(MODEL.read_bytes())
    if pictures:
        labels = LABELS.read_bytes()
        (root / LABELS.name).write_bytes(labels)
        request = DraftRequest(
            name="model", version="1", task="image-classification", models=(facts,), labels=LABELS.name,
            label_count=len(labels.splitlines()),
        )  # fmt: skip
    else:
        request = DraftRequest(name="model", version="1", task="tensor", models=(facts,))
    (root / FILE_NAME).write_text(draft(request))
    return root


@asynccontextmanager
async def running(root: Path, config: Engine) -> AsyncIterator[LadderRunner]:
    runner = LadderRunner(load(root), config, Standby(0), Events(), SystemClock())
    await runner.start()
    try:
        yield runner
    finally:
        await runner.close()


def p(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


async def added(size: int, cores: tuple[int, int], blocks: int, runs: int) -> tuple[float, float, float, float]:
    """Microseconds: median of the blocks' p50 differences, p99 difference, bare p50, engine p50."""
    data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    request = InferRequest(inputs=(Tensor("x", "UINT8", (size,), data),))
    with tempfile.TemporaryDirectory() as folder:
        async with running(write_noop(Path(folder)), Engine(worker_cpus=(cores[1],))) as runner:
            bare = Bare(size, cores[1])
            try:
                if bytes((await runner.infer(request)).outputs[0].data) != bare.ask(data):
                    raise SystemExit("the two sides read different bytes")
                differences, tails, bares, engines = [], [], [], []
                for _ in range(blocks):
                    ours, theirs = [], []
                    for _ in range(runs):
                        began = time.perf_counter()
                        bare.ask(data)
                        theirs.append(time.perf_counter() - began)
                    for _ in range(runs):
                        began = time.perf_counter()
                        await runner.infer(request)
                        ours.append(time.perf_counter() - began)
                    bares.append(p(theirs, 0.5))
                    engines.append(p(ours, 0.5))
                    differences.append(engines[-1] - bares[-1])
                    tails.append(p(ours, 0.99) - p(theirs, 0.99))
            finally:
                bare.close()
    return tuple(1e6 * statistics.median(v) for v in (differences, tails, bares, engines))  # type: ignore[return-value]  # four of four


async def rate(runner: LadderRunner, request: InferRequest, in_flight: int, seconds: float) -> float:
    """Answers per second, counted from the first to the last one."""
    answers = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal answers
        while time.perf_counter() < end:
            await runner.infer(request)
            answers += 1

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(in_flight)))
    return answers / (time.perf_counter() - began)


def raw_rate(run: Callable[[], object], seconds: float) -> float:
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        run()
        runs += 1
    return runs / (time.perf_counter() - began)


async def throughput(cores: tuple[int, int], blocks: int, seconds: float) -> tuple[float, float, float]:
    backend = LiteRtBackend()
    session = backend.open(MODEL, backend.Options(threads=1))
    (given,) = session.signature.inputs
    image = np.random.default_rng(0).integers(0, 256, given.shape, dtype=np.uint8)
    request = InferRequest(inputs=(Tensor(given.name, "UINT8", image.shape, image.tobytes()),))
    with tempfile.TemporaryDirectory() as folder:
        root = await write_model(Path(folder), pictures=False)
        async with running(root, Engine(threads=1, worker_cpus=(cores[1],))) as runner:
            ratios, raws, served = [], [], []
            for _ in range(blocks):
                os.sched_setaffinity(0, {cores[1]})
                raws.append(raw_rate(lambda: session.run({given.name: image}), seconds))
                os.sched_setaffinity(0, {cores[0]})
                served.append(await rate(runner, request, 4, seconds))
                ratios.append(served[-1] / raws[-1])
    return statistics.median(ratios), statistics.median(raws), statistics.median(served)


async def overlap(blocks: int, seconds: float) -> tuple[float, float, float]:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    request = InferRequest(inputs=(Tensor("image", "UINT8", image.shape, image.tobytes()),))
    with tempfile.TemporaryDirectory() as folder:
        root = await write_model(Path(folder), pictures=True)
        async with running(root, Engine(threads=1)) as runner:
            serial, overlapped, ratios = [], [], []
            for _ in range(blocks):
                serial.append(await rate(runner, request, 1, seconds))
                overlapped.append(await rate(runner, request, 4, seconds))
                ratios.append(overlapped[-1] / serial[-1])
    return statistics.median(ratios), statistics.median(serial), statistics.median(overlapped)


async def measure(quick: bool) -> dict[str, float]:
    everything = sorted(os.sched_getaffinity(0))
    cores = (everything[0], everything[-1])
    blocks, runs = (5, 400) if quick else (15, 2000)
    result: dict[str, float] = {}
    os.sched_setaffinity(0, {cores[0]})
    for name, size in SIZES.items():
        difference, tail, bare, engine = await added(size, cores, blocks, runs)
        result[f"added_over_bare_us_{name}"] = round(difference, 1)
        result[f"added_p99_us_{name}"] = round(tail, 1)
        result[f"bare_p50_us_{name}"] = round(bare, 1)
        result[f"engine_p50_us_{name}"] = round(engine, 1)
    ratio, raw, served = await throughput(cores, 3 if quick else 7, 1.5 if quick else 4)
    result |= {
        "throughput_ratio_mobilenet": round(ratio, 4),
        "raw_per_s": round(raw, 1),
        "engine_per_s": round(served, 1),
    }
    os.sched_setaffinity(0, set(everything))
    ratio, serial, overlapped = await overlap(3 if quick else 7, 1.5 if quick else 4)
    result |= {
        "overlap_throughput_x": round(ratio, 3),
        "serial_per_s": round(serial, 1),
        "overlapped_per_s": round(overlapped, 1),
    }
    return result


def main() -> int:
    options = arguments(__doc__, "fewer and shorter blocks").parse_args()
    if missing(MODEL):
        return 1
    os.environ["PYTHONPATH"] = str(HERE / "plugin")  # workers find the backend there
    sys.path.insert(0, str(HERE / "plugin"))
    result = uvloop.run(measure(options.quick))
    show(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
