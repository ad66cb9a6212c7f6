"""A rung with its workers: verified, opened, warmed, ready to answer.

artifact -> sha256 -> worker(s) -> canary, compared -> OpenedRung;  submit -> waiting -> idle lane -> worker
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from flyball.config import Engine
from flyball.engine.canary import Sample, wrong
from flyball.engine.memory import process_bytes
from flyball.engine.pace import Pace
from flyball.engine.process import Opening, Outcome, Request, Warmth, Worker
from flyball.engine.share import Share
from flyball.engine.slots import SlotPool
from flyball.errors import CanaryError, LadderError
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ladder.verify import verify_rung

WARM_RUNS = 20
_HANG_LEAST_S = 1.0  # a machine under load may stand still for some time without any worker hanging
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
        self.failed = 0  # requests in a row that the session failed on
        self._checking = asyncio.Lock()
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
        async with self._checking:
            for worker in self.workers:
                if worker.alive():
                    _compare(worker, await worker.canary(timeout_s), expected, self.rung.precision, self._finite)
                    self.answered()

    def answered(self) -> None:
        """It gave a good answer just now."""
        self.answered_s = time.monotonic()
        self.failed = 0

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
            if self._share is not None and not self._share.may_start(self, self._ladder, self._dispatch):
                return
            batch = [self._waiting.popleft()[0] for _ in range(min(self.rung.batch, len(self._waiting)))]
            turn = _Turn(self._share, self._ladder, len(batch)) if self._share is not None else None
            worker.submit([Request(t.generation, t.slot, self._finisher(t, turn)) for t in batch], self.hang_s())
        if self._share is not None:
            self._share.leave(self)

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

    def _finisher(self, ticket: Ticket, turn: _Turn | None = None) -> Callable[[Outcome], None]:
        def finished(outcome: Outcome) -> None:
            self.in_flight -= 1
            if turn is not None:
                turn.one_finished()
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
    folder: LadderFolder,
    rung: Rung,
    config: Engine,
    slots: SlotPool,
    expected: Sample,
    share: Share | None = None,
    starting: set[Worker] | None = None,
) -> OpenedRung:
    """`expected`: the canary's answer; `share`: of the accelerator, where ladders take turns on it; `starting` holds
    the workers until they are open. Raises LadderError (the artifact is not the manifest's), OpenError, CanaryError,
    WorkerError."""
    starting = set() if starting is None else starting
    artifact = await _verified(folder, rung, config.load_timeout_s)
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
    tasks = [
        asyncio.create_task(_start(opening, slots, config.load_timeout_s, expected, rung.precision, finite, starting))
        for _ in range(rung.instances)
    ]
    try:
        started = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, BaseException):
                await result[0].stop(0)
        raise
    workers = [worker for worker, _ in started]
    return OpenedRung(folder.name, rung, workers, started[0][1], config.request_timeout_s, share, finite)


async def _verified(folder: LadderFolder, rung: Rung, timeout_s: float) -> Path:
    """Hashing 25 MB takes 15 to 150 ms; on a disk or a share that hangs it takes for ever, in a thread that then keeps
    nobody from ending the process. Raises LadderError."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Path] = loop.create_future()

    def tell(path: Path | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(path or Path())

    def verify() -> None:
        path, error = None, None
        try:
            path = verify_rung(folder, rung)
        except BaseException as raised:  # handed on to the one who waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, path, error)

    threading.Thread(target=verify, name=f"verify-{rung.name}", daemon=True).start()
    try:
        return await asyncio.wait_for(done, timeout_s)
    except asyncio.TimeoutError:
        where = f"ladder {folder.name} {folder.version}, rung {rung.name}"
        why = f"its artifact could not be read within {timeout_s:g} s; is the disk well?"
        raise LadderError(f"{where}: {why}") from None


async def _start(
    opening: Opening,
    slots: SlotPool,
    timeout_s: float,
    expected: Sample,
    precision: str,
    finite: bool,
    starting: set[Worker],
) -> tuple[Worker, Warmth]:
    worker = await Worker.start(opening, slots, timeout_s, starting)
    try:
        warmth = await worker.warm(WARM_RUNS, WARM_SECONDS, timeout_s)
        _compare(worker, warmth.sample, expected, precision, finite)
    except BaseException:
        await worker.stop(0)
        raise
    finally:
        starting.discard(worker)
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
