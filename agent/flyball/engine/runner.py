"""The face of one ladder inside the daemon: requests go in, answers come out, whatever rung is active.

infer: admission -> queue -> slot -> the rung's worker -> slot -> Answer  (a worker that dies: once more on the next)

A slot belongs to the runner, not to a worker: a retry on another rung copies no tensor. Which rung is active is
switch.py's concern.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from flyball.clock import Clock
from flyball.config import Engine, LadderSettings
from flyball.engine.book import RungBook
from flyball.engine.opened import OpenedRung, Ticket
from flyball.engine.process import Outcome
from flyball.engine.queue import DEFAULT_PRIORITY, SlotQueue, Urgency
from flyball.engine.share import Shares
from flyball.engine.shortcuts import Shortcuts
from flyball.engine.slots import BAD_REQUEST, OK, TOO_LATE, Reply, SlotOverflow, SlotPool
from flyball.engine.standby import Standby
from flyball.engine.switch import Switch
from flyball.engine.tally import Tally
from flyball.engine.watch import SILENT_AFTER, Watch
from flyball.errors import (
    DeadlineError,
    FlyballError,
    QueueFullError,
    RequestError,
    TooLargeError,
    UnavailableError,
    WorkerError,
)
from flyball.events import Events
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ports import (
    Answer,
    InferRequest,
    Interface,
    LadderStatus,
    LadderTotals,
    LatencyWindow,
    SwitchReport,
    Tensor,
    Timing,
)

_ATTEMPTS = 2
_SAFE = 0.75  # of a request's limit is what an estimate may fill: full to the brim, half of the answers would be late
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
        slots = max(config.slots, *(_slots_for(rung, config.lanes) for rung in folder.manifest.rung))
        self._slots = SlotPool.create(
            slots, folder.manifest.ladder.max_input_bytes, folder.manifest.ladder.max_output_bytes
        )
        self._queue = SlotQueue(slots, config.queue_limit)
        self._generations = itertools.count(1)
        self._tally = Tally()
        self._book = RungBook(folder, config, clock)
        self._switch = Switch(
            folder, config, self._slots, self._book, self._tally, standby, shares or Shares(), events, clock
        )
        self._watch = Watch(self._switch, self._book, config, self._forget)
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

    async def settled(self) -> None:
        """Until the climb that follows the start has come to its end."""
        await self._switch.settled()

    def tend(self) -> None:
        """Once a second or so: looks after the workers."""
        self._watch.tend()

    def configure(self, settings: LadderSettings) -> None:
        """Other settings for the cascade and the cache; answers kept so far are forgotten where these changed."""
        if (settings.cache, settings.cascade) == (self._settings.cache, self._settings.cascade):
            return
        self._settings = settings
        old, self._shortcuts = self._shortcuts, self._shortcuts_of(settings)
        old.close()

    def _shortcuts_of(self, settings: LadderSettings) -> Shortcuts:
        return Shortcuts(self.folder, settings, self._config, self._switch, self._counted, self._clock)

    async def close(self) -> None:
        """Requests that are with this ladder, in slots or waiting, are answered first."""
        if self._switch.active is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._queue.drained(), self._config.drain_timeout_s)
        self._watch.close()
        self._shortcuts.close()
        await self._switch.close()
        self._slots.close()

    def _forget(self) -> None:
        self._shortcuts.forget()

    async def switch(self, rung: str, reason: str) -> SwitchReport:
        return await self._switch.to(rung, reason)

    # ------------------------------------------------------------------------------------------------ requests

    async def infer(self, request: InferRequest) -> Answer:
        return await self._shortcuts.answer(request)

    async def _counted(self, request: InferRequest) -> Answer:
        try:
            return await self._infer(request)
        except (QueueFullError, TooLargeError, DeadlineError):
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

    async def _infer(self, request: InferRequest) -> Answer:
        started_s = self._clock.monotonic_s()
        limit_s = self._config.request_timeout_s
        if request.timeout_s is not None:
            limit_s = min(limit_s, request.timeout_s)
        deadline_s = started_s + limit_s
        tensors = self._ordered(request.inputs)
        urgency = Urgency(DEFAULT_PRIORITY if request.priority is None else request.priority, deadline_s)
        chosen = None
        if request.rung is None and request.timeout_s is not None:
            chosen = self._rung_in_time(urgency, limit_s)
        slot = await self._queue.take(urgency)
        held = True
        try:
            self._refuse_late(request, deadline_s)
            self._write(slot, tensors, deadline_s)
            why = ""
            for _ in range(_ATTEMPTS):
                warm = chosen is not None and chosen.alive()
                opened = chosen if chosen is not None and warm else await self._target(request.rung, deadline_s)
                chosen = None  # it was chosen for its speed: a second attempt takes whatever answers
                generation = next(self._generations)
                self._slots.hand_over_again(slot, generation, deadline_s)
                future = self._submit(opened, slot, generation, deadline_s)
                held = False  # from here on the slot is given back by whoever sees the worker finish
                try:
                    outcome = await self._wait(future, deadline_s, limit_s)
                finally:
                    held = _finished(future)
                if outcome is None:
                    reply = self._slots.read_reply(slot, generation)
                    return self._answer(reply, opened, started_s)
                why = outcome
            raise WorkerError(f"ladder {self.name}: the request failed on {_ATTEMPTS} workers in a row: {why}")
        finally:
            if held:
                self._release(slot)

    def _rung_in_time(self, urgency: Urgency, limit_s: float) -> OpenedRung | None:
        """The strongest warm rung that will answer within the limit; None for the one that answers anyway. Never
        stronger than the active one: the governor chose that for what the machine can bear. Raises DeadlineError when
        no rung will."""
        active = self._switch.active
        if active is None:
            return None
        ahead = self._queue.ahead_of(urgency)
        done_s, safe_s = active.pace.done_s(ahead), limit_s * _SAFE
        if done_s <= safe_s:
            return None
        wait_s = done_s - active.pace.own_s
        for opened in self._switch.weaker():
            if wait_s + opened.pace.own_s <= safe_s:
                return opened
        if not ahead:
            return None  # nothing else to do, so it is tried: an estimate that nothing corrects would stand for ever
        raise DeadlineError(
            f"ladder {self.name}: {ahead} requests are ahead, about {done_s * 1e3:.0f} ms of work: no answer within "
            f"{limit_s * 1e3:.0f} ms"
        )

    def _refuse_late(self, request: InferRequest, deadline_s: float) -> None:
        """One that waited for so long that its answer would come too late must not keep others waiting as well. Raises
        DeadlineError."""
        active = self._switch.active
        if request.timeout_s is None or request.rung is not None or active is None or self._queue.pending() < 2:
            return
        quickest_s = min([active.pace.own_s, *(o.pace.own_s for o in self._switch.weaker())])
        if self._clock.monotonic_s() + quickest_s > deadline_s:
            raise DeadlineError(f"ladder {self.name}: it waited until too little of its time was left")

    def _ordered(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs in the interface's order."""
        by_name = {t.name: t for t in inputs}
        try:
            return [by_name[t.name] for t in self._interface.inputs]
        except KeyError as error:
            raise RequestError(f"ladder {self.name}: the input {error} is missing") from None

    def _write(self, slot: int, tensors: Sequence[Tensor], deadline_s: float) -> None:
        try:
            self._slots.write_request(slot, 0, [(t.datatype, t.shape, memoryview(t.data)) for t in tensors], deadline_s)
        except SlotOverflow as error:
            raise TooLargeError(f"ladder {self.name}: {error} (max_input_bytes in its manifest)") from None

    async def _target(self, rung: str | None, deadline_s: float) -> OpenedRung:
        if rung is not None:
            left_s = max(0.0, deadline_s - self._clock.monotonic_s())
            # Opening a rung goes on for whoever asks next; this caller waits for it no longer than he said.
            opening = asyncio.ensure_future(self._switch.lend(rung))
            try:
                return await asyncio.wait_for(asyncio.shield(opening), left_s)
            except asyncio.TimeoutError:
                opening.add_done_callback(_look_at)
                raise DeadlineError(f"ladder {self.name}: the rung {rung} was not open in time") from None
        if self._switch.active is not None:
            return self._switch.active
        return await self._switch.answering(max(0.0, deadline_s - self._clock.monotonic_s()))

    def _submit(self, opened: OpenedRung, slot: int, generation: int, deadline_s: float) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if future.done():  # its caller has gone: nobody else will give the slot back
                self._release(slot)
            else:
                future.set_result(outcome)

        self._tally.executed()
        opened.submit(Ticket(slot, generation, deadline_s, done))
        return future

    async def _wait(self, future: asyncio.Future[Outcome], deadline_s: float, limit_s: float) -> Outcome:
        left_s = deadline_s - self._clock.monotonic_s()
        timer = asyncio.get_running_loop().call_later(left_s, _expire, future, limit_s)
        try:
            return await future
        finally:
            timer.cancel()

    def _answer(self, reply: Reply, opened: OpenedRung, started_s: float) -> Answer:
        if reply.status == BAD_REQUEST:
            raise RequestError(f"ladder {self.name}: {reply.message}")
        if reply.status == TOO_LATE:
            raise DeadlineError(f"ladder {self.name}: {reply.message}")
        if reply.status != OK:
            raise WorkerError(f"ladder {self.name}, rung {opened.rung.name}: {reply.message}")
        outputs = tuple(
            Tensor(public.name, t.datatype, t.shape, bytes(t.data))
            for public, t in zip(self._interface.outputs, reply.outputs, strict=True)
        )
        now_s = self._clock.monotonic_s()
        pre_s, run_s, post_s = reply.pre_ns / 1e9, reply.run_ns / 1e9, reply.post_ns / 1e9
        total_s = now_s - started_s
        timing = Timing(
            queue_s=max(0.0, total_s - pre_s - run_s - post_s),
            pre_s=pre_s,
            run_s=run_s,
            post_s=post_s,
            total_s=total_s,
        )
        self._tally.answered(opened.rung.name, timing, now_s)
        opened.pace.answered(now_s, pre_s + run_s + post_s, self._queue.pending() - 1)
        return Answer(outputs=outputs, rung=opened.rung.name, timing=timing)

    def _release(self, slot: int) -> None:
        self._slots.give_back_pages(slot)
        self._queue.give(slot)

    # ------------------------------------------------------------------------------------------------ looked at

    def status(self) -> LadderStatus:
        active = self._switch.active
        ago_s = None if active is None else max(0.0, self._clock.monotonic_s() - active.answered_s)
        state: Literal["loading", "ready", "degraded", "silent", "failed"]
        if ago_s is not None and ago_s > SILENT_AFTER * self._config.heartbeat_s:
            state = "silent"
        elif active is not None:
            state = "ready" if active.rung.name == self._switch.wanted else "degraded"
        else:
            state = "failed" if self._switch.error else "loading"
        return LadderStatus(
            name=self.name,
            version=self.version,
            state=state,
            active=active.rung.name if active is not None else None,
            pending=self._queue.pending(),
            rungs=self._book.entries(),
            error=self._switch.error,
            answered_s_ago=ago_s,
        )

    def window(self, seconds: float) -> LatencyWindow | None:
        active = self._switch.active
        if active is None:
            return None
        return self._tally.window(active.rung.name, seconds, self._clock.monotonic_s())

    def totals(self) -> LadderTotals:
        cache, cascade = self._shortcuts.counts()
        return msgspec.structs.replace(self._tally.totals(), cache=cache, cascade=cascade)


def _slots_for(rung: Rung, lanes: int) -> int:
    """Enough for a batch in every lane, and for the next one to gather meanwhile."""
    return rung.instances * (lanes if rung.batch == 1 else rung.batch * max(2, lanes))


def _look_at(opening: asyncio.Future[OpenedRung]) -> None:
    """Its error has been reported where the rung was opened; nobody else waits for it."""
    if not opening.cancelled():
        opening.exception()


def _finished(future: asyncio.Future[Outcome]) -> bool:
    """Whether the worker is done with the slot: also true when the caller was cancelled just after that."""
    return future.done() and not future.cancelled() and future.exception() is None


def _expire(future: asyncio.Future[Outcome], limit_s: float) -> None:
    if not future.done():
        future.set_exception(DeadlineError(f"no answer within {limit_s:.3g} s"))
