"""How the rung that answers is changed on order, without losing a request.

start:     the rung that loads fastest -> the first answer -> the strongest beside it -> as below
to(rung):  open beside the active one -> warm up -> compare its canary -> swap one pointer -> the old one on standby
lend:      for a request that names its rung: open it on standby

Where memory is too short for two, the active rung is closed first; requests then wait out the gap, which is
reported. One order at a time; one that fails leaves the active rung as it was. Recovery from a crash waits for none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from flyball.clock import Clock
from flyball.config import Engine
from flyball.engine.book import RungBook
from flyball.engine.opened import OpenedRung
from flyball.engine.recovery import Recovery
from flyball.engine.seats import Seats
from flyball.engine.tally import Tally
from flyball.errors import CanaryError, FlyballError, UnavailableError, WorkerError
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ports import SwitchReport

log = logging.getLogger(__name__)


_FRESH_S = 1.0  # a rung on standby that has answered within this time need not be asked first
_NO_ROOM_REST_S = 30.0


class Switch:
    def __init__(
        self,
        folder: LadderFolder,
        config: Engine,
        seats: Seats,
        recovery: Recovery,
        book: RungBook,
        tally: Tally,
        clock: Clock,
        distrust: Callable[[], None],
    ) -> None:
        """`distrust` is called when a rung was found to answer wrongly: what it has said lately may be wrong too."""
        self._distrust = distrust
        self._folder = folder
        self._config = config
        self._seats = seats
        self._recovery = recovery
        self._book = book
        self._tally = tally
        self._clock = clock
        self._orders = asyncio.Lock()
        self._climbing: asyncio.Task[None] | None = None
        self._no_room: dict[str, float] = {}  # rungs that could not stand by: until when they are not tried again

    async def start(self, first: str = "") -> None:
        """Opens `first`; without it the rung that loads fastest, from which a task climbs to the strongest. Raises
        UnavailableError when none opens."""
        seats = self._seats
        rungs = [r for r in self._folder.manifest.rung if self._book.usable(r.name)]
        quickest = sorted(rungs, key=seats.file_bytes)
        everything = (r.name for r in self._folder.manifest.rung)  # of those without an accelerator the reason is told
        order = dict.fromkeys([*([first] if first else []), *(r.name for r in quickest), *everything])
        opened = await seats.open_one_of(order)
        seats.wanted = opened.rung.name
        if opened.rung.name not in (first, rungs[0].name):
            seats.wanted = rungs[0].name
            stronger = [r.name for r in rungs[: rungs.index(opened.rung)]]
            self._climbing = asyncio.get_running_loop().create_task(self._climb(stronger))

    def keep_trying(self, first: str) -> None:
        """After a start in vain: what stood in its way may pass."""
        usable = [r.name for r in self._folder.manifest.rung if self._book.usable(r.name)]
        if usable:
            self._seats.wanted = first if first in usable else usable[0]
            self._recovery.recover(hopeless=True)

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
        """Makes `name` the active rung. Raises NotFoundError, WorkerError, LadderError, UnavailableError; then nothing
        has changed."""
        rung = self._seats.usable(name)
        async with self._orders:
            self._seats.refuse_when_closing()
            before = self._seats.active
            try:
                return await self._to(rung, reason, before)
            finally:
                if before is not None:  # closed to make room: broken off at whatever point, it must not stay so
                    self._recovery.recover()

    async def _to(self, rung: Rung, reason: str, before: OpenedRung | None) -> SwitchReport:
        seats, name = self._seats, rung.name
        if before is not None and before.rung.name == name:
            seats.wanted = name
            return SwitchReport(ladder=self._folder.name, source=name, target=name, open_s=0, warm_s=0, gap_s=0)
        started_s = self._clock.monotonic_s()
        opened = await self._trusted_standby(name)
        gap_s = 0.0
        if opened is None and before is not None and seats.too_little_memory(rung):
            opened = await self._swap_in_place(rung, before)
            gap_s = self._clock.monotonic_s() - started_s
        elif opened is None:
            opened = await seats.open(rung)
        open_s = self._clock.monotonic_s() - started_s
        seats.refuse_when_closing()
        if not opened.alive():
            raise WorkerError(f"ladder {self._folder.name}, rung {name}: {self._book.why_not(name)}")
        seats.wanted = name
        old = seats.seat(opened)  # what answers now, which need not be what answered when the order came
        source = next((o.rung.name for o in (old, before) if o is not None), None)
        self._tally.switched(source or "", name, reason)
        await seats.retire(old)
        return SwitchReport(
            ladder=self._folder.name,
            source=source,
            target=name,
            open_s=open_s,
            warm_s=opened.warmth.first_s,
            gap_s=gap_s,
        )

    async def _trusted_standby(self, name: str) -> OpenedRung | None:
        """The rung from standby, once it has shown that it still answers, and rightly."""
        opened = self._seats.standing_by(name)
        if opened is None or self._clock.monotonic_s() - opened.answered_s < _FRESH_S:
            return opened
        try:
            await opened.check(self._book.expected(name), opened.hang_s())
        except WorkerError as error:
            log.error("%s: killed on standby", error)
            if isinstance(error, CanaryError):
                self._distrust()
            opened.kill("canary")
            return None
        return opened

    async def _swap_in_place(self, rung: Rung, before: OpenedRung) -> OpenedRung:
        seats = self._seats
        seats.swapping = True
        try:
            await seats.vacate()
            try:
                return await seats.open(rung)
            except FlyballError:
                await seats.open_one_of([before.rung.name, *(r.name for r in self._folder.manifest.rung)])
                raise
        finally:
            seats.swapping = False

    async def lend(self, name: str) -> OpenedRung:
        """The rung for a request that asks for it by name: active, on standby, or opened for it and kept on standby.

        Raises NotFoundError, WorkerError, LadderError, UnavailableError.
        """
        seats = self._seats
        rung = seats.usable(name)
        opened = seats.open_already(name)
        if opened is not None:
            return opened
        rest_s = self._book.leave_alone_s(name)
        if rest_s > 0:  # or every caller could make the machine try again
            why = self._book.why_not(name)
            raise UnavailableError(f"ladder {self._folder.name}, rung {name}: tried again in {rest_s:.0f} s: {why}")
        if seats.too_little_memory(rung):
            raise UnavailableError(
                f"ladder {self._folder.name}: too little memory to open the rung {name} beside what is open"
            )
        self._refuse_without_room(rung)
        opened = await seats.open(rung)
        if not await seats.keep(opened):
            self._no_room[name] = self._clock.monotonic_s() + _NO_ROOM_REST_S
            self._refuse_without_room(rung)
        return opened

    def _refuse_without_room(self, rung: Rung) -> None:
        """Raises UnavailableError: or every such request would start a process for nothing."""
        if self._seats.has_room_for(rung) and self._clock.monotonic_s() >= self._no_room.get(rung.name, 0.0):
            return
        raise UnavailableError(
            f"ladder {self._folder.name}: the rung {rung.name} is not active, and "
            "engine.standby_memory_mib has no room to keep it open beside the active one"
        )

    async def close(self) -> None:
        """Drains and ends every worker of this ladder."""
        self._seats.closing = True
        if self._climbing is not None:
            self._climbing.cancel()
            await asyncio.gather(self._climbing, return_exceptions=True)
        await self._recovery.stop()
        await self._seats.empty()
