"""Who gets the next free slot: first come, first served, with a bounded number of requests waiting.

take -> slot number, or QueueFullError at once, or DeadlineError when none came free in time; give hands it on
"""

from __future__ import annotations

import asyncio
from collections import deque

from flyball.errors import DeadlineError, QueueFullError


class SlotQueue:
    def __init__(self, slots: int, limit: int) -> None:
        self._free = list(range(slots))
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._limit = limit
        self._slots = slots

    def pending(self) -> int:
        """Requests that hold a slot or wait for one."""
        return self._slots - len(self._free) + sum(not f.done() for f in self._waiting)

    async def take(self, timeout_s: float) -> int:
        """Raises QueueFullError, DeadlineError."""
        if self._free:
            return self._free.pop()
        if len(self._waiting) >= self._limit:
            raise QueueFullError(
                f"{self._limit} requests are waiting already (engine.queue_limit): send fewer, or retry later"
            )
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        timer = asyncio.get_running_loop().call_later(timeout_s, _expire, future, timeout_s)
        try:
            return await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give(future.result())  # handed over in the moment in which the caller left
            raise
        finally:
            timer.cancel()

    def give(self, slot: int) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(slot)
                return
        self._free.append(slot)


def _expire(future: asyncio.Future[int], timeout_s: float) -> None:
    if not future.done():
        future.set_exception(DeadlineError(f"no slot came free within {timeout_s:.3g} s: the ladder is overloaded"))
