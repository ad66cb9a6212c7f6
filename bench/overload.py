"""What is left of a ladder's throughput when more is asked of it than it can do: open-loop Poisson arrivals.

MobileNet v2 uint8 (150,528 bytes in, one thread) in one LadderRunner; this process keeps to the first core, the worker
to the last one. Capacity is measured first, closed-loop with 8 in flight, then come blocks at 0.5, 1, 2, 5 and 10 times
that, up and down in turn. Each request has a deadline: 10 x the p50 of one request alone, at least 50 ms. The arrival
times are drawn beforehand from a seeded exponential distribution and never wait for an answer; all times count from the
moment for which the arrival was scheduled. A chain of timers in the runner's own event loop starts them: what that loop
is late by counts against the runner.

goodput_<load>x       right answers within their deadline, per second (median of the blocks)
goodput_at_5x_ratio   the one at 5x over the best of all loads
accepted_p99_over_deadline  at 5x: p99 of the latency of all answers, in time or late, over the deadline
refusal_p99_ms        arrival to refusal, the worst of the loads from 2x on; a refusal is any QueueFullError and any
                      DeadlineError, those that came only after waiting included
expired_pct, expired_at_5x_pct  the latter: refused neither without waiting for anything nor within 5 ms, in percent of
                      all arrivals (of those at 5x)
late_at_5x_pct        answers after their deadline, in percent of all arrivals at 5x
error_pct             every other error and every wrong answer, in percent of all arrivals
capacity_after_qps    capacity once more at the end: far from capacity_qps means that the machine was not quiet
generator_lag_p99_ms  how late requests were started, the worst of the loads: above 5 ms the figures are doubtful

    python bench/overload.py [--quick] [--json]
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import uvloop
from _rig import (
    IN_FLIGHT,
    LARGE,
    answers_of,
    arguments,
    closed_loop,
    images,
    missing,
    output_bytes,
    percentile,
    running,
)

from flyball.config import Engine
from flyball.engine.runner import LadderRunner
from flyball.errors import DeadlineError, QueueFullError
from flyball.ports import InferRequest, Tensor

LOADS = (0.5, 1.0, 2.0, 5.0, 10.0)
JUDGED = 5.0  # the load that the bars are for
OVERLOAD = 2.0  # from here on refusals are judged
AT_ONCE_S = 0.005
DOUBTFUL_LAG_S = 0.005
WARM_SHARE = 0.2  # of a block: until the queue is as it stays

Kind = Literal["answered", "wrong", "refused", "expired", "failed"]
REFUSALS = ("refused", "expired")  # at once, after waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What became of one. `due_s` and `ended_s` count from the start of its block."""

    kind: Kind
    due_s: float
    lag_s: float
    ended_s: float

    @property
    def took_s(self) -> float:
        return self.ended_s - self.due_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    load: float
    seconds: float
    arrivals: list[Arrival]

    def goodput(self, deadline_s: float) -> float:
        """Answers that came while arrivals did: what is answered after the last arrival is of no load."""
        from_s = self.seconds * WARM_SHARE
        good = sum(
            a.kind == "answered" and a.took_s <= deadline_s and from_s <= a.ended_s < self.seconds
            for a in self.arrivals
        )
        return good / (self.seconds - from_s)


class Target:
    """The runner, the pictures that it is asked, and what it must answer to them."""

    def __init__(
        self, runner: LadderRunner, pictures: Sequence[Tensor], expected: Sequence[bytes], deadline_s: float
    ) -> None:
        self._runner = runner
        self._expected = expected
        self._requests = [InferRequest(inputs=(picture,), timeout_s=deadline_s) for picture in pictures]
        self.complaints: Counter[str] = Counter()

    async def ask(self, number: int, began_s: float, due_s: float) -> Arrival:
        started_s = time.perf_counter()
        number %= len(self._requests)
        suspended = asyncio.Event()  # set by the loop as soon as it gets its turn
        turn = asyncio.get_running_loop().call_soon(suspended.set)
        kind: Kind
        try:
            answer = await self._runner.infer(self._requests[number])
            kind = "answered" if output_bytes(answer.outputs) == self._expected[number] else "wrong"
        except QueueFullError:
            kind = "refused"
        except DeadlineError:
            at_once = not suspended.is_set() or time.perf_counter() - started_s < AT_ONCE_S
            kind = "refused" if at_once else "expired"
        except Exception as error:
            kind = "failed"
            self.complaints[f"{type(error).__name__}: {error}"] += 1
        finally:
            ended_s = time.perf_counter()
            turn.cancel()
        return Arrival(kind=kind, due_s=due_s, lag_s=started_s - began_s - due_s, ended_s=ended_s - began_s)


