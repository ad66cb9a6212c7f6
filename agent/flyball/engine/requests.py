"""A ladder's requests, each from its tensors to its answer, whatever rung is active.

admission -> queue -> slot -> the rung's worker -> slot -> Answer   (a worker that dies: once more on the next)

A slot belongs to the ladder, not to a worker: a retry on another rung copies no tensor.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence

from flyball.clock import Clock
from flyball.config import Engine
from flyball.engine.deadlines import Deadlines
from flyball.engine.opened import OpenedRung
from flyball.engine.process import Outcome
from flyball.engine.queue import DEFAULT_PRIORITY, SlotQueue, Urgency
from flyball.engine.seats import Seats
from flyball.engine.slots import BAD_REQUEST, FAILED, OK, TOO_LATE, Reply, SlotOverflow, SlotPool
from flyball.engine.tally import Tally
from flyball.errors import (
    DeadlineError,
    RequestError,
    TooLargeError,
    WorkerError,
)
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ports import Answer, InferRequest, Tensor, Timing

log = logging.getLogger(__name__)

_ATTEMPTS = 2
_SAFE = 0.75  # of a request's limit is what an estimate may fill: full to the brim, half of the answers would be late


class Requests:
    """`lend` opens a rung that a request asks for by name."""

    def __init__(
        self,
        folder: LadderFolder,
        config: Engine,
        seats: Seats,
        slots: SlotPool,
        tally: Tally,
        lend: Callable[[str], Awaitable[OpenedRung]],
        clock: Clock,
    ) -> None:
        self._ladder = folder.name
        self._interface = folder.interface()
        self._only_input = self._interface.inputs[0].name if len(self._interface.inputs) == 1 else None
        self._config = config
        self._seats = seats
        self._slots = slots
        self._tally = tally
        self._lend = lend
        self._clock = clock
        self._queue = SlotQueue(slots.count, config.queue_limit)
        self._generations = itertools.count(1)
        self._deadlines = Deadlines()
        self._loop = asyncio.get_running_loop()

    def pending(self) -> int:
        return self._queue.pending()

    def close(self) -> None:
        self._deadlines.close()

    async def drained(self) -> None:
        """Until the requests in slots and those that wait have been answered."""
        await self._queue.drained()

    async def infer(self, request: InferRequest) -> Answer:
        """Raises QueueFullError, DeadlineError, TooLargeError, RequestError, UnavailableError, WorkerError."""
        started_s = self._clock.monotonic_s()
        limit_s = self._config.request_timeout_s
        if request.timeout_s is not None:
            limit_s = min(limit_s, request.timeout_s)
        deadline_s = started_s + limit_s
        tensors = self._ordered(request.inputs)
        chosen = None
        if request.timeout_s is not None or len(self._queue.free) < self._slots.count:
            chosen = self._rung_in_time(request, _urgency(request, deadline_s), limit_s)
        free = self._queue.take_free()
        slot = free if free is not None else await self._queue.take(_urgency(request, deadline_s), self._aim(request))
        held = True
        try:
            if free is None:
                self._refuse_late(request, deadline_s)
            generation = next(self._generations)
            self._write(slot, generation, tensors, deadline_s)
            why = ""
            for attempt in range(_ATTEMPTS):
                # Nearly every request takes one of the first two: what follows for the others costs microseconds.
                opened = chosen if chosen is not None and chosen.alive() else None
                if opened is None:
                    opened = self._seats.active if request.rung is None else self._seats.open_already(request.rung)
                if opened is None:
                    opened = await self._target(request.rung, deadline_s)
                chosen = None  # it was chosen for its speed: a second attempt takes whatever answers
                if attempt:
                    generation = next(self._generations)
                    self._slots.hand_over_again(slot, generation, deadline_s)
                future = self._submit(opened, slot, generation, deadline_s, started_s)
                held = False  # from here on the slot is given back by whoever sees the worker finish
                self._deadlines.add(future, deadline_s, limit_s)
                try:
                    outcome = await future
                    held = True
                except BaseException:
                    held = _finished(future)
                    raise
                finally:
                    self._deadlines.discard(future)
                if outcome is not None:
                    why = outcome
                    continue
                reply = self._slots.read_reply(slot, generation)
                if reply.status != FAILED:
                    return self._answer(reply, opened, started_s)
                opened.failed += 1
                why = f"rung {opened.rung.name}: {reply.message}"
                chosen = self._seats.other_than(opened)
                if chosen is None or request.rung is not None:
                    break
            raise WorkerError(f"ladder {self._ladder}: the request failed: {why}")
        finally:
            if held:
                self._release(slot)

    def _rung_in_time(self, request: InferRequest, urgency: Urgency, limit_s: float) -> OpenedRung | None:
        """The strongest warm rung that will answer within the limit; None for the one that answers anyway. Never
        stronger than the active one: the governor chose that for what the machine can bear. A request that names its
        rung gets no other, and one that sets no limit is refused only where the engine's cannot be met at all. Raises
        DeadlineError when no rung will."""
        aimed = self._seats.active if request.rung is None else self._seats.open_already(request.rung)
        if aimed is None:
            return None  # it will be opened: nobody knows how long that takes
        pace = aimed.pace
        ahead = aimed.in_flight + self._queue.ahead_of(urgency, aimed.rung.name)
        if request.timeout_s is None:
            done_s, safe_s = pace.least_s(ahead), limit_s
        else:
            done_s, safe_s = pace.done_s(ahead), limit_s * _SAFE
        if done_s <= safe_s:
            return None
        if request.rung is None and request.timeout_s is not None:
            if pace.own_s > safe_s and pace.try_again(self._clock.monotonic_s(), safe_s):
                return None
            wait_s = done_s - pace.own_s
            for opened in self._seats.weaker():
                if wait_s + opened.pace.own_s <= safe_s:
                    return opened
        if not ahead:
            return None  # nothing else to do, so it is tried: an estimate that nothing corrects would stand for ever
        raise DeadlineError(
            f"ladder {self._ladder}: {ahead} requests are ahead, about {done_s * 1e3:.0f} ms of work: no answer within "
            f"{limit_s * 1e3:.0f} ms"
        )

    def _refuse_late(self, request: InferRequest, deadline_s: float) -> None:
        """One that waited for so long that its answer would come too late must not keep others waiting as well. Raises
        DeadlineError."""
        aimed = self._seats.active if request.rung is None else self._seats.open_already(request.rung)
        if aimed is None or self._queue.pending() < 2:
            return
        weaker = () if request.rung is not None or request.timeout_s is None else self._seats.weaker()
        own_s = aimed.pace.least_s(0) if request.timeout_s is None else aimed.pace.own_s
        quickest_s = min([own_s, *(opened.pace.own_s for opened in weaker)])
        if self._clock.monotonic_s() + quickest_s > deadline_s:
            raise DeadlineError(f"ladder {self._ladder}: it waited until too little of its time was left")

    def _aim(self, request: InferRequest) -> str:
        """The rung that it waits for."""
        if request.rung is not None or self._seats.active is None:
            return request.rung or ""
        return self._seats.active.rung.name

    def _ordered(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The inputs in the interface's order."""
        if len(inputs) == 1 and inputs[0].name == self._only_input:
            return inputs
        by_name = {t.name: t for t in inputs}
        try:
            return [by_name[t.name] for t in self._interface.inputs]
        except KeyError as error:
            raise RequestError(f"ladder {self._ladder}: the input {error} is missing") from None

    def _write(self, slot: int, generation: int, tensors: Sequence[Tensor], deadline_s: float) -> None:
        contents = [(t.datatype, t.shape, memoryview(t.data)) for t in tensors]
        try:
            self._slots.write_request(slot, generation, contents, deadline_s)
        except SlotOverflow as error:
            raise TooLargeError(f"ladder {self._ladder}: {error} (max_input_bytes in its manifest)") from None

    async def _target(self, rung: str | None, deadline_s: float) -> OpenedRung:
        if rung is not None:
            left_s = max(0.0, deadline_s - self._clock.monotonic_s())
            # Opening a rung goes on for whoever asks next; this caller waits for it no longer than he said.
            opening = asyncio.ensure_future(self._lend(rung))
            try:
                return await asyncio.wait_for(asyncio.shield(opening), left_s)
            except asyncio.TimeoutError:
                opening.add_done_callback(_look_at)
                raise DeadlineError(f"ladder {self._ladder}: the rung {rung} was not open in time") from None
        return await self._seats.answering(max(0.0, deadline_s - self._clock.monotonic_s()))

    def _submit(
        self, opened: OpenedRung, slot: int, generation: int, deadline_s: float, started_s: float
    ) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = self._loop.create_future()
        rung = opened.rung.name

        def done(outcome: Outcome) -> None:
            self._tally.ended(rung, self._clock.monotonic_s())
            if future.done():  # its caller has gone: nobody else will read the reply and give the slot back
                if outcome is None:
                    self._answered_late(opened, slot, generation, started_s)
                self._release(slot)
            else:
                future.set_result(outcome)

        opened.submit(slot, generation, deadline_s, done)
        self._tally.begun(rung, self._clock.monotonic_s())  # `done` comes later, from the loop
        return future

    def _answer(self, reply: Reply, opened: OpenedRung, started_s: float) -> Answer:
        if reply.status == BAD_REQUEST:
            raise RequestError(f"ladder {self._ladder}: {reply.message}")
        if reply.status == TOO_LATE:
            raise DeadlineError(f"ladder {self._ladder}: {reply.message}")
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
        opened.answered(now_s)
        self._tally.inferred(opened.rung.name, timing, now_s)
        opened.pace.answered(now_s, pre_s + run_s + post_s, run_s, self._queue.pending() - 1)
        return Answer(outputs=outputs, rung=opened.rung.name, timing=timing)

    def _answered_late(self, opened: OpenedRung, slot: int, generation: int, started_s: float) -> None:
        """Nobody gets it, but whoever chooses a rung must see what it took: those in time alone would say that all is
        well, or nothing."""
        try:
            reply = self._slots.read_reply(slot, generation)
            if reply.status == OK:
                self._answer(reply, opened, started_s)
        except ValueError as error:
            log.error("ladder %s, rung %s: a late answer cannot be read: %s", self._ladder, opened.rung.name, error)

    def _release(self, slot: int) -> None:
        self._slots.give_back_pages(slot)
        self._queue.give(slot)


def slots_for(rung: Rung, lanes: int) -> int:
    """How many a rung needs: enough for a batch in every lane, and for the next one to gather meanwhile."""
    return rung.instances * (lanes if rung.batch == 1 else rung.batch * max(2, lanes))


def _urgency(request: InferRequest, deadline_s: float) -> Urgency:
    return Urgency(DEFAULT_PRIORITY if request.priority is None else request.priority, deadline_s)


def _look_at(opening: asyncio.Future[OpenedRung]) -> None:
    """Its error has been reported where the rung was opened; nobody else waits for it."""
    if not opening.cancelled():
        opening.exception()


def _finished(future: asyncio.Future[Outcome]) -> bool:
    """Whether the worker is done with the slot: also true when the caller was cancelled just after that."""
    return future.done() and not future.cancelled() and future.exception() is None
