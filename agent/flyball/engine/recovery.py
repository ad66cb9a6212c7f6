"""After a worker has ended: another rung answers at once, and the lost one is opened again.

exit -> a rung on standby takes over -> back-off -> the lost rung again, or another one, until it is back

One of several instances: the rest goes on, and the whole rung is opened beside it. A rung in a crash loop rests first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from flyball.clock import Clock
from flyball.config import Engine
from flyball.engine.backoff import Backoff
from flyball.engine.book import RungBook
from flyball.engine.opened import OpenedRung
from flyball.engine.seats import Seats
from flyball.engine.tally import Tally
from flyball.errors import LadderError, UnavailableError, WorkerError
from flyball.ladder.manifest import LadderFolder, Rung

log = logging.getLogger(__name__)


class Recovery:
    def __init__(
        self, folder: LadderFolder, config: Engine, seats: Seats, book: RungBook, tally: Tally, clock: Clock
    ) -> None:
        self._folder = folder
        self._seats = seats
        self._book = book
        self._tally = tally
        self._tasks: set[asyncio.Task[None]] = set()
        self._backoff = Backoff(config.restart_backoff_s, config.restart_backoff_max_s, clock)
        seats.on_exit = self._on_exit

    async def settled(self) -> None:
        """Until everything under way has come to its end."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.settled()

    def _on_exit(self, opened: OpenedRung, cause: str) -> None:
        if self._seats.closing or cause.startswith("stopped"):
            return
        known = next((c for c in ("hung", "memory", "canary") if cause.startswith(c)), None)
        self._tally.restarted(known or ("signal" if "signal" in cause else "exit"))
        looping = self._book.ended(opened.rung, f"its worker ended: {cause}")
        self._seats.tell("worker_exited", f"the worker of {opened.label} ended: {cause}", "error")
        if opened.alive():  # one of several instances: the others answer, and the rung is opened afresh beside them
            self._spawn(self._replace(opened))
            return
        if opened is not self._seats.active:
            self._spawn(self._restore(opened.rung))
            return
        self._seats.active = None
        nearest = self._seats.nearest(opened.rung)
        taken = self._seats.take(nearest.rung.name) if nearest is not None else None
        if taken is not None:
            self._seats.seat(taken)
        self._spawn(self._recover(opened.rung, looping))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, opened: OpenedRung) -> None:
        """The rung again with all its instances, in place of one that lost some of them."""
        await asyncio.sleep(self._backoff.next_s())
        async with self._seats.lock:
            if self._seats.closing or self._seats.active is not opened or not opened.alive():
                return
            try:
                whole = await self._seats.open(opened.rung)
            except (WorkerError, LadderError):
                return  # reported; what is left of it goes on
            self._seats.seat(whole)
            await self._seats.close([opened])

    async def _restore(self, lost: Rung) -> None:
        """A rung on standby again, after its worker ended: it is what answers when the active one's does."""
        while not self._seats.closing:
            await asyncio.sleep(max(self._backoff.next_s(), self._book.leave_alone_s(lost.name)))
            async with self._seats.lock:
                seats = self._seats
                if seats.closing or seats.open_already(lost.name) is not None or seats.too_little_memory(lost):
                    return
                try:
                    opened = await self._seats.open(lost)
                except (WorkerError, LadderError):
                    continue  # reported, and the book says how long to rest
                await self._seats.keep(opened)
                return

    async def _recover(self, lost: Rung, looping: bool) -> None:
        """Until the lost rung is back (or no longer wanted): open it, else let another answer, wait, again. A rung in
        a crash loop rests first."""
        while not self._seats.closing and self._seats.wanted == lost.name:
            if looping and self._seats.active is None:
                async with self._seats.lock:
                    if self._seats.active is None:
                        await self._fall_back(lost)
            await asyncio.sleep(self._book.leave_alone_s(lost.name) if looping else self._backoff.next_s())
            looping = False
            async with self._seats.lock:
                old = self._seats.active
                if self._seats.wanted != lost.name or (old is not None and old.rung.name == lost.name):
                    return
                try:
                    opened = await self._seats.open(lost)
                except (WorkerError, LadderError):
                    if self._seats.active is None:
                        await self._fall_back(lost)
                    continue
                old = self._seats.active  # asked anew: what answered may have ended meanwhile
                self._seats.seat(opened)
                self._seats.tell("worker_restarted", f"{opened.label} answers again", "info")
                if old is not None:
                    await self._seats.retire(old)
                return

    async def _fall_back(self, lost: Rung) -> None:
        """Its declared twin first, then the weaker rungs (they are quicker to load), then the stronger ones."""
        names = [r.name for r in self._folder.manifest.rung]
        at = names.index(lost.name)
        order = dict.fromkeys([lost.twin, *names[at + 1 :], *reversed(names[:at])])
        order.pop("", None)
        try:
            await self._seats.open_one_of(order)
        except UnavailableError as error:
            lost_why = f"{lost.name}: {self._book.why_not(lost.name)}"
            self._seats.error = "; ".join(filter(None, [lost_why, self._seats.error]))
            log.error("%s", error)
