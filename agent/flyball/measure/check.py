"""Every rung of a ladder opened and warmed once: does it run on this machine, and how fast?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from flyball.config import Engine
from flyball.engine.canary import Sample
from flyball.engine.opening import open_rung
from flyball.engine.process import Opening, Worker
from flyball.engine.slots import SlotPool
from flyball.errors import FlyballError
from flyball.ladder.manifest import LadderFolder, Rung


class RungCheck(msgspec.Struct, frozen=True, kw_only=True):
    rung: str
    error: str = ""
    load_s: float | None = None
    p50_s: float | None = None
    sample: Sample = ()  # of its answer to the canary
    resident_bytes: int | None = None


async def check(folder: LadderFolder, config: Engine) -> AsyncIterator[RungCheck]:
    """One rung at a time, each in its own worker; a rung that fails is a result, not an exception."""
    ladder = folder.manifest.ladder
    slots = SlotPool.create(1, ladder.max_input_bytes, ladder.max_output_bytes)
    try:
        for rung in folder.manifest.rung:
            try:
                opened = await open_rung(folder, rung, config, slots, rung.canary)
            except FlyballError as error:
                yield RungCheck(rung=rung.name, error=str(error))
                continue
            await opened.stop(config.drain_timeout_s)
            yield RungCheck(
                rung=rung.name,
                load_s=opened.load_s,
                p50_s=opened.warmth.p50_s,
                resident_bytes=opened.resident_bytes,
                sample=opened.warmth.sample,
            )
    finally:
        slots.close()


async def refusals(root: Path, rungs: Sequence[Rung], config: Engine) -> list[str]:
    """Of rungs whose ladder as a whole cannot be read: what their backends say to artifact and options. A rung with an
    artifact that is not there has been told of already."""
    found = []
    for rung in rungs:
        artifact = root / rung.artifact
        if not artifact.is_file():
            continue
        opening = Opening(
            label=f"rung {rung.name}", backend=rung.backend, artifact=artifact, options=dict(rung.options)
        )
        try:
            worker = await Worker.start(opening, None, config.load_timeout_s)
        except FlyballError as error:
            found.append(str(error))
        else:
            await worker.stop(config.drain_timeout_s)
    return found
