"""The numbers of one stream: gapless while the daemon runs, never given out twice in an epoch.

take(count) -> first number; past half of the reserved block -> reserve(...) asks the store for the next block

Numbers are reserved on disk in blocks, so that counting costs one flush an hour and not one a record. After a crash
the count goes on behind the block; what lies between is reported as a gap.
"""

from __future__ import annotations

from collections.abc import Callable


class Counter:
    def __init__(self, stream: str, start: int, block: int, reserve: Callable[[str, int], None]) -> None:
        self.stream = stream
        self.next = start
        self._block = block
        self.reserved = start + block
        self._reserve = reserve

    def take(self, count: int) -> int:
        first, self.next = self.next, self.next + count
        if self.next > self.reserved - self._block // 2:
            self.reserved = self.next + self._block
            self._reserve(self.stream, self.reserved)
        return first