@dataclass(slots=True)
class Generator:
    """Starts each request at its time, whatever became of the ones before."""

    target: Target
    due_s: Sequence[float]
    began_s: float = 0.0
    tasks: list[asyncio.Task[Arrival]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> list[Arrival]:
        self.began_s = time.perf_counter()
        self._fire()
        await self.done.wait()
        return list(await asyncio.gather(*self.tasks))

    def _fire(self) -> None:
        loop = asyncio.get_running_loop()
        passed_s = time.perf_counter() - self.began_s
        while len(self.tasks) < len(self.due_s) and self.due_s[len(self.tasks)] <= passed_s:
            number = len(self.tasks)
            self.tasks.append(loop.create_task(self.target.ask(number, self.began_s, self.due_s[number])))
        if len(self.tasks) == len(self.due_s):
            self.done.set()
            return
        # uvloop's timers have whole milliseconds: with less it would go round and round, and take the worker's core.
        loop.call_later(max(0.001, self.due_s[len(self.tasks)] - passed_s), self._fire)


def schedule(rate: float, seconds: float, rng: np.random.Generator) -> list[float]:
    """A Poisson process: times from 0 on, all below `seconds`."""
    gaps = rng.exponential(1 / rate, int(rate * seconds * 1.5) + 100)
    times = np.cumsum(gaps)
    return [float(t) for t in times[times < seconds]]


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 3) if whole else 0.0


def of_kind(arrivals: Sequence[Arrival], kind: Kind) -> int:
    return sum(a.kind == kind for a in arrivals)


def judge(blocks: Sequence[Block], deadline_s: float) -> dict[str, float]:
    """The figures of all blocks; pure."""
    goodput = {
        load: statistics.median(b.goodput(deadline_s) for b in blocks if b.load == load)
        for load in sorted({b.load for b in blocks})
    }
    arrivals = {load: [a for b in blocks if b.load == load for a in b.arrivals] for load in goodput}
    everything = [a for b in blocks for a in b.arrivals]
    judged = arrivals[JUDGED]
    took_s = [a.took_s for a in judged if a.kind == "answered"]
    refusals_s = {load: [a.took_s for a in arrivals[load] if a.kind in REFUSALS] for load in goodput}
    best = max(goodput.values())
    return {
        "goodput_at_5x_ratio": round(goodput[JUDGED] / best, 4) if best else 0.0,
        # Without an answer there is no latency to praise.
        "accepted_p99_over_deadline": round(percentile(took_s, 0.99) / deadline_s, 4) if took_s else 99.0,
        "refusal_p99_ms": round(
            max(percentile(refusals_s[load], 0.99) for load in goodput if load >= OVERLOAD) * 1e3, 3
        ),
        "error_pct": percent(of_kind(everything, "failed") + of_kind(everything, "wrong"), len(everything)),
        "expired_pct": percent(of_kind(everything, "expired"), len(everything)),
        "expired_at_5x_pct": percent(of_kind(judged, "expired"), len(judged)),
        "late_at_5x_pct": percent(sum(t > deadline_s for t in took_s), len(judged)),
        "refused_at_5x_pct": percent(of_kind(judged, "refused"), len(judged)),
        **{f"goodput_{load:g}x": round(value, 1) for load, value in goodput.items()},
        "generator_lag_p99_ms": round(max(percentile([a.lag_s for a in v], 0.99) for v in arrivals.values()) * 1e3, 3),
    }


