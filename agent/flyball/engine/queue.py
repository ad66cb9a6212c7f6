"""Who gets the next free slot: by priority, then by deadline, with a bounded number of requests waiting.

take_free -> slot number, or None when all are taken; take -> slot number, or QueueFullError at once, or DeadlineError
when none came free in time; give hands it on to the first in the order
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import insort
from typing import NamedTuple

from flyball.errors import DeadlineError, QueueFullError

DEFAULT_PRIORITY = 100  # of a request that names none; 1 is the highest


class Urgency(NamedTuple):
    """The order of those who wait: the smaller, the sooner. `deadline_s` is in the event loop's seconds."""

    priority: int
    deadline_s: float


class _Waiting(NamedTuple):
    urgency: Urgency
    number: int  # first come, first served among equals
    rung: str  # that it means to be answered by
    future: asyncio.Future[int]


class SlotQueue:
    def __init__(self, slots: int, limit: int) -> None:
        self.free = list(range(slots))  # others only look whether there are any
        self._waiting: list[_Waiting] = []
        self._limit = limit
        self._slots = slots
        self._numbers = itertools.count()
        self._emptied: asyncio.Event | None = None  # while somebody waits for the last request to be answered

    def pending(self) -> int:
        """Requests that hold a slot or wait for one."""
        return self._slots - len(self.free) + len(self._waiting)

    def ahead_of(self, urgency: Urgency, rung: str) -> int:
        """Requests waiting for the rung that will get a slot before one of this urgency that comes now."""
        return sum(w.rung == rung and w.urgency <= urgency for w in self._waiting) if self._waiting else 0

    def take_free(self) -> int | None:
        """At once, without the microseconds of a coroutine: nobody waits while a slot is free."""
        return self.free.pop() if self.free else None

    async def take(self, urgency: Urgency, rung: str = "") -> int:
        """`rung` is the one that it means to be answered by. Raises QueueFullError, DeadlineError."""
        if self.free:
            return self.free.pop()
        if len(self._waiting) >= self._limit:
            self._make_room(urgency)
        loop = asyncio.get_running_loop()
        entry = _Waiting(urgency, next(self._numbers), rung, loop.create_future())
        insort(self._waiting, entry)
        timer = loop.call_at(urgency.deadline_s, self._expire, entry)
        try:
            return await entry.future
        except BaseException:
            if entry.future.done() and not entry.future.cancelled() and entry.future.exception() is None:
                self.give(entry.future.result())  # handed over in the moment in which the caller left
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise
        finally:
            timer.cancel()

    def give(self, slot: int) -> None:
        while self._waiting:
            future = self._waiting.pop(0).future
            if not future.done():
                future.set_result(slot)
                return
        self.free.append(slot)
        if self._emptied is not None and len(self.free) == self._slots:
            self._emptied.set()

    async def drained(self) -> None:
        """Until no request holds a slot or waits for one."""
        while len(self.free) < self._slots:
            if self._emptied is None:
                self._emptied = asyncio.Event()
            self._emptied.clear()
            await self._emptied.wait()

    def _make_room(self, urgency: Urgency) -> None:
        """A full queue gives up its last one for a request of higher priority, never for one that only has less time.
        Raises QueueFullError."""
        last = self._waiting[-1]
        full = QueueFullError(
            f"{self._limit} requests are waiting already (engine.queue_limit): send fewer, or retry later"
        )
        if urgency.priority >= last.urgency.priority:
            raise full
        self._waiting.pop()
        if not last.future.done():
            last.future.set_exception(full)

    def _expire(self, entry: _Waiting) -> None:
        if not entry.future.done():
            self._waiting.remove(entry)
            entry.future.set_exception(DeadlineError("no slot came free in time: the ladder is overloaded"))
