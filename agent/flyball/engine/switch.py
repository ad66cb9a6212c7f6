"""How the rung that answers is changed on order, without losing a request.

start:     the rung that loads fastest -> the first answer -> the strongest beside it -> as below
to(rung):  open beside the active one -> warm up -> compare its canary -> swap one pointer -> the old one on standby
lend:      for a request that names its rung: open it on standby

Where memory is too short for two, the active rung is closed first; requests then wait out the gap, which is
reported. One change at a time; a change that fails leaves the active rung as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from flyball.clock import Clock
from flyball.engine.book import RungBook
from flyball.engine.opened import OpenedRung
from flyball.engine.recovery import Recovery
from flyball.engine.seats import Seats
from flyball.engine.tally import Tally
from flyball.errors import FlyballError, UnavailableError, WorkerError
from flyball.ladder.manifest import LadderFolder
from flyball.ports import SwitchReport


class Switch:
    def __init__(
        self, folder: LadderFolder, seats: Seats, recovery: Recovery, book: RungBook, tally: Tally, clock: Clock
    ) -> None:
        self._folder = folder
        self._seats = seats
        self._recovery = recovery
        self._book = book
        self._tally = tally
        self._clock = clock
        self._climbing: asyncio.Task[None] | None = None

    async def start(self, first: str = "") -> None:
        """Opens `first`; without it the rung that loads fastest, from which a task climbs to the strongest. Raises
        UnavailableError when none opens."""
        rungs = [r for r in self._folder.manifest.rung if self._book.usable(r.name)]
        quickest = sorted(rungs, key=lambda r: self._folder.artifact(r).stat().st_size)
        everything = (r.name for r in self._folder.manifest.rung)  # of those without an accelerator the reason is told
        order = dict.fromkeys([*([first] if first else []), *(r.name for r in quickest), *everything])
        async with self._seats.lock:
            opened = await self._seats.open_one_of(order)
        self._seats.wanted = opened.rung.name
        if opened.rung.name not in (first, rungs[0].name):
            self._seats.wanted = rungs[0].name
            stronger = [r.name for r in rungs[: rungs.index(opened.rung)]]
            self._climbing = asyncio.get_running_loop().create_task(self._climb(stronger))

    async def _climb(self, names: Sequence[str]) -> None:
        """To the strongest of `names` that opens, unless somebody asks for another rung meanwhile."""
        seats = self._seats
        for name in names:
            rung = seats.usable(name)
            if seats.wanted not in names or seats.too_little_memory(rung):
                break
            try:
                await self.to(name, "start")
                return
            except FlyballError:
                continue  # reported where it was opened; the rung that answers goes on
        if seats.active is not None and seats.wanted in names:
            seats.wanted = seats.active.rung.name

    async def settled(self) -> None:
        """Until the climb of the start, or a recovery, has come to its end."""
        if self._climbing is not None:
            await asyncio.gather(self._climbing, return_exceptions=True)
        await self._recovery.settled()

    async def to(self, name: str, reason: str) -> SwitchReport:
        """Makes `name` the active rung. Raises NotFoundError, WorkerError, LadderError; then nothing has changed."""
        seats = self._seats
        rung = seats.usable(name)
        async with seats.lock:
            seats.refuse_when_closing()
            old = seats.active
            if old is not None and old.rung.name == name:
                seats.wanted = name
                return SwitchReport(ladder=self._folder.name, source=name, target=name, open_s=0, warm_s=0, gap_s=0)
            started_s = self._clock.monotonic_s()
            opened = seats.take(name)
            gap_s = 0.0
            if opened is None and old is not None and seats.too_little_memory(rung):
                await seats.vacate(old)
                try:
                    opened = await seats.open(rung)
                except FlyballError:
                    await seats.open_one_of([old.rung.name, *(r.name for r in self._folder.manifest.rung)])
                    raise
                gap_s = self._clock.monotonic_s() - started_s
            elif opened is None:
                opened = await seats.open(rung)
            open_s = self._clock.monotonic_s() - started_s
            seats.wanted = name
            seats.seat(opened)
            source = old.rung.name if old is not None else None
            self._tally.switched(source or "", name, reason)
            if old is not None and gap_s == 0.0:
                await seats.retire(old)
            return SwitchReport(
                ladder=self._folder.name,
                source=source,
                target=name,
                open_s=open_s,
                warm_s=opened.warmth.first_s,
                gap_s=gap_s,
            )

    async def lend(self, name: str) -> OpenedRung:
        """The rung for a request that asks for it by name: active, on standby, or opened for it and kept on standby.

        Raises NotFoundError, WorkerError, LadderError.
        """
        seats = self._seats
        rung = seats.usable(name)
        opened = seats.open_already(name)
        if opened is not None:
            return opened
        rest_s = self._book.leave_alone_s(name)
        if rest_s > 0:  # or every caller could make the machine try again
            why = self._book.why_not(name)
            raise WorkerError(f"ladder {self._folder.name}, rung {name}: tried again in {rest_s:.0f} s: {why}")
        async with seats.lock:
            seats.refuse_when_closing()
            opened = seats.open_already(name)
            if opened is not None:
                return opened
            if seats.too_little_memory(rung):
                raise UnavailableError(
                    f"ladder {self._folder.name}: too little memory to open the rung {name} beside what is open"
                )
            opened = await seats.open(rung)
            if not await seats.keep(opened):
                raise UnavailableError(
                    f"ladder {self._folder.name}: the rung {name} is not active, and "
                    "engine.standby_memory_mib has no room to keep it open beside the active one"
                )
            return opened

    async def close(self) -> None:
        """Drains and ends every worker of this ladder."""
        self._seats.closing = True
        if self._climbing is not None:
            self._climbing.cancel()
            await asyncio.gather(self._climbing, return_exceptions=True)
        await self._recovery.stop()
        async with self._seats.lock:
            await self._seats.empty()
