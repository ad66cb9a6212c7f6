"""A rung with its workers: verified, opened, warmed, ready to answer.

artifact -> sha256 -> worker(s) -> canary, compared -> OpenedRung;  submit -> waiting -> idle lane -> worker
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from flyball.config import Engine
from flyball.engine.canary import Sample, wrong
from flyball.engine.memory import process_bytes
from flyball.engine.pace import Pace
from flyball.engine.process import Opening, Outcome, Request, Warmth, Worker
from flyball.engine.share import Share
from flyball.engine.slots import SlotPool
from flyball.errors import CanaryError
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ladder.verify import verify_rung

WARM_RUNS = 20
WARM_SECONDS = 0.25  # at most, so that opening a slow rung stays quick


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
        self.in_flight = 0
        self.pace = Pace(warmth.p50_s)
        self._limit_s = limit_s
        self._waiting: deque[tuple[Ticket, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def label(self) -> str:
        return self.workers[0].label

    @property
    def load_s(self) -> float:
        return max(w.load_s for w in self.workers)

    def alive(self) -> bool:
        return any(w.alive() for w in self.workers)

    def submit(self, ticket: Ticket) -> None:
        self.in_flight += 1
        self._idle.clear()
        self._waiting.append((ticket, time.monotonic()))
        self._dispatch()

    async def drained(self) -> None:
        if self.in_flight:
            await self._idle.wait()

    async def stop(self, timeout_s: float) -> None:
        await asyncio.gather(*(w.stop(timeout_s) for w in self.workers))

    def kill(self, cause: str) -> None:
        for worker in self.workers:
            worker.kill(cause)

    async def check(self, expected: Sample, timeout_s: float) -> None:
        """One canary run in every worker. Raises CanaryError, OpenError, WorkerError."""
        for worker in self.workers:
            if worker.alive():
                _compare(worker, await worker.canary(timeout_s), expected, self.rung.precision, self._finite)
                self.answered_s = time.monotonic()

    # ------------------------------------------------------------------------------------------------ dispatching

    def _dispatch(self, due: bool = False) -> None:
        """`due`: the first in line has waited for others for as long as it should."""
        while self._waiting:
            worker = self.workers[0] if len(self.workers) == 1 else max(self.workers, key=Worker.idle_lanes)
            if not worker.idle_lanes():
                if not self.alive():
                    self._refuse_waiting()
                return
            wait_s = 0.0 if due else self._worth_waiting_s()
            due = False
            if wait_s > 0:
                if self._timer is None:
                    self._timer = self._loop.call_later(wait_s, self._on_timer)
                return
            if self._share is not None and not self._share.may_start(self._ladder, self._dispatch):
                return
            batch = [self._waiting.popleft()[0] for _ in range(min(self.rung.batch, len(self._waiting)))]
            turn = _Turn(self._share, self._ladder, len(batch)) if self._share is not None else None
            worker.submit([Request(t.generation, t.slot, self._finisher(t, turn)) for t in batch], self._hang_s())
        if self._share is not None:
            self._share.leave(self._ladder)

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

    def _hang_s(self) -> float:
        """Half of the longest limit, so that a request in a worker that hangs has time left for another one; more where
        answers take long."""
        return min(self._limit_s, max(self._limit_s / 2, 30 * self.pace.own_s * self.rung.batch))

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch(due=True)

    def _finisher(self, ticket: Ticket, turn: _Turn | None = None) -> Callable[[Outcome], None]:
        def finished(outcome: Outcome) -> None:
            self.in_flight -= 1
            if turn is not None:
                turn.one_finished()
            if outcome is None:
                self.answered_s = time.monotonic()
            if self.in_flight == 0:
                self._idle.set()
            ticket.done(outcome)
            self._dispatch()

        return finished

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for ticket, _ in waiting:
            self._loop.call_soon(self._finisher(ticket), "the worker had ended")


async def open_rung(
    folder: LadderFolder, rung: Rung, config: Engine, slots: SlotPool, expected: Sample, share: Share | None = None
) -> OpenedRung:
    """`expected`: the canary's answer; `share`: of the accelerator, where ladders take turns on it. Raises LadderError
    (the artifact is not the manifest's), OpenError, CanaryError, WorkerError."""
    artifact = await asyncio.to_thread(verify_rung, folder, rung)  # hashing 25 MB takes 15 to 150 ms
    options = dict(rung.options)
    if config.threads:
        options.setdefault("threads", config.threads)
    opening = Opening(
        label=f"{folder.name}/{rung.name}",
        backend=rung.backend,
        artifact=artifact,
        options=options,
        plan=plan(folder, rung),
        lanes=1 if config.wake == "poll" else config.lanes,
        spin=config.wake == "poll",
        settle={"nice": config.worker_nice, "cpus": list(config.worker_cpus)},
    )
    finite = folder.manifest.ladder.task != "tensor"
    starting = [
        asyncio.create_task(_start(opening, slots, config.load_timeout_s, expected, rung.precision, finite))
        for _ in range(rung.instances)
    ]
    try:
        started = await asyncio.gather(*starting)
    except BaseException:
        for task in starting:
            task.cancel()
        for result in await asyncio.gather(*starting, return_exceptions=True):
            if not isinstance(result, BaseException):
                await result[0].stop(0)
        raise
    workers = [worker for worker, _ in started]
    return OpenedRung(folder.name, rung, workers, started[0][1], config.request_timeout_s, share, finite)


async def _start(
    opening: Opening, slots: SlotPool, timeout_s: float, expected: Sample, precision: str, finite: bool
) -> tuple[Worker, Warmth]:
    worker = await Worker.start(opening, slots, timeout_s)
    try:
        warmth = await worker.warm(WARM_RUNS, WARM_SECONDS, timeout_s)
        _compare(worker, warmth.sample, expected, precision, finite)
    except BaseException:
        await worker.stop(0)
        raise
    return worker, warmth


def _compare(worker: Worker, found: Sample, expected: Sample, precision: str, finite: bool) -> None:
    problem = wrong(found, expected, precision, finite)
    if problem:
        raise CanaryError(f"{worker.label}: {problem}")


def _sum(figures: Sequence[int | None]) -> int | None:
    """Not known as a whole when one is not known."""
    return sum(f for f in figures if f is not None) if None not in figures else None


def plan(folder: LadderFolder, rung: Rung) -> dict[str, object]:
    """What the worker's Pipeline needs of the manifest, as plain data."""
    ladder, interface = folder.manifest.ladder, folder.interface()
    return {
        "task": ladder.task,
        "inputs": msgspec.to_builtins(interface.inputs),
        "outputs": msgspec.to_builtins(interface.outputs),
        "labels": list(folder.labels),
        "top_k": folder.top_k() if ladder.labels else 0,
        "max_pixels": ladder.max_pixels,
        "pre": msgspec.to_builtins(rung.pre),
        "post": msgspec.to_builtins(rung.post),
        "input": rung.input,
        "output": rung.output,
        "batch": rung.batch,
    }
