"""Answers kept for a while, within a number of bytes: the oldest expire, the least recently used make room.

key -> outputs | nothing, once expired or evicted

Keeps no timer: its owner sweeps. Never holds more than its bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from flyball.ports import Tensor

ENTRY_BYTES = 1024  # of an entry beside its outputs' bytes: 560 measured with two outputs, and room for more of them


class Entry(NamedTuple):
    outputs: tuple[Tensor, ...]
    size: int
    expires_s: float


class Store:
    """The least recently used leave first, and all leave `ttl_s` after they came. Takes `now_s`, reads no clock."""

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._used: OrderedDict[bytes, Entry] = OrderedDict()  # the least recently used first
        self._came: OrderedDict[bytes, None] = OrderedDict()  # the oldest first, so the first to expire
        self.bytes = 0
        self.evicted = 0
        self.expired = 0

    def __len__(self) -> int:
        return len(self._used)

    def get(self, key: bytes, now_s: float) -> Entry | None:
        entry = self._used.get(key)
        if entry is None or entry.expires_s <= now_s:
            return None
        self._used.move_to_end(key)
        return entry

    def put(self, key: bytes, outputs: tuple[Tensor, ...], now_s: float) -> None:
        """Nothing that would take more than a quarter of the room: one answer must not push out all the others."""
        size = ENTRY_BYTES + sum(len(tensor.data) for tensor in outputs)
        if 4 * size > self._max_bytes:
            return
        self.sweep(now_s)  # an expired entry goes before a live one does
        if key in self._used:
            self._drop(key)
        while self.bytes + size > self._max_bytes:
            self._drop(next(iter(self._used)))
            self.evicted += 1
        self._used[key] = Entry(outputs, size, now_s + self._ttl_s)
        self._came[key] = None
        self.bytes += size

    def sweep(self, now_s: float) -> None:
        while self._came:
            oldest = next(iter(self._came))
            if self._used[oldest].expires_s > now_s:
                break
            self._drop(oldest)
            self.expired += 1

    def first_expiry_s(self) -> float | None:
        return self._used[next(iter(self._came))].expires_s if self._came else None

    def clear(self) -> None:
        self._used.clear()
        self._came.clear()
        self.bytes = 0

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._used.pop(key).size
        del self._came[key]
