"""How requests come while a rung is measured: MLPerf's four scenarios.

single   one query at a time, one inference each
multi    one query at a time, 8 inferences each; over with the last of them
server   Poisson arrivals at a rate, whether answered in time or not; latency counts from when a query was due
offline  as many at once as there is room for

drive(ask) -> Load: latencies, inferences, errors. Does not know what is asked; an error is counted, never hidden.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from flyball.errors import FlyballError
from flyball.ladder.profile import Scenario

# What a scenario is judged by, as MLPerf Inference does; of offline that is the throughput.
JUDGED_BY: dict[Scenario, float | None] = {"single": 0.90, "multi": 0.99, "server": 0.99, "offline": None}
PER_QUERY = 8  # inferences, in the scenario multi
MOST_ERRORS = 100  # then there is nothing to measure
MOST_ARRIVALS = 10_000_000

Ask: TypeAlias = Callable[[int], Awaitable[object]]  # the inference's number -> its answer, or a FlyballError


@dataclass(slots=True, kw_only=True)
class Load:
    """What came of it. Times are those of the clock given to `drive`; latencies are of whole queries, in seconds."""

    start_s: float
    end_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    inferences: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def per_s(self) -> float:
        """Answered inferences per second."""
        return self.inferences / self.duration_s if self.duration_s > 0 else 0.0

    def hopeless(self) -> bool:
        return self.errors.total() >= MOST_ERRORS


async def drive(
    scenario: Scenario,
    ask: Ask,
    seconds: float,
    now: Callable[[], float],
    stop: asyncio.Event,
    *,
    in_flight: int = 1,
    rate_per_s: float = 0.0,
    seed: int = 0,
) -> Load:
    """Queries for so many seconds, and then until the last of them is answered; until `stop` is set, if that is sooner.
    `in_flight` is for offline, `rate_per_s` and `seed` are for server."""
    load = Load(start_s=now())
    if scenario == "server":
        await _open_loop(ask, load, arrivals(rate_per_s, seconds, seed), seconds, now, stop)
    else:
        clients = in_flight if scenario == "offline" else 1
        per_query = PER_QUERY if scenario == "multi" else 1
        await asyncio.gather(
            *(_client(ask, load, number, clients, per_query, seconds, now, stop) for number in range(clients))
        )
    load.end_s = now()
    return load


def arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Seconds from the start, of a Poisson process; the same for the same seed. Raises ValueError."""
    if not 0 < rate_per_s * seconds <= MOST_ARRIVALS:
        raise ValueError(f"expected 1 to {MOST_ARRIVALS} arrivals, found {rate_per_s:g} per s for {seconds:g} s")
    dice = random.Random(seed)  # noqa: S311 - arrivals, not secrets
    times: list[float] = []
    t_s = dice.expovariate(rate_per_s)
    while t_s < seconds:
        times.append(t_s)
        t_s += dice.expovariate(rate_per_s)
    return times


async def _client(
    ask: Ask,
    load: Load,
    number: int,
    clients: int,
    per_query: int,
    seconds: float,
    now: Callable[[], float],
    stop: asyncio.Event,
) -> None:
    """Asks again as soon as it has its answer."""
    while not (stop.is_set() or load.hopeless()):
        sent_s = now()
        if sent_s - load.start_s >= seconds:
            return
        await _query(ask, load, number, per_query, sent_s, now)
        number += clients * per_query


async def _query(ask: Ask, load: Load, first: int, count: int, since_s: float, now: Callable[[], float]) -> None:
    if count == 1:
        whole = await _asked(ask, load, first)
    else:
        whole = all(await asyncio.gather(*(_asked(ask, load, first + i) for i in range(count))))
    if whole:
        load.latencies_s.append(now() - since_s)


async def _asked(ask: Ask, load: Load, number: int) -> bool:
    try:
        await ask(number)
    except FlyballError as error:
        load.errors[str(error)] += 1
        return False
    load.inferences += 1
    return True


async def _open_loop(
    ask: Ask, load: Load, due_s: list[float], seconds: float, now: Callable[[], float], stop: asyncio.Event
) -> None:
    """A thread keeps the time: an event loop's own timers come up to a millisecond late, as long as a small model
    takes."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    all_issued = asyncio.Event()
    leave = threading.Event()

    def arrive(number: int, at_s: float) -> None:
        if stop.is_set() or load.hopeless():
            leave.set()
            return
        task = loop.create_task(_query(ask, load, number, 1, at_s, now))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def issue() -> None:
        for number, at_s in enumerate(due_s):
            if leave.wait(max(0.0, load.start_s + at_s - now())):
                break
            loop.call_soon_threadsafe(arrive, number, load.start_s + at_s)
        else:
            leave.wait(max(0.0, load.start_s + seconds - now()))
        loop.call_soon_threadsafe(all_issued.set)

    thread = threading.Thread(target=issue, name="arrivals", daemon=True)
    thread.start()
    ends = [asyncio.create_task(event.wait()) for event in (all_issued, stop)]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leave.set()
        thread.join()
        for end in ends:
            end.cancel()
    await asyncio.gather(*tasks)
