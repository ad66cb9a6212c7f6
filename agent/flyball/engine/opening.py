"""From a rung of the manifest to its workers, warm and right.

artifact -> sha256 -> worker(s) -> canary, compared -> OpenedRung
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import msgspec

from flyball.config import Engine
from flyball.engine.canary import Sample
from flyball.engine.opened import OpenedRung, compare
from flyball.engine.process import Opening, Warmth, Worker
from flyball.engine.share import Share
from flyball.engine.slots import SlotPool
from flyball.errors import LadderError
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ladder.verify import verify_rung

WARM_RUNS = 20
WARM_SECONDS = 0.25  # at most, so that opening a slow rung stays quick


async def open_rung(
    folder: LadderFolder,
    rung: Rung,
    config: Engine,
    slots: SlotPool,
    expected: Sample,
    share: Share | None = None,
    starting: set[Worker] | None = None,
) -> OpenedRung:
    """`expected`: the canary's answer; `share`: of the accelerator, where ladders take turns on it; `starting` holds
    the workers until they are open, or gone. Raises LadderError (the artifact is not the manifest's), OpenError,
    CanaryError, WorkerError."""
    starting = set() if starting is None else starting
    artifact = await _verified(folder, rung, config.load_timeout_s)
    options = dict(rung.options)
    if config.threads:
        options.setdefault("threads", config.threads)
    lanes, depth = lanes_and_depth(config, rung, share)
    opening = Opening(
        label=f"{folder.name}/{rung.name}",
        backend=rung.backend,
        artifact=artifact,
        options=options,
        plan=plan(folder, rung),
        lanes=lanes,
        depth=depth,
        spin=config.wake == "poll",
        settle={"nice": config.worker_nice, "cpus": list(config.worker_cpus)},
    )
    finite = folder.manifest.ladder.task != "tensor"
    tasks = [
        asyncio.create_task(_start(opening, slots, config.load_timeout_s, expected, rung.precision, finite, starting))
        for _ in range(rung.instances)
    ]
    try:
        started = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, BaseException):
                await result[0].stop(0)
        raise
    workers = [worker for worker, _ in started]
    return OpenedRung(folder.name, rung, workers, started[0][1], config.request_timeout_s, share, finite)


def lanes_and_depth(config: Engine, rung: Rung, share: Share | None) -> tuple[int, int]:
    """Threads of a worker, and how many requests each has at once. A second thread prepares a request beside the run of
    another; where both would share one processor, that only costs changes from one to the other (docs/adr/0008), and
    what matters is that the next request is there when a run ends."""
    if config.wake == "poll":
        return 1, 1
    processors = len(config.worker_cpus) or len(os.sched_getaffinity(0))
    if processors == 1 and share is None and rung.batch == 1:
        return 1, config.lanes
    return config.lanes, 1


async def _verified(folder: LadderFolder, rung: Rung, timeout_s: float) -> Path:
    """Hashing 25 MB takes 15 to 150 ms; on a disk or a share that hangs it takes for ever, in a thread that then keeps
    nobody from ending the process. Raises LadderError."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Path] = loop.create_future()

    def tell(path: Path | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(path or Path())

    def verify() -> None:
        path, error = None, None
        try:
            path = verify_rung(folder, rung)
        except BaseException as raised:  # handed on to the one who waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, path, error)

    threading.Thread(target=verify, name=f"verify-{rung.name}", daemon=True).start()
    try:
        return await asyncio.wait_for(done, timeout_s)
    except asyncio.TimeoutError:
        where = f"ladder {folder.name} {folder.version}, rung {rung.name}"
        why = f"its artifact could not be read within {timeout_s:g} s; is the disk well?"
        raise LadderError(f"{where}: {why}") from None


async def _start(
    opening: Opening,
    slots: SlotPool,
    timeout_s: float,
    expected: Sample,
    precision: str,
    finite: bool,
    starting: set[Worker],
) -> tuple[Worker, Warmth]:
    worker = await Worker.start(opening, slots, timeout_s, starting)
    try:
        warmth = await worker.warm(WARM_RUNS, WARM_SECONDS, timeout_s)
        compare(worker, warmth.sample, expected, precision, finite)
    except BaseException:
        await worker.stop(0)
        raise
    finally:
        if not worker.lingers():
            starting.discard(worker)
    return worker, warmth


def plan(folder: LadderFolder, rung: Rung) -> dict[str, object]:
    """What the worker's Pipeline needs of the manifest, as plain data."""
    ladder, interface = folder.manifest.ladder, folder.interface()
    return {
        "task": ladder.task,
        "inputs": msgspec.to_builtins(interface.inputs),
        "outputs": msgspec.to_builtins(interface.outputs),
        "labels": list(folder.labels),
        "top_k": folder.top_k() if ladder.labels else 0,
        "max_pixels": ladder.max_pixels,
        "pre": msgspec.to_builtins(rung.pre),
        "post": msgspec.to_builtins(rung.post),
        "input": rung.input,
        "output": rung.output,
        "batch": rung.batch,
    }
