"""The numbers of one stream: gapless, and never given out twice in an epoch.

take(count) -> first number

Counts only; that a number stands on the disk before it leaves is the ledger's doing (ledger.py).
"""

from __future__ import annotations


class Counter:
    def __init__(self, stream: str, start: int) -> None:
        self.stream = stream
        self.next = start

    def take(self, count: int) -> int:
        first, self.next = self.next, self.next + count
        return first
