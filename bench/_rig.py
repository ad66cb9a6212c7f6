"""What the benchmarks of one model share: a ladder made from its file, a running LadderRunner, and closed-loop load.

By itself it measures what this machine gives them to work with, model by model, through the runner (a session with one
thread in its worker): <model>_p50_us is the median latency with one request in flight, <model>_per_s the answers per
second with eight in flight.

    python bench/rig.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvloop

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.inspect import inspect
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.errors import FlyballError
from flyball.events import Events
from flyball.ladder.draft import DraftRequest, draft
from flyball.ladder.manifest import FILE_NAME, LadderFolder, load
from flyball.ports import InferRequest, Interface, Tensor

IMAGENET = Path(__file__).resolve().parents[2] / "shared/data/models/imagenet"
SMALL = IMAGENET / "mobilenet_v1_0.25_128_quant.tflite"
LARGE = IMAGENET / "mobilenet_v2_1.0_224_quant.tflite"
MODELS = {"v1_025_128": SMALL, "v2_10_224": LARGE}
IN_FLIGHT = 8
INSPECT_S = 60.0


def arguments(doc: str | None, quick: str) -> argparse.ArgumentParser:
    """What every script understands."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", action="store_true", help="print nothing but the result")
    return parser


def ended(main: Callable[[], int]) -> int:
    """The exit code of a script. What went wrong stands in one line on stderr. SIGTERM ends it as Ctrl-C does, so that
    whatever it started (daemon, burners, pool) is taken down on the way out."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return main()
    except (FlyballError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: no result", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def replace(file: Path, content: bytes) -> None:
    """As a whole or not at all: on a full disk, what was there stays. Raises OSError."""
    beside = file.with_name(file.name + ".new")
    try:
        beside.write_bytes(content)
        os.replace(beside, file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def within(low: float, high: float, whole: bool = False) -> Callable[[str], float]:
    """A type for an argument: a number from `low` to `high`."""
    what = "a whole number" if whole else "a number"

    def number(text: str) -> float:
        try:
            value: float = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {what} from {low:g} to {high:g}, found {text!r}")
        return value

    return number


def show(result: Mapping[str, object], json_only: bool) -> None:
    """A line for each figure, for people; the last line is one flat JSON object."""
    if not json_only:
        for key, value in result.items():
            print(f"{key:<32} {value}")
    print(json.dumps({key: value for key, value in result.items() if not isinstance(value, dict)}))


def missing(*models: Path) -> bool:
    """Says so on stderr when a model is not on this machine."""
    absent = [str(model) for model in models if not model.is_file()]
    if absent:
        print(f"the real models are not on this machine: {', '.join(absent)} missing", file=sys.stderr)
    return bool(absent)


async def ladder_of(model: Path, root: Path) -> LadderFolder:
    """A ladder with one rung, of the task `tensor`: what goes in is what the model's own input takes."""
    manifest = draft(DraftRequest(name="bench", version="1", task="tensor", models=(await inspect(model, INSPECT_S),)))
    (root / FILE_NAME).write_text(manifest)
    shutil.copyfile(model, root / model.name)
    return load(root)


@asynccontextmanager
async def running(model: Path, config: Engine) -> AsyncIterator[LadderRunner]:
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as folder:
        ladder = await ladder_of(model, Path(folder))
        runner = LadderRunner(ladder, config, Standby(0), Events(), SystemClock())
        await runner.start()
        gc.collect()
        gc.freeze()  # as the daemon does once it is ready
        try:
            yield runner
        finally:
            await runner.close()


def images(interface: Interface, count: int, seed: int = 0) -> list[Tensor]:
    """Random bytes in the shape of the one uint8 input: what a picture shows does not change what it costs."""
    (given,) = interface.inputs
    if given.datatype != "UINT8" or -1 in given.shape:
        raise SystemExit(f"expected one UINT8 input of fixed shape, found {given.datatype} {given.shape}")
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (count, *given.shape), dtype=np.uint8)
    return [Tensor(given.name, "UINT8", given.shape, picture.tobytes()) for picture in pictures]


def output_bytes(outputs: Sequence[Tensor]) -> bytes:
    return b"".join(bytes(tensor.data) for tensor in outputs)


async def answers_of(runner: LadderRunner, pictures: Sequence[Tensor]) -> list[bytes]:
    """One by one, before any load: what every later answer to the same picture must equal."""
    return [output_bytes((await runner.infer(InferRequest(inputs=(p,)))).outputs) for p in pictures]


def percentile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least the share `q` of them does not exceed (nearest rank); 0 of none."""
    if not values:
        return 0.0
    rank = int(np.ceil(round(q * len(values), 9)))
    return sorted(values)[max(rank, 1) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    per_s: float
    latencies_s: list[float]


async def closed_loop(runner: LadderRunner, pictures: Sequence[Tensor], in_flight: int, seconds: float) -> ClosedLoop:
    """So many clients, each of which asks again as soon as it has its answer."""
    requests = [InferRequest(inputs=(picture,)) for picture in pictures]
    latencies_s: list[float] = []
    began_s = time.perf_counter()

    async def client(number: int) -> None:
        while True:
            sent_s = time.perf_counter()
            if sent_s - began_s >= seconds:
                return
            await runner.infer(requests[number % len(requests)])
            latencies_s.append(time.perf_counter() - sent_s)
            number += in_flight

    await asyncio.gather(*(client(number) for number in range(in_flight)))
    return ClosedLoop(per_s=len(latencies_s) / (time.perf_counter() - began_s), latencies_s=latencies_s)


async def measure(seconds: float) -> dict[str, float]:
    result: dict[str, float] = {}
    for name, model in MODELS.items():
        async with running(model, Engine(threads=1)) as runner:
            pictures = images(runner.interface, 8)
            await closed_loop(runner, pictures, IN_FLIGHT, seconds / 4)
            alone = await closed_loop(runner, pictures, 1, seconds)
            full = await closed_loop(runner, pictures, IN_FLIGHT, seconds)
        result[f"{name}_p50_us"] = round(percentile(alone.latencies_s, 0.5) * 1e6, 1)
        result[f"{name}_per_s"] = round(full.per_s, 1)
    return result


def main() -> int:
    options = arguments(__doc__, "2 s instead of 10 s each").parse_args()
    if missing(*MODELS.values()):
        return 1
    uvloop.install()
    result = asyncio.run(measure(2.0 if options.quick else 10.0))
    show(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
