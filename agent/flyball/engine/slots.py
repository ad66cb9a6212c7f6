"""Tensors in shared memory: one memfd per runner, cut into slots that hold one request and its answer each.

daemon writes a request -> worker reads it, runs, writes the reply -> daemon reads the reply

    slot:  0     request line   generation, number of inputs, deadline            written by the daemon
           64    reply line     generation, status, number of outputs, durations  written by the worker
           128   16 input entries of 88 bytes                                     written by the daemon
           2048  16 output entries of 88 bytes                                    written by the worker
           4096  input area, then output area, each a whole number of pages

No cache line is written by both sides, and neither writes while the other may: the eventfd that hands a slot over
orders the memory (channel.py). A reply counts only when it carries the generation of the request. Runs on Python 3.8.

The memory is cut into places; a slot is at the place of its number until a worker that cannot be ended holds it: then
the daemon moves the slot to a spare place, and nobody uses the old one before that worker is gone. Workers know places.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import List, NamedTuple, Optional, Sequence, Set, Tuple

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
    """The memory of `count` slots, seen from either side; `place[slot]` is what the other side knows it by. `fd` is the
    memfd that the other side maps, with all `places`: the slots and `spare` ones."""

    def __init__(self, fd: int, count: int, input_bytes: int, output_bytes: int, spare: int = 0) -> None:
        self.fd = fd
        self.count = count
        self.places = count + spare
        self.place = list(range(count))
        self.input_bytes = _pages(input_bytes)
        self.output_bytes = _pages(output_bytes)
        self._stride = HEADER + self.input_bytes + self.output_bytes
        self._base = [slot * self._stride for slot in range(count)]  # where each slot's place begins
        self._spare = list(range(count, self.places))
        self._map = mmap.mmap(fd, self._stride * self.places)
        self._view = memoryview(self._map)
        self._large: Set[int] = set()  # slots with pages to give back

    @classmethod
    def create(cls, count: int, input_bytes: int, output_bytes: int, spare: int = 0) -> SlotPool:
        """A new memfd; pages take memory only once they are written. Raises OSError."""
        fd = os.memfd_create("flyball-slots", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, (count + spare) * (HEADER + _pages(input_bytes) + _pages(output_bytes)))
            return cls(fd, count, input_bytes, output_bytes, spare)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Also when it is closed already: its descriptor's number may be somebody else's by then."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        try:
            self._view.release()
            self._map.close()
        except BufferError:
            pass  # an error's traceback still holds a tensor of this map: the memory goes when that goes
        os.close(fd)

    # ------------------------------------------------------------------------------------------------ daemon's side

    def write_request(
        self,
        slot: int,
        generation: int,
        tensors: Sequence[Tuple[str, Sequence[int], memoryview]],
        deadline_s: float,
    ) -> None:
        """Tensors as (datatype, shape, bytes) in the interface's order. Raises SlotOverflow."""
        base = self._base[slot]
        if self._write(base + _INPUTS_AT, base + HEADER, self.input_bytes, tensors) > KEEP_BYTES:
            self._large.add(slot)
        _REQUEST.pack_into(self._map, base, generation, len(tensors), 0, deadline_s)

    def hand_over_again(self, slot: int, generation: int, deadline_s: float) -> None:
        """A new generation for a request that is already in the slot: a retry copies no tensor."""
        base = self._base[slot]
        _, inputs, _, _ = _REQUEST.unpack_from(self._map, base)
        _REQUEST.pack_into(self._map, base, generation, inputs, 0, deadline_s)

    def read_reply(self, slot: int, generation: int) -> Reply:
        """The reply to `generation`; one of another generation reads as FAILED."""
        base = self._base[slot]
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
        if slot not in self._large or self.fd < 0:
            return
        self._large.remove(slot)
        self._give_back(self._base[slot])

    def move(self, slot: int) -> Optional[int]:
        """Takes the request to a spare place, since a worker that cannot be ended may still write to where it is.
        Returns the old place, which `vacated` gives back once that worker is gone; None when no place is spare."""
        if not self._spare or self.fd < 0:
            return None
        old, old_base = self.place[slot], self._base[slot]
        self.place[slot] = self._spare.pop()
        base = self._base[slot] = self.place[slot] * self._stride
        _, inputs, _, _ = _REQUEST.unpack_from(self._map, old_base)
        at = [old_base + _INPUTS_AT + n * _ENTRY.size for n in range(min(inputs, MAX_TENSORS))]
        entries = [_ENTRY.unpack_from(self._map, entry) for entry in at]
        used = max((offset + nbytes for _, _, _, offset, nbytes, *_ in entries), default=0)
        size = HEADER + min(used, self.input_bytes)
        self._view[base : base + size] = self._view[old_base : old_base + size]
        return old

    def vacated(self, place: int) -> None:
        """Nobody writes to it any more."""
        if self.fd >= 0:
            self._give_back(place * self._stride)
            self._spare.append(place)

    def _give_back(self, base: int) -> None:
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
