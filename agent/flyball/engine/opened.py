"""A rung with its worker: verified, opened, warmed, ready to answer.

artifact -> sha256 -> worker -> canary -> OpenedRung
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from flyball.config import Engine
from flyball.engine.memory import process_bytes
from flyball.engine.process import Opening, Outcome, Warmth, Worker
from flyball.engine.slots import SlotPool
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ladder.verify import verify_rung

WARM_RUNS = 20
WARM_SECONDS = 0.25  # at most, so that opening a slow rung stays quick


@dataclass(slots=True, kw_only=True)
class OpenedRung:
    """`in_flight` counts the requests handed to its worker; `drained` waits until there are none."""

    rung: Rung
    worker: Worker
    warmth: Warmth
    resident_bytes: int | None
    in_flight: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def submit(self, slot: int, generation: int, limit_s: float, done: Callable[[Outcome], None]) -> None:
        self.in_flight += 1
        self._idle.clear()

        def finished(outcome: Outcome) -> None:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()
            done(outcome)

        self.worker.submit(slot, generation, limit_s, finished)

    async def drained(self) -> None:
        if self.in_flight:
            await self._idle.wait()


async def open_rung(folder: LadderFolder, rung: Rung, config: Engine, slots: SlotPool) -> OpenedRung:
    """Raises LadderError (the artifact is not the manifest's), OpenError, WorkerError."""
    artifact = await asyncio.to_thread(verify_rung, folder, rung)  # hashing 25 MB takes 15 to 150 ms
    options = dict(rung.options)
    if config.threads:
        options.setdefault("threads", config.threads)
    opening = Opening(
        label=f"{folder.name}/{rung.name}",
        backend=rung.backend,
        artifact=artifact,
        options=options,
        plan=plan(folder, rung),
    )
    worker = await Worker.start(opening, slots, config.load_timeout_s)
    try:
        warmth = await worker.warm(WARM_RUNS, WARM_SECONDS, config.load_timeout_s)
    except BaseException:
        await worker.stop(0)
        raise
    return OpenedRung(rung=rung, worker=worker, warmth=warmth, resident_bytes=process_bytes(worker.pid))


def plan(folder: LadderFolder, rung: Rung) -> dict[str, object]:
    """What the worker's Pipeline needs of the manifest, as plain data."""
    ladder, interface = folder.manifest.ladder, folder.interface()
    return {
        "task": ladder.task,
        "inputs": msgspec.to_builtins(interface.inputs),
        "outputs": msgspec.to_builtins(interface.outputs),
        "labels": str(folder.root / ladder.labels) if ladder.labels else "",
        "top_k": folder.top_k() if ladder.labels else 0,
        "max_pixels": ladder.max_pixels,
        "pre": msgspec.to_builtins(rung.pre),
        "post": msgspec.to_builtins(rung.post),
        "input": rung.input,
        "output": rung.output,
    }
