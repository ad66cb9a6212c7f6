"""When requests that are under way run out of time: one timer for all of them.

add(future) ... discard(future), or DeadlineError into the future;  close: UnavailableError into all that are left

A timer for each request, which nearly always is cancelled, costs a few microseconds; a dictionary's entry costs none.
"""

from __future__ import annotations

import asyncio
from typing import Any

from flyball.errors import DeadlineError, UnavailableError


class Deadlines:
    """Of one event loop; deadlines are in its seconds, which are monotonic ones."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: dict[asyncio.Future[Any], tuple[float, float]] = {}  # deadline, and the limit that led to it
        self._timer: asyncio.TimerHandle | None = None
        self._next_s = float("inf")  # when the timer goes off

    def add(self, future: asyncio.Future[Any], deadline_s: float, limit_s: float) -> None:
        """`limit_s` is what the request was given, for the message."""
        self._due[future] = deadline_s, limit_s
        if deadline_s < self._next_s:
            self._set(deadline_s)

    def discard(self, future: asyncio.Future[Any]) -> None:
        """It came to its end. The timer stays: the next request will want one at about the same time."""
        self._due.pop(future, None)

    def close(self) -> None:
        """What is still under way will not be answered: it is told now, since nobody looks at its time any more."""
        if self._timer is not None:
            self._timer.cancel()
        due, self._due = self._due, {}
        for future in due:
            if not future.done():
                future.set_exception(UnavailableError("no answer before the ladder was unloaded"))

    def _set(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_s = at_s
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        self._timer, self._next_s = None, float("inf")
        now_s = self._loop.time()
        for future, (deadline_s, limit_s) in list(self._due.items()):
            if deadline_s > now_s:
                continue
            del self._due[future]
            if not future.done():
                future.set_exception(DeadlineError(f"no answer within {limit_s:.3g} s"))
        if self._due:
            # At least a millisecond on: the loop's own clock may stand a little before the deadline.
            self._set(max(min(deadline_s for deadline_s, _ in self._due.values()), now_s + 0.001))
