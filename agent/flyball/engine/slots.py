"""Tensors in shared memory: one memfd per runner, cut into slots that hold one request and its answer each.

daemon writes a request -> worker reads it, runs, writes the reply -> daemon reads the reply

    slot:  0     request line   generation, number of inputs, deadline            written by the daemon
           64    reply line     generation, status, number of outputs, durations  written by the worker
           128   16 input entries of 88 bytes                                     written by the daemon
           2048  16 output entries of 88 bytes                                    written by the worker
           4096  input area, then output area, each a whole number of pages

No cache line is written by both sides, and neither writes while the other may: the eventfd that hands a slot over
orders the memory (channel.py). A reply counts only when it carries the generation of the request. Runs on Python 3.8.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import List, NamedTuple, Sequence, Set, Tuple

HEADER = 4096
MAX_TENSORS = 16
MAX_DIMS = 8
DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip

OK, BAD_REQUEST, FAILED, TOO_LATE = range(4)

_REQUEST = struct.Struct("<QII d")
_REPLY = struct.Struct("<QIIQQQQ")
_ENTRY = struct.Struct("<HHIQQ8q")
_REPLY_AT = 64
_INPUTS_AT = 128
_OUTPUTS_AT = 2048
KEEP_BYTES = 1 << 20  # pages of a slot beyond this are given back after use: one large request leaves nothing behind
_CODES = {name: code for code, name in enumerate(DATATYPES)}


class SlotTensor(NamedTuple):
    """A tensor in a slot; `data` is a view into shared memory, valid until the slot is given back."""

    datatype: str
    shape: Tuple[int, ...]
    data: memoryview


class Reply(NamedTuple):
    status: int
    pre_ns: int
    run_ns: int
    post_ns: int
    outputs: List[SlotTensor]
    message: str


class SlotOverflow(Exception):
    """The tensors do not fit into the slot's area."""


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class SlotPool:
    """The memory of `count` slots, seen from either side. `fd` is the memfd that the other side maps."""

    def __init__(self, fd: int, count: int, input_bytes: int, output_bytes: int) -> None:
        self.fd = fd
        self.count = count
        self.input_bytes = _pages(input_bytes)
        self.output_bytes = _pages(output_bytes)
        self._stride = HEADER + self.input_bytes + self.output_bytes
        self._map = mmap.mmap(fd, self._stride * count)
        self._view = memoryview(self._map)
        self._large: Set[int] = set()  # slots with pages to give back

    @classmethod
    def create(cls, count: int, input_bytes: int, output_bytes: int) -> SlotPool:
        """A new memfd; pages take memory only once they are written."""
        fd = os.memfd_create("flyball-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, count * (HEADER + _pages(input_bytes) + _pages(output_bytes)))
        return cls(fd, count, input_bytes, output_bytes)

    def close(self) -> None:
        try:
            self._view.release()
            self._map.close()
        except BufferError:
            pass  # an error's traceback still holds a tensor of this map: the memory goes when that goes
        os.close(self.fd)

    # ------------------------------------------------------------------------------------------------ daemon's side

    def write_request(
        self,
        slot: int,
        generation: int,
        tensors: Sequence[Tuple[str, Sequence[int], memoryview]],
        deadline_s: float,
    ) -> None:
        """Tensors as (datatype, shape, bytes) in the interface's order. Raises SlotOverflow."""
        base = slot * self._stride
        if self._write(base + _INPUTS_AT, base + HEADER, self.input_bytes, tensors) > KEEP_BYTES:
            self._large.add(slot)
        _REQUEST.pack_into(self._map, base, generation, len(tensors), 0, deadline_s)

    def hand_over_again(self, slot: int, generation: int, deadline_s: float) -> None:
        """A new generation for a request that is already in the slot: a retry copies no tensor."""
        base = slot * self._stride
        _, inputs, _, _ = _REQUEST.unpack_from(self._map, base)
        _REQUEST.pack_into(self._map, base, generation, inputs, 0, deadline_s)

    def read_reply(self, slot: int, generation: int) -> Reply:
        """The reply to `generation`; one of another generation reads as FAILED."""
        base = slot * self._stride
        found, status, outputs, pre_ns, run_ns, post_ns, message_bytes = _REPLY.unpack_from(self._map, base + _REPLY_AT)
        if found != generation:
            return Reply(FAILED, 0, 0, 0, [], "the worker signalled a slot that it had not answered")
        area = base + HEADER + self.input_bytes
        if status != OK:
            text = bytes(self._view[area : area + min(message_bytes, self.output_bytes)])
            return Reply(status, pre_ns, run_ns, post_ns, [], text.decode("utf-8", "replace"))
        tensors = self._read(base + _OUTPUTS_AT, area, self.output_bytes, outputs)
        if self.output_bytes > KEEP_BYTES and sum(t.data.nbytes for t in tensors) > KEEP_BYTES:
            self._large.add(slot)
        return Reply(OK, pre_ns, run_ns, post_ns, tensors, "")

    def give_back_pages(self, slot: int) -> None:
        """After the last use of a slot's content: the pages of large tensors return to the system."""
        if slot not in self._large:
            return
        self._large.remove(slot)
        base = slot * self._stride
        for start, size in (
            (base + HEADER, self.input_bytes),
            (base + HEADER + self.input_bytes, self.output_bytes),
        ):
            if size > KEEP_BYTES:
                self._map.madvise(mmap.MADV_REMOVE, start + KEEP_BYTES, size - KEEP_BYTES)

    # ------------------------------------------------------------------------------------------------ worker's side

    def read_request(self, slot: int) -> Tuple[int, float, List[SlotTensor]]:
        """Generation, deadline (monotonic seconds) and inputs of the request in the slot."""
        base = slot * self._stride
        generation, inputs, _, deadline_s = _REQUEST.unpack_from(self._map, base)
        return generation, deadline_s, self._read(base + _INPUTS_AT, base + HEADER, self.input_bytes, inputs)

    def write_reply(
        self,
        slot: int,
        generation: int,
        tensors: Sequence[Tuple[str, Sequence[int], memoryview]],
        durations_ns: Tuple[int, int, int],
    ) -> None:
        """Outputs in the interface's order. Raises SlotOverflow."""
        base = slot * self._stride
        self._write(base + _OUTPUTS_AT, base + HEADER + self.input_bytes, self.output_bytes, tensors)
        _REPLY.pack_into(self._map, base + _REPLY_AT, generation, OK, len(tensors), *durations_ns, 0)

    def write_refusal(self, slot: int, generation: int, status: int, message: str) -> None:
        base = slot * self._stride
        text = message.encode("utf-8", "replace")[: self.output_bytes]
        area = base + HEADER + self.input_bytes
        self._view[area : area + len(text)] = text
        _REPLY.pack_into(self._map, base + _REPLY_AT, generation, status, 0, 0, 0, 0, len(text))

    # ------------------------------------------------------------------------------------------------ both

    def _write(
        self, entries: int, area: int, size: int, tensors: Sequence[Tuple[str, Sequence[int], memoryview]]
    ) -> int:
        if len(tensors) > MAX_TENSORS:
            raise SlotOverflow("{} tensors; a slot holds {}".format(len(tensors), MAX_TENSORS))
        offset = 0
        for datatype, shape, data in tensors:
            end = offset + data.nbytes
            if end > size:
                raise SlotOverflow("more than the {} bytes that this ladder takes".format(size))
            if len(shape) > MAX_DIMS:
                raise SlotOverflow("{} dimensions; at most {}".format(len(shape), MAX_DIMS))
            self._view[area + offset : area + end] = data
            dims = tuple(shape) + (0,) * (MAX_DIMS - len(shape))
            _ENTRY.pack_into(self._map, entries, _CODES[datatype], len(shape), 0, offset, data.nbytes, *dims)
            entries += _ENTRY.size
            offset = (end + 63) & ~63  # the next tensor starts on a cache line
        return offset

    def _read(self, entries: int, area: int, size: int, count: int) -> List[SlotTensor]:
        tensors = []
        for index in range(min(count, MAX_TENSORS)):
            code, ndim, _, offset, nbytes, *dims = _ENTRY.unpack_from(self._map, entries + index * _ENTRY.size)
            # The other side may have crashed while writing: nothing it left may lead outside the area.
            if code >= len(DATATYPES) or ndim > MAX_DIMS or offset + nbytes > size:
                raise ValueError("the slot's tensor {} is damaged".format(index))
            start = area + offset
            tensors.append(SlotTensor(DATATYPES[code], tuple(dims[:ndim]), self._view[start : start + nbytes]))
        return tensors
