"""Handing slots over between daemon and worker: two rings in one memfd, an eventfd for each.

producer: write the entry, then add 1 to the eventfd;  consumer: read the eventfd's count, take that many entries

eventfd counts coalesce but are never lost, so the count itself is the ring's tail: neither side reads an index that
the other writes, and the kernel's lock inside the eventfd orders the entries before the count on every processor.
A slot stands in a ring at most once, so a ring with as many entries as there are slots cannot overflow.
Runs on Python 3.8 (os.eventfd is 3.10: only the daemon makes eventfds; reading and writing one is plain I/O).
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import List, Tuple

_ENTRY = struct.Struct("<QI4x")
_ONE = (1).to_bytes(8, "little")


class Ring:
    """One direction; a given object is either the producer's or the consumer's end."""

    def __init__(self, memory: mmap.mmap, offset: int, capacity: int, eventfd: int) -> None:
        self._memory = memory
        self._offset = offset
        self._capacity = capacity
        self.eventfd = eventfd
        self._next = 0

    def push(self, generation: int, slot: int) -> None:
        _ENTRY.pack_into(self._memory, self._offset + self._next % self._capacity * _ENTRY.size, generation, slot)
        self._next += 1
        os.write(self.eventfd, _ONE)

    def pop_all(self) -> List[Tuple[int, int]]:
        """(generation, slot) of everything signalled since the last call, oldest first; empty when nothing was."""
        try:
            count = int.from_bytes(os.read(self.eventfd, 8), "little")
        except BlockingIOError:
            return []
        entries = []
        for _ in range(count):
            at = self._offset + self._next % self._capacity * _ENTRY.size
            generation, slot = _ENTRY.unpack_from(self._memory, at)
            entries.append((generation, slot))
            self._next += 1
        return entries


class Channel:
    """Both rings of one worker. `requests` go to the worker, `replies` come back."""

    def __init__(self, fd: int, capacity: int, request_eventfd: int, reply_eventfd: int) -> None:
        self.fd = fd
        self.capacity = capacity
        self._memory = mmap.mmap(fd, _size(capacity))
        self.requests = Ring(self._memory, 0, capacity, request_eventfd)
        self.replies = Ring(self._memory, _size(capacity) // 2, capacity, reply_eventfd)

    def fds(self) -> Tuple[int, int, int]:
        return self.fd, self.requests.eventfd, self.replies.eventfd

    def close(self) -> None:
        self._memory.close()
        for fd in self.fds():
            os.close(fd)


def memory_for(capacity: int) -> int:
    """A memfd of the size that a Channel of `capacity` needs."""
    fd = os.memfd_create("flyball-channel", os.MFD_CLOEXEC)
    os.ftruncate(fd, _size(capacity))
    return fd


def _size(capacity: int) -> int:
    pages = -(-capacity * _ENTRY.size // mmap.PAGESIZE)
    return 2 * pages * mmap.PAGESIZE