def row(block: Block, deadline_s: float) -> str:
    arrivals = block.arrivals
    took_ms = [a.took_s * 1e3 for a in arrivals if a.kind == "answered"]
    refused_ms = [a.took_s * 1e3 for a in arrivals if a.kind in REFUSALS]
    lag_ms = percentile([a.lag_s * 1e3 for a in arrivals], 0.99)
    return (
        f"{block.load:>4g}x {len(arrivals) / block.seconds:>8.0f} {block.goodput(deadline_s):>9.1f} "
        f"{percentile(took_ms, 0.5):>8.1f} {percentile(took_ms, 0.99):>8.1f} {len(refused_ms):>8} "
        f"{percentile(refused_ms, 0.99):>8.2f} {of_kind(arrivals, 'expired'):>8} "
        f"{of_kind(arrivals, 'failed') + of_kind(arrivals, 'wrong'):>6} {lag_ms:>7.2f}"
    )


HEADER = " load offered/s goodput/s   p50 ms   p99 ms  refused   p99 ms  expired errors lag p99"


async def measure(seconds: float, rounds: int, say: bool) -> dict[str, float]:
    cores = sorted(os.sched_getaffinity(0))
    # Left to itself the kernel at times wakes the event loop on the core where the worker computes, 4 ms late (p99).
    os.sched_setaffinity(0, {cores[0]})
    async with running(LARGE, Engine(threads=1, worker_cpus=(cores[-1],))) as runner:
        pictures = images(runner.interface, 8)
        expected = await answers_of(runner, pictures)
        await closed_loop(runner, pictures, IN_FLIGHT, 1.0)
        alone = await closed_loop(runner, pictures, 1, min(seconds, 5.0))
        capacity = (await closed_loop(runner, pictures, IN_FLIGHT, min(seconds, 5.0))).per_s
        p50_s = percentile(alone.latencies_s, 0.5)
        deadline_s = max(10 * p50_s, 0.05)
        if say:
            print(f"capacity {capacity:.0f} per s, p50 alone {p50_s * 1e3:.2f} ms, deadline {deadline_s * 1e3:.1f} ms")
            print(HEADER, flush=True)
        target = Target(runner, pictures, expected, deadline_s)
        rng = np.random.default_rng(20)
        blocks: list[Block] = []
        for number in range(rounds):
            for load in LOADS if number % 2 == 0 else reversed(LOADS):
                arrivals = await Generator(target, schedule(load * capacity, seconds, rng)).run()
                blocks.append(Block(load=load, seconds=seconds, arrivals=arrivals))
                # These 200,000 in the end are the generator's: looked through by the collector again and again, they
                # stop the loop for 70 ms at a time. What the runner leaves behind is still collected.
                gc.collect()
                gc.freeze()
                if say:
                    print(row(blocks[-1], deadline_s), flush=True)
        after = (await closed_loop(runner, pictures, IN_FLIGHT, min(seconds, 5.0))).per_s
    for complaint, count in target.complaints.most_common(5):
        print(f"{count} x {complaint}", file=sys.stderr)
    return {
        **judge(blocks, deadline_s),
        "capacity_qps": round(capacity, 1),
        "capacity_after_qps": round(after, 1),
        "p50_alone_ms": round(p50_s * 1e3, 3),
        "deadline_ms": round(deadline_s * 1e3, 1),
    }


def main() -> int:
    options = arguments(__doc__, "2 blocks of 2.5 s for each load instead of 5 of 10 s").parse_args()
    if missing(LARGE):
        return 1
    seconds, rounds = (2.5, 2) if options.quick else (10.0, 5)
    uvloop.install()
    result = asyncio.run(measure(seconds, rounds, not options.json))
    if result["generator_lag_p99_ms"] > DOUBTFUL_LAG_S * 1e3:
        lag_ms = result["generator_lag_p99_ms"]
        print(f"doubtful: the generator itself was {lag_ms:.1f} ms late (p99); is the machine quiet?", file=sys.stderr)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
