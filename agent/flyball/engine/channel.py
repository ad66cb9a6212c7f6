"""Handing slots over between daemon and worker: rings in one memfd, an eventfd for each.

producer: write the entries, then add their number to the eventfd;  consumer: read the count, take that many entries

A worker has one request ring per lane (lanes.py), written by the daemon, and one reply ring that all its lanes write
in turn. eventfd counts coalesce but are never lost, so the count itself is the ring's tail: neither side reads an
index that the other writes, and the kernel's lock inside the eventfd orders the entries before the count on every
processor. A slot stands in a ring at most once, so a ring with as many entries as there are slots cannot overflow.
Runs on Python 3.8 (os.eventfd is 3.10: only the daemon makes eventfds; reading and writing one is plain I/O).
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import List, Sequence, Tuple

_ENTRY = struct.Struct("<QI4x")

Entry = Tuple[int, int]  # generation, slot


class Ring:
    """One direction; a given object is either the producer's or the consumer's end."""

    def __init__(self, memory: mmap.mmap, offset: int, capacity: int, eventfd: int) -> None:
        self._memory = memory
        self._offset = offset
        self._capacity = capacity
        self.eventfd = eventfd
        self._next = 0

    def push(self, entries: Sequence[Entry]) -> None:
        """All of them with one signal: the consumer takes them together."""
        for generation, slot in entries:
            _ENTRY.pack_into(self._memory, self._offset + self._next % self._capacity * _ENTRY.size, generation, slot)
            self._next += 1
        os.write(self.eventfd, len(entries).to_bytes(8, "little"))

    def pop_all(self) -> List[Entry]:
        """Everything signalled since the last call, oldest first; empty when nothing was and the eventfd does not
        block. Raises OverflowError when the other side has gone wrong."""
        try:
            count = int.from_bytes(os.read(self.eventfd, 8), "little")
        except BlockingIOError:
            return []
        if count > self._capacity:
            raise OverflowError("{} entries in a ring of {}".format(count, self._capacity))
        entries = []
        for _ in range(count):
            at = self._offset + self._next % self._capacity * _ENTRY.size
            entries.append(_ENTRY.unpack_from(self._memory, at))
            self._next += 1
        return entries


class Channel:
    """The rings of one worker: `requests[lane]` go to it, `replies` come back. `capacity` is the number of slots."""

    def __init__(self, fd: int, capacity: int, request_eventfds: Sequence[int], reply_eventfd: int) -> None:
        self.fd = fd
        self.capacity = capacity
        self._memory = mmap.mmap(fd, memory_size(capacity, len(request_eventfds)))
        stride = _ring_size(capacity)
        self.replies = Ring(self._memory, 0, capacity, reply_eventfd)
        self.requests = [
            Ring(self._memory, (1 + lane) * stride, capacity, eventfd) for lane, eventfd in enumerate(request_eventfds)
        ]

    def fds(self) -> List[int]:
        return [self.fd, self.replies.eventfd, *(ring.eventfd for ring in self.requests)]

    def close(self) -> None:
        self._memory.close()
        for fd in self.fds():
            os.close(fd)


def memory_for(capacity: int, lanes: int) -> int:
    """A memfd of the size that a Channel needs."""
    fd = os.memfd_create("flyball-channel", os.MFD_CLOEXEC)
    os.ftruncate(fd, memory_size(capacity, lanes))
    return fd


def memory_size(capacity: int, lanes: int) -> int:
    return (1 + lanes) * _ring_size(capacity)


def _ring_size(capacity: int) -> int:
    """Whole pages: no cache line holds entries of both directions."""
    return -(-capacity * _ENTRY.size // mmap.PAGESIZE) * mmap.PAGESIZE
