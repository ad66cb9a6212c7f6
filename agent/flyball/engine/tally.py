"""What a runner counts: totals for metrics, and recent latencies and work per rung for the governor.

Only arithmetic on values handed in; the caller brings the time.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, deque

from flyball.ports import LadderTotals, LatencyWindow, Timing

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_KEPT = 4096  # answers per rung: 16 s at 256 answers/s, 0.6 MiB


class Tally:
    def __init__(self) -> None:
        self._success = 0
        self._failure: Counter[str] = Counter()
        self._executions = 0
        self._request_s = self._queue_s = self._pre_s = self._run_s = self._post_s = 0.0
        self._answers: Counter[str] = Counter()
        self._busy_s: dict[str, float] = {}
        self._busy_since: dict[
            str, tuple[int, float]
        ] = {}  # rung -> inferences under way, and since when there are any
        self._switches: Counter[str] = Counter()
        self._restarts: Counter[str] = Counter()
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._recent: dict[str, deque[tuple[float, float, float]]] = {}  # rung -> (when, total, work) of its answers

    def answered(self, timing: Timing) -> None:
        """A request, whether a rung, a cascade of them or the cache answered it."""
        self._success += 1
        self._request_s += timing.total_s
        self._queue_s += timing.queue_s
        self._pre_s += timing.pre_s
        self._run_s += timing.run_s
        self._post_s += timing.post_s
        self._buckets[bisect_left(BUCKETS_S, timing.total_s)] += 1

    def inferred(self, rung: str, timing: Timing, now_s: float) -> None:
        """One inference of a rung: a request has none when the cache knew the answer, and two when it was escalated."""
        self._answers[rung] += 1
        recent = self._recent.get(rung)
        if recent is None:
            recent = self._recent[rung] = deque(maxlen=_KEPT)
        recent.append((now_s, timing.total_s, timing.pre_s + timing.run_s + timing.post_s))

    def begun(self, rung: str, now_s: float) -> None:
        """A rung was given an inference; `ended` follows in any case."""
        self._executions += 1
        count, since_s = self._busy_since.get(rung, (0, now_s))
        self._busy_since[rung] = count + 1, since_s

    def ended(self, rung: str, now_s: float) -> None:
        count, since_s = self._busy_since.pop(rung)
        if count > 1:
            self._busy_since[rung] = count - 1, since_s
        else:
            self._busy_s[rung] = self._busy_s.get(rung, 0.0) + now_s - since_s

    def failed(self, reason: str) -> None:
        """`reason` is one of the protocol's REJECTED, CANCELED, BACKEND, OTHER."""
        self._failure[reason] += 1

    def switched(self, source: str, target: str, reason: str) -> None:
        self._switches[f"{source}>{target}:{reason}"] += 1

    def restarted(self, cause: str) -> None:
        self._restarts[cause] += 1

    def window(self, rung: str, seconds: float, now_s: float, deadline_s: float | None = None) -> LatencyWindow:
        since_s = now_s - seconds
        total_s: list[float] = []
        work_s: list[float] = []
        for at_s, total, work in reversed(self._recent.get(rung, ())):
            if at_s < since_s:
                break
            total_s.append(total)
            work_s.append(work)
        total_s.sort()
        p50_s, p95_s, p99_s = (percentile(total_s, q) for q in (0.5, 0.95, 0.99))
        mean_s, std_s = mean_and_deviation(work_s)
        return LatencyWindow(
            rung=rung,
            seconds=seconds,
            count=len(total_s),
            p50_s=p50_s,
            p95_s=p95_s,
            p99_s=p99_s,
            work_mean_s=mean_s,
            work_std_s=std_s,
            late=None if deadline_s is None else len(total_s) - bisect_right(total_s, deadline_s),
        )

    def totals(self, now_s: float) -> LadderTotals:
        busy_s = dict(self._busy_s)
        for rung, (_, since_s) in self._busy_since.items():  # a long inference is work from its beginning on
            busy_s[rung] = busy_s.get(rung, 0.0) + now_s - since_s
        below, cumulative = {}, 0
        for bound, count in zip((*BUCKETS_S, float("inf")), self._buckets, strict=True):
            cumulative += count
            below[bound] = cumulative
        return LadderTotals(
            success=self._success,
            failure=dict(self._failure),
            executions=self._executions,
            request_ns=int(self._request_s * 1e9),
            queue_ns=int(self._queue_s * 1e9),
            pre_ns=int(self._pre_s * 1e9),
            run_ns=int(self._run_s * 1e9),
            post_ns=int(self._post_s * 1e9),
            answers_by_rung=dict(self._answers),
            busy_s_by_rung=busy_s,
            switches=dict(self._switches),
            worker_restarts=dict(self._restarts),
            latency_buckets=below,
        )


def mean_and_deviation(values: list[float]) -> tuple[float | None, float | None]:
    """The mean, None of nothing; the sample standard deviation, None of fewer than two."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def percentile(ordered: list[float], q: float) -> float | None:
    """Nearest rank (the smallest value that at least the fraction q does not exceed); None of nothing."""
    if not ordered:
        return None
    rank = -(-len(ordered) * q // 1)  # ceiling
    return ordered[max(0, int(rank) - 1)]
