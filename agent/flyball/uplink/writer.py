"""The spool, seen from the event loop.

put, acknowledge, ... -> Work, collected for collect_s at most -> the one thread that touches spool.db -> what it sealed

Nobody waits for a write. While the file cannot be used (disk full, read-only) work waits in memory, bounded: the oldest
rows give way, and are counted, so that a gap tells of them later. Numbers are granted by the state store before they
are given out, in blocks: whoever has to go on without spool.db goes on behind the block.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from flyball.errors import MessageError, StateError
from flyball.uplink import batch as batches
from flyball.uplink.batch import Row
from flyball.uplink.messages import EventMessage
from flyball.uplink.spool import SpoolFile
from flyball.uplink.spooled import TELEMETRY, GapRow, Key, Rows, Sealed, Start, Totals, Work, give_way, joined
from flyball.uplink.stamp import Stamp
from flyball.uplink.state import Stream

COLLECT_S = 10.0  # rows wait so long in memory at most: what a kill loses
BREATH_S = 0.2  # between two writes: a storm of events is no storm of writes
RETRY_S = (1.0, 60.0)  # after a write that failed: at first, and at most
MANY = 32  # acknowledgements that are written at once; fewer wait for the next write, and cost none of their own
MAX_ROWS = 600  # in memory, per stream, while the file cannot be used
MAX_MESSAGES = 256
BLOCK = 8192  # numbers that the state store grants at a time: at 1 Hz a write of 4 KB in two hours

log = logging.getLogger(__name__)

T = TypeVar("T")


class Writer:
    """`grant` writes the ends of number blocks into the state store, and raises StateError; `stored` hears "" or what
    was wrong; `replaced` hears why the file was begun anew; `sealed` hears what got its numbers."""

    def __init__(
        self,
        file: SpoolFile,
        *,
        grant: Callable[[Mapping[str, Stream]], Awaitable[None]],
        stored: Callable[[str], None],
        replaced: Callable[[str], None],
        sealed: Callable[[Sequence[Sealed]], None],
        collect_s: float = COLLECT_S,
    ) -> None:
        self._file = file
        self._grant = grant
        self._stored = stored
        self._replaced = replaced
        self._sealed = sealed
        self._collect_s = collect_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flyball-spool")
        self._work = Work()
        self._gone: set[Key] = set()  # acknowledged, and perhaps not deleted yet
        self._limits: dict[str, int] = {}
        self._marks: dict[str, Stream] = {}
        self._totals: Totals | None = None
        self._epoch = ""
        self._begun = False
        self._starts: Mapping[str, Start] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._next_s = math.inf  # when the work has to be written that came during a write
        self._task: asyncio.Task[None] | None = None
        self._last_s = 0.0
        self._hurry = asyncio.Event()  # somebody waits
        self._closed = False
        self.busy: Callable[[], frozenset[Key]] = frozenset

    # ------------------------------------------------------------------------------------------------------ lifecycle

    def begin(self, epoch: str, starts: Mapping[str, Start]) -> None:
        """Numbers are of this epoch from now on. The same one again changes nothing."""
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, starts
            self._begun = False
            self._limits = {name: start.next for name, start in starts.items()}
            self._soon(0.0)

    @property
    def epoch(self) -> str:
        return self._epoch

    def marks(self) -> Mapping[str, Stream]:
        """For the state store: where each stream would go on without the spool."""
        return {
            name: Stream(next=self._limits.get(name, mark.next), settled=mark.settled)
            for name, mark in self._marks.items()
        }

    def totals(self) -> Totals | None:
        """What waits on the disk; None before that is known."""
        return self._totals

    async def written(self, timeout_s: float) -> None:
        """Waits until what was put stands on the disk, or not for longer: after the write that is under way, which
        left before the newest of it came, that is one more. One that has failed is tried again at once."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        self._hurry.set()
        for _ in range(1 if self._task is None else 2):
            if self._task is None and self._work and self._epoch:
                self._cancel_timer()
                self._start()
            if self._task is not None:
                await asyncio.wait({self._task}, timeout=max(0.0, until_s - loop.time()))

    async def close(self, timeout_s: float) -> Mapping[str, Stream]:
        """Writes what there is, in that time. Gives back where the streams stand exactly, or up to where they may."""
        if self._closed:
            return self._marks
        self._closed = True
        self._cancel_timer()
        self._work.seal = True
        await self.written(timeout_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        clean = self._begun and not self._work
        marks = dict(self._marks) if clean else self.marks()
        await self._call(self._file.close)
        self._thread.shutdown(wait=False)  # it has nothing left to do
        return marks

    # ---------------------------------------------------------------------------------------------------------- input

    def put_row(self, stream: str, row: Row, stamp: Stamp) -> None:
        groups = self._work.rows.setdefault(stream, [])
        if groups and (groups[-1].boot, groups[-1].clk) == (stamp.boot, stamp.clk):
            groups[-1] = Rows(boot=stamp.boot, clk=stamp.clk, rows=(*groups[-1].rows, row))
        else:
            groups.append(Rows(boot=stamp.boot, clk=stamp.clk, rows=(row,)))
        give_way(self._work, MAX_ROWS, MAX_MESSAGES)
        self._soon(self._collect_s)

    def put_message(self, stream: str, message: EventMessage) -> None:
        self._work.messages.append((stream, message))
        give_way(self._work, MAX_ROWS, MAX_MESSAGES)
        self._soon(0.0)

    def flush(self) -> None:
        """What waits is sealed now, although it is no full batch."""
        self._work.seal = True
        self._soon(0.0)

    def acknowledge(self, sealed: Sealed, *, last: bool = False) -> None:
        """The broker has it; `last`: for now no more of a backlog will follow."""
        self._gone.add(sealed.key)
        self._work.acknowledged.append(sealed.key)
        self._soon(0.0 if last or len(self._work.acknowledged) >= MANY else self._collect_s)

    def refuse(self, sealed: Sealed, reason: str) -> None:
        """It will never be delivered; a gap says so."""
        self._gone.add(sealed.key)
        self._work.refused.append((sealed, reason))
        self._soon(0.0)

    def told(self, gaps: Sequence[GapRow]) -> None:
        self._work.told.extend(gaps)
        self._soon(self._collect_s)

    # ---------------------------------------------------------------------------------------------------------- output

    async def oldest(self, klass: int, after: int, most: int) -> list[Sealed]:
        """Told late, so marked `hist`; also what is acknowledged and not deleted yet. Raises StateError."""

        def read() -> tuple[list[Sealed], list[Sealed]]:
            good, damaged = [], []
            for sealed in self._file.oldest(klass, after, most):
                try:
                    good.append(_late(sealed) if klass == TELEMETRY else sealed)
                except MessageError:
                    damaged.append(sealed)
            return good, damaged

        good, damaged = await self._call(read)
        for sealed in damaged:
            if sealed.key not in self._gone:
                self.refuse(sealed, "damaged on the disk")
        return good

    def gone(self, key: Key) -> bool:
        """It was acknowledged, and is about to be deleted."""
        return key in self._gone

    async def gaps(self, most: int) -> list[GapRow]:
        """Raises StateError."""
        told = {(g.id, g.last) for g in self._work.told}
        return [g for g in await self._call(lambda: self._file.gaps(0, most)) if (g.id, g.last) not in told]

    # --------------------------------------------------------------------------------------------------------- writing

    def _soon(self, wait_s: float) -> None:
        """A write within that time, whatever else waits for it."""
        if self._closed or not self._epoch:
            return
        loop = asyncio.get_running_loop()
        at_s = max(loop.time() + wait_s, self._last_s + BREATH_S)
        if self._task is not None:
            self._next_s = min(self._next_s, at_s)
        elif self._timer is None or self._timer_s > at_s:
            self._cancel_timer()
            self._timer = loop.call_at(at_s, self._start)
            self._timer_s = at_s

    def _start(self) -> None:
        self._timer = None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s, most_s = RETRY_S
        try:
            while True:
                work, self._work = self._work, Work()
                work.busy = self.busy()
                self._hurry.clear()
                try:
                    sealed = await self._commit(work)
                except Exception as error:
                    # The boundary of this loop: whatever is wrong, nothing of the work is forgotten.
                    if not isinstance(error, StateError):
                        log.exception("uplink: the spool cannot be written")
                    self._work = joined(work, self._work)
                    give_way(self._work, MAX_ROWS, MAX_MESSAGES)
                    self._stored(str(error) or type(error).__name__)
                    if self._closed:
                        return
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._hurry.wait(), wait_s)
                    wait_s = min(2 * wait_s, most_s)
                    continue
                except BaseException:
                    self._work = joined(work, self._work)
                    raise
                self._stored("")
                self._gone -= {*work.acknowledged, *(refused.key for refused, _ in work.refused)}
                self._sealed(sealed)
                return
        finally:
            self._task = None
            self._last_s = loop.time()
            next_s, self._next_s = self._next_s, math.inf
            if self._work:
                self._soon(min(self._collect_s, max(0.0, next_s - self._last_s)))

    async def _commit(self, work: Work) -> list[Sealed]:
        if not self._begun:
            epoch, starts = self._epoch, self._starts
            await self._call(lambda: self._file.begin(epoch, starts))
            self._begun = True
        await self._grant_numbers()
        try:
            sealed, marks, totals = await self._call(
                lambda: (self._file.commit(work), self._file.marks(), self._file.totals())
            )
        finally:
            if self._file.replaced:
                why, self._file.replaced = self._file.replaced, ""
                self._replaced(why)
        self._marks = {name: Stream(next=next, settled=settled) for name, (next, settled) in marks.items()}
        self._totals = totals
        return sealed

    async def _grant_numbers(self) -> None:
        """Ends that are on the disk before a number below them is given out."""
        marks = await self._call(self._file.marks)
        short = {
            name: Stream(next=next + BLOCK, settled=settled)
            for name, (next, settled) in marks.items()
            if next + BLOCK // 2 > self._limits.get(name, 0)
        }
        if short:
            await self._grant(short)
            self._limits |= {name: stream.next for name, stream in short.items()}
        limits = dict(self._limits)
        await self._call(lambda: self._file.grant(limits))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _late(sealed: Sealed) -> Sealed:
    return dataclasses.replace(sealed, encoded=batches.mark_hist(sealed.encoded))
