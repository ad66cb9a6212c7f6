"""A rung with its workers, ready to answer.

submit -> idle lane -> worker -> done;  where rungs batch or share an accelerator, or all lanes are taken:
submit -> waiting -> batch, turn -> idle lane ...
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flyball.engine.canary import Sample, wrong
from flyball.engine.memory import process_bytes
from flyball.engine.pace import Pace
from flyball.engine.process import Outcome, Request, Warmth, Worker
from flyball.engine.share import Share
from flyball.errors import CanaryError
from flyball.ladder.manifest import Rung

_HANG_LEAST_S = 1.0  # a machine under load may stand still for some time without any worker hanging


class Ticket(NamedTuple):
    """A request in its slot. Deadline and enqueueing in monotonic seconds of the event loop."""

    slot: int
    generation: int
    deadline_s: float
    done: Callable[[Outcome], None]


class _Turn:
    """On a shared accelerator, from handing a batch over until its last answer."""

    def __init__(self, share: Share, ladder: str, requests: int) -> None:
        self._share = share
        self._ladder = ladder
        self._left = requests
        self._began_s = time.monotonic()

    def one_finished(self) -> None:
        self._left -= 1
        if not self._left:
            self._share.finished(self._ladder, time.monotonic() - self._began_s)


class OpenedRung:
    """One rung, one or more workers with the same artifact. A worker that ends takes the requests in it along; the
    rung ends with its last one."""

    def __init__(
        self,
        ladder: str,
        rung: Rung,
        workers: Sequence[Worker],
        warmth: Warmth,
        limit_s: float,
        share: Share | None,
        finite: bool,
    ) -> None:
        """`finite`: whether its answers always are."""
        self.rung = rung
        self._finite = finite
        self._ladder = ladder
        self._share = share
        self.workers = workers
        self.warmth = warmth
        self.resident_bytes = _sum([process_bytes(w.pid) for w in workers])
        self.answered_s = time.monotonic()  # when it last gave an answer; the canary's counts
        self.failed = 0  # requests in a row that the session failed on
        self._checking = asyncio.Lock()
        self.in_flight = 0
        self.pace = Pace(warmth.p50_s, len(workers) * rung.batch)
        self._limit_s = limit_s
        self._waiting: deque[tuple[Ticket, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0  # when the timer goes off
        self._emptied: asyncio.Event | None = None  # while somebody waits for the last request to be answered
        # One worker that takes requests one by one, on an accelerator that is nobody else's: nothing to arrange.
        self._plain = workers[0] if len(workers) == 1 and rung.batch == 1 and share is None else None
        self._loop = asyncio.get_running_loop()

    @property
    def label(self) -> str:
        return self.workers[0].label

    @property
    def load_s(self) -> float:
        return max(w.load_s for w in self.workers)

    def alive(self) -> bool:
        return any(w.alive() for w in self.workers)

    def submit(self, slot: int, generation: int, deadline_s: float, done: Callable[[Outcome], None]) -> None:
        self.in_flight += 1
        plain = self._plain
        if plain is not None and not self._waiting and plain.idle_lanes():
            plain.submit((Request(generation, slot, self._finisher(done)),), self.hang_s)
            return
        self._waiting.append((Ticket(slot, generation, deadline_s, done), time.monotonic()))
        self._dispatch()

    async def drained(self) -> None:
        while self.in_flight:
            if self._emptied is None:
                self._emptied = asyncio.Event()
            self._emptied.clear()
            await self._emptied.wait()

    async def stop(self, timeout_s: float) -> None:
        await asyncio.gather(*(w.stop(timeout_s) for w in self.workers))

    def kill(self, cause: str) -> None:
        for worker in self.workers:
            worker.kill(cause)

    async def check(self, expected: Sample, timeout_s: float) -> None:
        """One canary run in every worker. Raises CanaryError, OpenError, WorkerError."""
        async with self._checking:
            for worker in self.workers:
                if worker.alive():
                    compare(worker, await worker.canary(timeout_s), expected, self.rung.precision, self._finite)
                    self.answered(time.monotonic())

    def worker_ended(self) -> None:
        """To be called when one of its workers has exited: what waits goes on with the others, or is told that there
        are none. It may wait for a turn of a share or for a batch, and then no answer comes that would tell it."""
        self._dispatch()

    def answered(self, now_s: float) -> None:
        """It gave a good answer just now."""
        self.answered_s = now_s
        self.failed = 0

    # ------------------------------------------------------------------------------------------------ dispatching

    def _dispatch(self, due: bool = False) -> None:
        """`due`: the first in line has waited for others for as long as it should."""
        while self._waiting:
            worker = self.workers[0] if len(self.workers) == 1 else max(self.workers, key=Worker.idle_lanes)
            if not worker.idle_lanes():
                if self.alive():
                    return
                self._refuse_waiting()
                break
            wait_s = 0.0 if due else self._worth_waiting_s()
            due = False
            if wait_s > 0:
                self._look_again(wait_s)
                return
            self._forget_timer()
            if self._share is not None and not self._share.may_start(self, self._ladder, self._dispatch):
                return
            batch = [self._waiting.popleft()[0] for _ in range(min(self.rung.batch, len(self._waiting)))]
            turn = _Turn(self._share, self._ladder, len(batch)) if self._share is not None else None
            worker.submit([Request(t.generation, t.slot, self._finisher(t.done, turn)) for t in batch], self.hang_s)
        self._forget_timer()
        if self._share is not None:
            self._share.leave(self)

    def _look_again(self, after_s: float) -> None:
        """Sooner than was meant, where a request with less time has come."""
        due_s = time.monotonic() + after_s
        if self._timer is None or due_s < self._due_s:
            self._forget_timer()
            self._due_s = due_s
            self._timer = self._loop.call_later(after_s, self._on_timer)

    def _forget_timer(self) -> None:
        """It was for those who have gone: those who come next may wait for as long as they did."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _worth_waiting_s(self) -> float:
        """How long the oldest request may still wait for others to share its run: never into anybody's deadline, and
        no longer than `batch_delay_ms`."""
        if len(self._waiting) >= self.rung.batch or not self.rung.batch_delay_ms:
            return 0.0
        now_s = time.monotonic()
        oldest_s = self._waiting[0][1]
        left_s = min(ticket.deadline_s for ticket, _ in self._waiting) - now_s
        run_s = self.pace.own_s * self.rung.batch  # at most: what a full batch gains is not known before
        return min(oldest_s + self.rung.batch_delay_ms / 1000 - now_s, left_s / 2 - run_s)

    def hang_s(self) -> float:
        """After so long without any answer a worker is taken for hung: far more than its answers take, and at most half
        of the longest limit, so that a request in it has time left for another one; more where answers take long."""
        usual_s = max(_HANG_LEAST_S, 30 * self.pace.own_s * self.rung.batch)
        return min(self._limit_s, max(min(self._limit_s / 2, usual_s), 3 * self.pace.own_s * self.rung.batch))

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch(due=True)

    def _finisher(self, done: Callable[[Outcome], None], turn: _Turn | None = None) -> Callable[[Outcome], None]:
        def finished(outcome: Outcome) -> None:
            self.in_flight -= 1
            if turn is not None:
                turn.one_finished()
            if self._emptied is not None and self.in_flight == 0:
                self._emptied.set()
            done(outcome)
            if self._waiting or self._share is not None:
                self._dispatch()

        return finished

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for ticket, _ in waiting:
            self._loop.call_soon(self._finisher(ticket.done), "the worker had ended")


def compare(worker: Worker, found: Sample, expected: Sample, precision: str, finite: bool) -> None:
    """Raises CanaryError."""
    problem = wrong(found, expected, precision, finite)
    if problem:
        raise CanaryError(f"{worker.label}: {problem}")


def _sum(figures: Sequence[int | None]) -> int | None:
    """Not known as a whole when one is not known."""
    return sum(f for f in figures if f is not None) if None not in figures else None
