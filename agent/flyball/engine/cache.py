"""Answers again what it has answered before, and computes once what several ask for at the same time. Opt-in.

request -> hash of version, rung and inputs -> stored answer | flight under way | flight of its own -> Answer

It belongs to one version of a ladder and to the event loop. It never returns an expired answer, never stores one of
another rung than the key's, and holds nobody to another's limit. With nothing stored it keeps no timer.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from flyball.clock import Clock
from flyball.engine.store import Store
from flyball.errors import DeadlineError, QueueFullError, UnavailableError
from flyball.ports import Answer, InferRequest, Tensor, Timing

Active = Callable[[], str | None]
Compute = Callable[[InferRequest], Awaitable[Answer]]

_ASIDE_BYTES = 1 << 20  # hashed in a thread from here on: 0.6 ms, which the event loop need not stand still for
_LATE_S = 0.25  # expired entries may stay in memory (unused) so long: at most 4 wake-ups a second, however many expire
_GRACE_S = 0.005  # a computation has its own limit, and knows better why it is late


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """Every request is counted once, when it is over: `hits` were answered with a stored answer, `shared` by another
    request's computation, `misses` are all others: computed, failed, given up, or asked while no rung was active."""

    hits: int
    misses: int
    shared: int
    entries: int
    bytes: int
    evicted: int  # entries that made room for others
    expired: int

    @property
    def hit_rate(self) -> float | None:
        """Stored answers only: a shared one was waited for like any other. None before the first request."""
        return self._share(self.hits)

    @property
    def spared_rate(self) -> float | None:
        """Requests that cost no computation: hits and shared ones. None before the first request."""
        return self._share(self.hits + self.shared)

    def _share(self, part: int) -> float | None:
        requests = self.hits + self.misses + self.shared
        return part / requests if requests else None


# ------------------------------------------------------------------------------------------------------ what is kept


# Key, whether the request named its rung, and whether it set a limit: one that did may get a weaker rung for it.
_Place = tuple[bytes, bool, bool]


@dataclass(slots=True, eq=False)
class _Flight:
    """One computation and those who wait for it, each with their deadline. A request that names its rung shares with
    no other kind: that one may be answered by any rung, this one may be refused because its rung is not open."""

    place: _Place
    rung: str
    active: Active
    was: str | None  # the active rung at the start
    deadline_s: float  # of the request that started it
    task: asyncio.Task[Answer]
    waiting: dict[asyncio.Future[bool], float] = field(default_factory=dict)  # False = the waiter's time is over
    keep: bool = True
    outcome: Answer | BaseException | None = None


