"""The rungs of a ladder that are being opened, for all who want them.

rung -> verify, workers, canary (opening.py) -> OpenedRung, the same one for everybody who asked meanwhile

A rung that nobody waits for any more is not opened to the end. Whatever goes wrong is a FlyballError for who waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from flyball.config import Engine
from flyball.engine.book import RungBook
from flyball.engine.opened import OpenedRung
from flyball.engine.opening import open_rung
from flyball.engine.process import Worker
from flyball.engine.share import Shares
from flyball.engine.slots import SlotPool
from flyball.errors import FlyballError, UnavailableError, WorkerError
from flyball.ladder.manifest import LadderFolder, Rung

log = logging.getLogger(__name__)

_STUCK_LIMIT = 2  # processes of a rung that do not end, before it is left alone until one has


@dataclass(slots=True)
class _Opening:
    task: asyncio.Task[OpenedRung]
    waiting: int = 0
    taken: bool = False


class Openings:
    """`made` is told of every rung that opened, before anybody has it; `unwanted`, of one that nobody took; `failed`,
    why one did not open."""

    def __init__(
        self,
        folder: LadderFolder,
        config: Engine,
        slots: SlotPool,
        book: RungBook,
        shares: Shares,
        made: Callable[[OpenedRung], None],
        unwanted: Callable[[OpenedRung], None],
        failed: Callable[[str], None],
    ) -> None:
        self.starting: set[Worker] = set()  # that open or warm up, and those that were killed and do not end
        self._folder = folder
        self._config = config
        self._slots = slots
        self._book = book
        self._shares = shares
        self._made = made
        self._unwanted = unwanted
        self._failed = failed
        self._openings: dict[str, _Opening] = {}

    def any(self) -> bool:
        return bool(self._openings)

    async def open(self, rung: Rung) -> OpenedRung:
        """Raises WorkerError, LadderError; UnavailableError when `cancel` ended it."""
        opening = self._openings.get(rung.name)
        if opening is None:
            opening = self._openings[rung.name] = _Opening(asyncio.get_running_loop().create_task(self._open(rung)))
            opening.task.add_done_callback(lambda _: self._openings.pop(rung.name, None))
        opening.waiting += 1
        try:
            opened = await asyncio.shield(opening.task)
            opening.taken = True
            return opened
        except asyncio.CancelledError:
            if opening.task.cancelled():  # and not the one who waits
                raise UnavailableError(f"ladder {self._folder.name}: it is being unloaded") from None
            raise
        finally:
            opening.waiting -= 1
            if not opening.waiting and not opening.taken:
                self._abandon(opening.task)

    def _abandon(self, task: asyncio.Task[OpenedRung]) -> None:
        if not task.done():
            task.cancel()
        elif not task.cancelled() and task.exception() is None:  # it opened just when the last one left
            self._unwanted(task.result())

    async def _open(self, rung: Rung) -> OpenedRung:
        label = f"{self._folder.name}/{rung.name}"
        try:
            self._refuse_when_stuck(label)
            expected = self._book.expected(rung.name)
            share = self._shares.of(self._book.kind(rung))
            opened = await open_rung(self._folder, rung, self._config, self._slots, expected, share, self.starting)
        except FlyballError as error:
            self._book.refused(rung, str(error))
            self._failed(f"{label} could not be opened: {error}")
            raise
        except Exception as error:
            # No more descriptors, processes, threads or memory: the machine's trouble, which may pass. Who waits is a
            # loop that must go on.
            self._book.refused(rung, str(error))
            log.error("%s could not be opened", label, exc_info=not isinstance(error, OSError))
            raise WorkerError(f"{label} could not be opened: {error}") from error
        self._made(opened)
        return opened

    def _refuse_when_stuck(self, label: str) -> None:
        """Or every try could leave another process behind. Raises WorkerError."""
        self.starting -= {worker for worker in self.starting if not worker.alive() and not worker.lingers()}
        stuck = [str(worker.pid) for worker in self.starting if worker.label == label and worker.lingers()]
        if len(stuck) >= _STUCK_LIMIT:
            pids = ", ".join(stuck)
            raise WorkerError(f"{label}: its processes {pids} were killed and do not end; is the driver well?")

    async def cancel(self) -> None:
        """All of them; returns when they have cleaned up."""
        tasks = [opening.task for opening in self._openings.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
