"""After a worker has ended: another rung answers at once, and the wanted one is opened again.

exit -> a rung on standby takes over -> the keeper: while none answers, whichever opens; then back to the wanted one

One of several instances: the rest goes on, and the whole rung is opened beside it, however many tries that takes. A
rung in a crash loop rests. The keeper looks at nothing but what answers now and what should: whatever ends while it
works, the next look sees it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from flyball.clock import Clock
from flyball.config import Engine
from flyball.engine.backoff import Backoff
from flyball.engine.book import RungBook, State
from flyball.engine.opened import OpenedRung
from flyball.engine.seats import Seats
from flyball.engine.tally import Tally
from flyball.errors import FlyballError, UnavailableError
from flyball.ladder.manifest import LadderFolder, Rung

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.05
_HOPES = 2  # such tries after which requests still wait for the next
_SHORTEST_S = 0.01  # so that a loop of failures is never a busy one


class Recovery:
    def __init__(
        self, folder: LadderFolder, config: Engine, seats: Seats, book: RungBook, tally: Tally, clock: Clock
    ) -> None:
        self._folder = folder
        self._seats = seats
        self._book = book
        self._tally = tally
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._in_vain = 0  # tries in a row in which no rung opened
        self._patience_s = config.restart_backoff_max_s
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
        seats = self._seats
        if seats.closing or cause.startswith("stopped"):
            return
        known = next((c for c in ("hung", "memory", "canary") if cause.startswith(c)), None)
        self._tally.restarted(known or ("signal" if "signal" in cause else "exit"))
        state: State = "failed"
        if opened.alive() and opened in seats.opened():
            state = "active" if opened is seats.active else "standby"
        self._book.ended(opened.rung, f"its worker ended: {cause}", state)
        seats.tell("worker_exited", f"the worker of {opened.label} ended: {cause}", "error")
        if opened.alive():  # one of several instances: the others answer, and the rung is opened afresh beside them
            self._spawn(self._replace(opened))
            return
        if opened is not seats.active:
            self._spawn(self._restore(opened.rung))
            return
        seats.lose()
        nearest = seats.nearest(opened.rung)
        if nearest is not None:
            seats.seat(nearest)
        self._lost.set()
        if opened.rung.name != seats.wanted:  # it stood in for the wanted one: it will have to again
            self._spawn(self._restore(opened.rung))
        self._start_keeper()

    def recover(self, hopeless: bool = False) -> None:
        """Where nothing answers although no worker ended by itself: an order that was broken off, or a start in vain.
        `hopeless`: requests need not wait for it."""
        if self._seats.active is not None or self._seats.closing:
            return
        if hopeless:
            self._in_vain = _HOPES
        self._start_keeper()

    def _start_keeper(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = self._spawn(self._keep())

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("ladder %s: a recovery broke off", self._folder.name, exc_info=task.exception())

    async def _keep(self) -> None:
        """Until the wanted rung answers. Whatever goes wrong, it goes on: nobody else would bring the ladder back."""
        while not self._seats.closing:
            try:
                if await self._kept():
                    return
            except Exception:
                log.exception("ladder %s: the recovery failed and goes on", self._folder.name)
                await asyncio.sleep(max(self._backoff.next_s(), _SHORTEST_S))

    async def _kept(self) -> bool:
        """One step; whether the wanted rung answers."""
        seats = self._seats
        self._lost.clear()
        if seats.active is None:
            await asyncio.sleep(self._backoff.next_s())
            await self._answer_again()
            return False
        if seats.active.rung.name == seats.wanted:
            return True
        rest_s = max(self._backoff.next_s(), self._book.loop_rest_s(seats.wanted), _SHORTEST_S)
        if not await self._lost_within(rest_s):
            await self._return_to_wanted()
        return False

    async def _lost_within(self, seconds: float) -> bool:
        """Whether what answers has ended before the time is over."""
        try:
            await asyncio.wait_for(self._lost.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    async def _answer_again(self) -> None:
        """Whichever rung opens: the wanted one, its declared twin, the weaker ones (they are quicker to load), the
        stronger ones; those that could not be opened lately come last, and those in a crash loop are left alone
        while there is any other."""
        seats = self._seats
        if seats.swapping:  # the order that closed the active rung opens the next, or the old one again
            await asyncio.sleep(_LOOK_AGAIN_S)
            return
        if seats.active is not None:
            return
        rungs = [rung.name for rung in self._folder.manifest.rung]
        wanted = self._folder.rung(seats.wanted)
        at = rungs.index(seats.wanted) if wanted is not None else 0
        order = dict.fromkeys([seats.wanted, wanted.twin if wanted else "", *rungs[at + 1 :], *reversed(rungs[:at])])
        order.pop("", None)
        usable = [name for name in order if self._book.usable(name)]
        ready = [name for name in usable if not self._book.loop_rest_s(name)]
        ready.sort(key=lambda name: self._book.leave_alone_s(name) > 0)
        if usable and not ready:  # all are in crash loops: better one try in a while than no answer at all
            least = min(usable, key=self._book.loop_rest_s)
            seats.error = "every rung is in a crash loop: " + "; ".join(self._book.why_not(name) for name in usable)
            log.error("ladder %s: %s", self._folder.name, seats.error)
            await asyncio.sleep(min(self._book.loop_rest_s(least), self._patience_s))
            ready = [least]
        try:
            await seats.open_one_of(ready)
        except UnavailableError as error:
            resting = [f"{name}: {self._book.why_not(name)}" for name in order if name not in ready]
            log.error("%s", "; ".join([str(error), *resting]))
            self._in_vain += 1
            # At first requests wait, as far as their limits go; once there is little hope they are told at once.
            seats.error = "; ".join([*resting, seats.error]) if self._in_vain > _HOPES else ""
        else:
            self._in_vain = 0

    async def _return_to_wanted(self) -> None:
        seats, name = self._seats, self._seats.wanted
        try:
            opened = seats.standing_by(name) or await seats.open(seats.usable(name))
        except FlyballError:
            return  # reported, and the book says how long to rest
        if seats.wanted != name or not opened.alive():
            await seats.retire(opened)
            return
        old = seats.seat(opened)
        seats.tell("worker_restarted", f"{opened.label} answers again", "info")
        await seats.retire(old)

    async def _replace(self, opened: OpenedRung) -> None:
        """The rung again with all its instances, in place of one that lost some of them."""
        seats, rung = self._seats, opened.rung
        while not seats.closing:
            await asyncio.sleep(max(self._backoff.next_s(), self._book.loop_rest_s(rung.name), _SHORTEST_S))
            if seats.closing or opened not in seats.opened():
                return  # replaced or closed; one that lost the last of them too has a recovery of its own
            if seats.too_little_memory(rung):
                continue
            try:
                whole = await seats.open(rung)
            except FlyballError:
                continue  # reported; what is left of it goes on
            await self._put_in_place(whole, opened)
            return

    async def _put_in_place(self, whole: OpenedRung, opened: OpenedRung) -> None:
        seats = self._seats
        if opened not in seats.opened():
            await seats.retire(whole)
            return
        if seats.active is opened:
            seats.seat(whole)
        else:
            await seats.keep(whole)
        await seats.close([opened])

    async def _restore(self, lost: Rung) -> None:
        """A rung on standby again, after its worker ended: it is what answers when the active one's does."""
        seats = self._seats
        while not seats.closing:
            await asyncio.sleep(max(self._backoff.next_s(), self._book.leave_alone_s(lost.name), _SHORTEST_S))
            if seats.closing or seats.open_already(lost.name) is not None or seats.too_little_memory(lost):
                return
            try:
                opened = await seats.open(lost)
            except FlyballError:
                continue  # reported, and the book says how long to rest
            await seats.keep(opened)
            return