class AnswerCache:
    """In front of a runner's computation, for one version of one ladder. `close` ends it."""

    def __init__(self, max_bytes: int, ttl_s: float, version: str, clock: Clock) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes: expected at least 0, found {max_bytes}")
        if not 0 < ttl_s < math.inf:
            raise ValueError(f"ttl_s: expected seconds above 0, found {ttl_s}")
        self._store = Store(max_bytes, ttl_s)
        self._version = version
        self._clock = clock
        self._flights: dict[_Place, _Flight] = {}  # those that a request may join
        self._running: set[_Flight] = set()  # all of them
        self._timer: asyncio.TimerHandle | None = None
        self._counts: Counter[str] = Counter()
        self._closed = False

    async def answer(self, request: InferRequest, active: Active, compute: Compute, limit_s: float) -> Answer:
        """`active` names the rung that would answer now; `compute` gets the request with what is left of `limit_s` as
        its timeout. The inputs must not change before this returns or is cancelled.

        The Timing is this request's own: a hit took `total_s`, a shared one spent all of it waiting (`queue_s`).
        Raises DeadlineError after `limit_s`, UnavailableError when closed, and what `compute` raises."""
        started_s = self._clock.monotonic_s()
        count: Literal["hits", "shared", "misses"] = "misses"
        try:
            rung = request.rung if request.rung is not None else active()
            if rung is None:
                return await compute(request)
            key = await self._key(request.inputs, rung)
            place = key, request.rung is not None, request.timeout_s is not None
            deadline_s = started_s + limit_s
            while True:
                now_s = self._clock.monotonic_s()
                entry = self._store.get(place[0], now_s)
                if entry is not None:
                    count = "hits"
                    return Answer(outputs=entry.outputs, rung=rung, timing=_timing(0.0, now_s - started_s))
                joined = self._flights.get(place)
                flight = joined or self._start(place, rung, request, active, compute, deadline_s)
                await self._wait(flight, deadline_s, 0.0 if joined else _GRACE_S, limit_s)
                total_s = self._clock.monotonic_s() - started_s
                if not isinstance(flight.outcome, Answer):
                    if _was_too_short(flight, deadline_s):
                        continue
                    assert flight.outcome is not None
                    raise flight.outcome
                if joined:
                    count = "shared"
                    return replace(flight.outcome, timing=_timing(total_s, total_s))
                return replace(flight.outcome, timing=_lengthened(flight.outcome.timing, total_s))
        finally:
            self._counts[count] += 1

    def stats(self) -> CacheStats:
        return CacheStats(
            hits=self._counts["hits"],
            misses=self._counts["misses"],
            shared=self._counts["shared"],
            entries=len(self._store),
            bytes=self._store.bytes,
            evicted=self._store.evicted,
            expired=self._store.expired,
        )

    def clear(self) -> None:
        """Forget every answer, for when a rung was found to answer wrongly. What is being computed still goes to those
        who wait for it, but is not stored, and nobody joins it any more."""
        self._store.clear()
        self._flights.clear()
        for flight in self._running:
            flight.keep = False
        self._arm()

    def retire(self) -> None:
        """Another takes its place: what is being computed still goes to those who wait for it."""
        self.clear()

    def close(self) -> None:
        """Whoever still waits gets UnavailableError."""
        self._closed = True
        self.clear()
        for flight in self._running:
            flight.task.cancel()

    # ------------------------------------------------------------------------------------------------- flights

    async def _key(self, inputs: Sequence[Tensor], rung: str) -> bytes:
        if sum(memoryview(tensor.data).nbytes for tensor in inputs) < _ASIDE_BYTES:
            return _digest(self._version, rung, inputs)
        return await asyncio.to_thread(_digest, self._version, rung, inputs)  # hashlib lets go of the GIL

    def _start(
        self, place: _Place, rung: str, request: InferRequest, active: Active, compute: Compute, deadline_s: float
    ) -> _Flight:
        if self._closed:
            raise UnavailableError(f"the answer cache of version {self._version} is closed: ask again")
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise DeadlineError("no time was left to compute the answer that another request could not get in time")
        # A caller without a limit of his own must not be taken for one who would rather have a weaker rung in time.
        asked_s = None if request.timeout_s is None else left_s
        # The computation may outlive the caller, whose buffers are then no longer its own.
        inputs = tuple(_owned(tensor) for tensor in request.inputs)
        task = asyncio.create_task(_fly(compute, replace(request, inputs=inputs, timeout_s=asked_s)))
        flight = _Flight(place, rung, active, active(), deadline_s, task)
        task.add_done_callback(lambda _: self._land(flight))
        self._flights[place] = flight
        self._running.add(flight)
        return flight

    async def _wait(self, flight: _Flight, deadline_s: float, grace_s: float, limit_s: float) -> None:
        """Until it has landed. Raises DeadlineError; the last to leave ends the flight."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        flight.waiting[future] = deadline_s
        left_s = max(0.0, deadline_s - self._clock.monotonic_s())
        # The grace begins only then: a loop that woke up late would find both over at once.
        timer = loop.call_later(left_s, loop.call_later, grace_s, _resolve, future, False)
        try:
            if not await future:
                raise DeadlineError(f"no answer within {limit_s:.3g} s")
        finally:
            timer.cancel()
            del flight.waiting[future]
            if not flight.waiting:
                self._detach(flight)
                flight.task.cancel()

    def _land(self, flight: _Flight) -> None:
        self._running.discard(flight)
        self._detach(flight)
        if flight.task.cancelled():
            flight.outcome = UnavailableError(f"the computation ended: version {self._version} is being closed")
        else:
            flight.outcome = flight.task.exception() or flight.task.result()
        # The one with the most time left wakes first: should the computation have had too little, it starts the next.
        for future in sorted(flight.waiting, key=flight.waiting.__getitem__, reverse=True):
            _resolve(future, True)
        answer = flight.outcome
        if isinstance(answer, Answer) and flight.keep and answer.rung == flight.rung and flight.active() == flight.was:
            self._store.put(flight.place[0], answer.outputs, self._clock.monotonic_s())
            self._arm()

    def _detach(self, flight: _Flight) -> None:
        if self._flights.get(flight.place) is flight:
            del self._flights[flight.place]

    # -------------------------------------------------------------------------------------------------- expiry

    def _arm(self) -> None:
        """One timer, for the first entry to expire. Should that entry leave earlier, it wakes once for nothing."""
        first_s = self._store.first_expiry_s()
        if first_s is None and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif first_s is not None and self._timer is None:
            loop = asyncio.get_running_loop()
            left_s = max(0.0, first_s - self._clock.monotonic_s())
            self._timer = loop.call_at(loop.time() + left_s + _LATE_S, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._store.sweep(self._clock.monotonic_s())
        self._arm()


async def _fly(compute: Compute, request: InferRequest) -> Answer:
    answer = await compute(request)
    return replace(answer, outputs=tuple(_owned(tensor) for tensor in answer.outputs))


def _was_too_short(flight: _Flight, deadline_s: float) -> bool:
    """Whether it failed for a want of time that a waiter with this deadline does not share."""
    return isinstance(flight.outcome, DeadlineError | QueueFullError) and flight.deadline_s < deadline_s


def _resolve(future: asyncio.Future[bool], landed: bool) -> None:
    if not future.done():
        future.set_result(landed)


def _timing(queue_s: float, total_s: float) -> Timing:
    return Timing(queue_s=queue_s, pre_s=0.0, run_s=0.0, post_s=0.0, total_s=total_s)


def _lengthened(timing: Timing, total_s: float) -> Timing:
    """The computation's, with the hash and what else came before it."""
    more_s = max(0.0, total_s - timing.total_s)
    return replace(timing, queue_s=timing.queue_s + more_s, total_s=timing.total_s + more_s)


