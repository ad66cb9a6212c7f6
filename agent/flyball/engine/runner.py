"""The face of one ladder inside the daemon: requests go in, answers come out, whatever rung is active.

infer:  shortcuts.py (cache, cascade) -> requests.py (queue, slot, worker)
switch: switch.py -> seats.py <- recovery.py, when a worker ends;  watch.py looks after the workers

Puts these together and tells how the ladder is; does nothing of it itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Literal

import msgspec

from flyball.clock import Clock
from flyball.config import Engine, LadderSettings
from flyball.engine.book import RungBook
from flyball.engine.recovery import Recovery
from flyball.engine.requests import Requests, slots_for
from flyball.engine.seats import Seats
from flyball.engine.share import Shares
from flyball.engine.shortcuts import Shortcuts
from flyball.engine.slots import SlotPool
from flyball.engine.standby import Standby
from flyball.engine.switch import Switch
from flyball.engine.tally import Tally
from flyball.engine.watch import SILENT_AFTER, Watch
from flyball.errors import (
    DeadlineError,
    FlyballError,
    QueueFullError,
    UnavailableError,
    WorkerError,
)
from flyball.events import Events
from flyball.ladder.manifest import LadderFolder
from flyball.ports import (
    Answer,
    InferRequest,
    Interface,
    LadderStatus,
    LadderTotals,
    LatencyWindow,
    SwitchReport,
)

DEFAULTS = LadderSettings()


class LadderRunner:
    """Implements ports.Ladder. Made idle; `start` opens the first rung, `close` ends every worker."""

    def __init__(
        self,
        folder: LadderFolder,
        config: Engine,
        standby: Standby,
        events: Events,
        clock: Clock,
        settings: LadderSettings = DEFAULTS,
        shares: Shares | None = None,
    ) -> None:
        """`shares` are the accelerators that this ladder shares with others: none, when it is the only one."""
        self.folder = folder
        self._interface = folder.interface()
        self._config = config
        self._clock = clock
        needed = max(slots_for(rung, config.lanes) for rung in folder.manifest.rung)
        limits = folder.manifest.ladder
        # As much is spare as one rung can hold, should its workers neither answer nor end.
        self._slots = SlotPool.create(
            max(config.slots, needed), limits.max_input_bytes, limits.max_output_bytes, spare=needed
        )
        self._closing: asyncio.Task[None] | None = None
        self._tally = Tally()
        self._book = RungBook(folder, config, clock)
        self._seats = Seats(folder, config, self._slots, self._book, standby, shares or Shares(), events, clock)
        recovery = Recovery(folder, config, self._seats, self._book, self._tally, clock)
        self._switch = Switch(folder, config, self._seats, recovery, self._book, self._tally, clock, self._forget)
        self._requests = Requests(folder, config, self._seats, self._slots, self._tally, self._switch.lend, clock)
        self._watch = Watch(self._seats, self._book, config, self._forget)
        self._settings = settings
        self._shortcuts = self._shortcuts_of(settings)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def version(self) -> str:
        return self.folder.version

    @property
    def interface(self) -> Interface:
        return self._interface

    def limit_to(self, accelerators: Collection[str]) -> None:
        """The kinds present on this machine: a rung that can use none of them is never opened."""
        self._book.limit_to(accelerators)

    async def start(self, first: str = "") -> None:
        """Raises UnavailableError when no rung can be opened."""
        await self._switch.start(first)

    def keep_trying(self, first: str = "") -> None:
        """After `start` has failed: until a rung opens, with the back-off of a restart."""
        self._switch.keep_trying(first)

    async def settled(self) -> None:
        """Until the climb that follows the start has come to its end."""
        await self._switch.settled()

    def opening(self) -> bool:
        """Whether a rung is being opened or warmed up."""
        return self._seats.opening()

    def tend(self) -> None:
        """Once a second or so: looks after the workers."""
        self._watch.tend()

    def configure(self, settings: LadderSettings) -> None:
        """Other settings for the cascade and the cache; answers kept so far are forgotten where these changed."""
        if (settings.cache, settings.cascade) == (self._settings.cache, self._settings.cascade):
            return
        self._settings = settings
        old, self._shortcuts = self._shortcuts, self._shortcuts_of(settings)
        old.retire()

    def _shortcuts_of(self, settings: LadderSettings) -> Shortcuts:
        return Shortcuts(self.folder, settings, self._config, self._seats, self._requests.infer, self._clock)

    async def close(self) -> None:
        """Requests that are with this ladder, in slots or waiting, are answered first. However often it is called, and
        though the caller be cancelled, the ladder is closed once and to the end."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._seats.active is not None:
            await self._drained()
        self._watch.close()
        self._shortcuts.close()
        await self._switch.close()
        await self._drained()  # those that waited for a slot get one now, and with it the reason why nothing answers
        self._requests.close()
        self._slots.close()

    async def _drained(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._requests.drained(), self._config.drain_timeout_s)

    def _forget(self) -> None:
        self._shortcuts.forget()

    async def switch(self, rung: str, reason: str) -> SwitchReport:
        return await self._switch.to(rung, reason)

    async def infer(self, request: InferRequest) -> Answer:
        try:
            if self._seats.closing:
                self._seats.refuse_when_closing()
            if self._shortcuts.none:
                answer = await self._requests.infer(request)
            else:
                answer = await self._shortcuts.answer(request)
        except (QueueFullError, DeadlineError):
            self._tally.failed("REJECTED")
            raise
        except (WorkerError, UnavailableError):
            self._tally.failed("BACKEND")
            raise
        except asyncio.CancelledError:
            self._tally.failed("CANCELED")
            raise
        except FlyballError:
            self._tally.failed("OTHER")
            raise
        self._tally.answered(answer.timing)
        return answer

    # ------------------------------------------------------------------------------------------------ looked at

    def status(self) -> LadderStatus:
        active = self._seats.active
        ago_s = None if active is None else max(0.0, self._clock.monotonic_s() - active.answered_s)
        state: Literal["loading", "ready", "degraded", "silent", "failed"]
        if ago_s is not None and ago_s > SILENT_AFTER * self._config.heartbeat_s:
            state = "silent"
        elif active is not None:
            whole = all(worker.alive() for worker in active.workers)
            state = "ready" if whole and active.rung.name == self._seats.wanted else "degraded"
        else:
            state = "failed" if self._seats.error else "loading"
        return LadderStatus(
            name=self.name,
            version=self.version,
            state=state,
            active=active.rung.name if active is not None else None,
            pending=self._requests.pending(),
            rungs=self._book.entries(),
            error=self._seats.error,
            answered_s_ago=ago_s,
        )

    def window(self, seconds: float, deadline_s: float | None = None) -> LatencyWindow | None:
        active = self._seats.active
        if active is None:
            return None
        return self._tally.window(active.rung.name, seconds, self._clock.monotonic_s(), deadline_s)

    def totals(self) -> LadderTotals:
        cache, cascade = self._shortcuts.counts()
        return msgspec.structs.replace(self._tally.totals(self._clock.monotonic_s()), cache=cache, cascade=cascade)
