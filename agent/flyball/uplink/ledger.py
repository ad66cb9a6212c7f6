"""Which numbers were handed out and which of them are settled, on the disk and in memory.

publication with numbers -> held -> "handed out" on the disk -> Post; acknowledged -> "settled" on the disk

A publication leaves only when its numbers stand on the disk as handed out: after a kill the count goes on exactly
behind them, and what is missing is what was handed out and not settled, no more and no less. That costs one write per
batch, and one more for its acknowledgement: 2 of 4.3 KB (measured) a minute at the defaults, 12 MB a day. What comes
during a write, within BREATH_S of one or within SETTLE_S of an acknowledgement shares the next one, so that a storm of
events is no storm of writes.

While the store cannot be written publications wait here, bounded; the oldest give way and are reported as a gap.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from flyball.errors import StateError
from flyball.uplink.outbox import LIMITS, Publication
from flyball.uplink.post import Post
from flyball.uplink.sequence import Counter
from flyball.uplink.state import Stream

SETTLE_S = 1.0
BREATH_S = 0.2
RETRY_S = (1.0, 60.0)  # after a write that failed: at first, and at most
MOST_HELD = LIMITS["event"] + LIMITS["telemetry"]

Save = Callable[[Mapping[str, Stream]], Awaitable[None]]


class Ledger:
    """`save` raises StateError; `stored` hears "" or what was wrong."""

    def __init__(self, post: Post, save: Save, stored: Callable[[str], None]) -> None:
        self._post = post
        self._save = save
        self._stored = stored
        self.counters: dict[str, Counter] = {}
        self._held: deque[Publication] = deque()
        self._stale = False  # something was settled that the disk does not know of
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def streams(self) -> dict[str, Stream]:
        """How far the streams are, all that is held included."""
        spans = [span for publication in self._held for span in publication.spans]
        return {
            name: Stream(
                next=counter.next,
                settled=min([self._post.settled(name, counter.next), *(s.first for s in spans if s.stream == name)]),
            )
            for name, counter in self.counters.items()
        }

    def hand_out(self, publication: Publication) -> None:
        """Its numbers have just been taken."""
        if self._closed:
            self._post.lose(publication)
            return
        self._held.append(publication)
        while len(self._held) > MOST_HELD:
            self._post.lose(self._held.popleft())
        self._begin()

    def settled(self) -> None:
        """The broker has acknowledged numbers, or their loss."""
        self._stale = True
        if self._timer is None and self._task is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._begin)

    async def close(self, timeout_s: float) -> None:
        """Hands on what is held, if the store takes it in that time; what is not goes with the daemon."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        task = self._task
        if task is not None:
            await asyncio.wait({task}, timeout=timeout_s)
            task.cancel()
            await asyncio.wait({task})
        while self._held:
            self._post.lose(self._held.popleft())

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        wait_s, most_s = RETRY_S
        try:
            while True:
                self._stale = False
                last = self._held[-1] if self._held else None
                try:
                    await self._save(self.streams())
                except StateError as error:
                    self._stale = True
                    self._stored(str(error))
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, most_s)
                    continue
                wait_s = RETRY_S[0]
                self._stored("")
                self._release(last)
                if not self._closed:
                    await asyncio.sleep(BREATH_S)
                if not self._held:
                    break
        finally:
            self._task = None
            if self._stale:
                self.settled()

    def _release(self, last: Publication | None) -> None:
        """Up to `last`, the newest whose numbers were written. That one may have given way meanwhile: then all that
        is held is newer, and waits for the next write."""
        if last is None or last not in self._held:
            return
        while self._held:
            publication = self._held.popleft()
            self._post.add(publication)
            if publication is last:
                return