def _owned(tensor: Tensor) -> Tensor:
    """With bytes that nobody else can change: no view of a buffer that is used again, none that keeps a larger one."""
    return tensor if type(tensor.data) is bytes else replace(tensor, data=bytes(tensor.data))


def _digest(version: str, rung: str, inputs: Sequence[Tensor]) -> bytes:
    """Two requests share it only if they are the same: the order of inputs means nothing, all else does.

    SHA-256, because whoever can craft a collision can have one picture answered with another's answer. Of the hashes
    in hashlib without known collisions it is the fastest on 150,528 bytes (us, p50; EPYC with SHA extensions, OpenSSL
    3.0, Python 3.11): sha256 82, blake2b 120 (keyed 121), sha512 142, shake_128 225, sha3_256 275. The broken sha1 (78)
    and md5 (194) would gain nothing. Without the extensions sha256 takes 225: ARMv8 boards have them, but for the
    Raspberry Pi 4. No key: the hash never leaves the process."""
    ordered = sorted(inputs, key=lambda tensor: tensor.name)
    sizes = [(t.name, t.datatype, tuple(t.shape), memoryview(t.data).nbytes) for t in ordered]
    # repr() of strings and integers is unambiguous and ends with its last bracket; the sizes then part the data.
    digest = hashlib.sha256(repr((version, rung, sizes)).encode())
    for tensor in ordered:
        digest.update(tensor.data)
    return digest.digest()
