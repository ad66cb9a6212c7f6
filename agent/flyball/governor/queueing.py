"""The share of requests that will be late, and the latency that a given share stays under.

arrivals, work of one inference, what else waits at its accelerator -> share that misses the deadline

A single server with arrivals at random. The tail of the wait is Cramer and Lundberg's, for jobs of one size that give
the same load and the same mean residual work: P(W > x) = a exp(-y x / size), where y solves e^y - 1 = y / load and
a = (1 - load) / (load e^y - 1), which depend on the load alone. A request whose wait would be too long is refused at
once and keeps nobody waiting. The work itself is taken as log-normal. Pure; less than a microsecond each.
"""

from __future__ import annotations

import math
from math import erfc, exp, log, log1p, sqrt

FULL = 0.98  # beyond it the queue is not in balance: what does not fit is refused by the engine
NARROW, LEAST, MOST = 1e-6, 1e-9, 1e9  # relative deviations and ratios beyond which the answer is plain
_STEPS = 256


def _decay(load: float) -> float:
    """y > 0 with e^y - 1 = y / load, by Newton from above."""
    y = 2.0 * (1.0 - load) + 2.0 * log(1.0 / load) + 1.0
    for _ in range(60):
        step = (math.expm1(y) - y / load) / (math.exp(y) - 1.0 / load)
        y -= step
        if abs(step) < 1e-12:
            break
    return y


def _table() -> tuple[tuple[float, float], ...]:
    """(decay, amplitude) at loads from 0 to FULL; the last twice, so that there is always a next one."""
    found = []
    for i in range(_STEPS + 1):
        load = max(i / _STEPS * FULL, 1e-3)
        y = _decay(load)
        found.append((y, (1.0 - load) / (load * math.exp(y) - 1.0)))
    return (*found, found[-1])


_TABLE = _table()
_SCALE = _STEPS / FULL


def missed(deadline_s: float, work_s: float, sd_s: float, load: float, square: float) -> float:
    """0..1. `work_s` and `sd_s` are one inference's; `load` is the share of its time that the accelerator is busy,
    with this and everything else that runs on it, and `square` the sum over all of these of arrivals per second times
    the mean square of the work, seconds."""
    return waiting(by_work(deadline_s, work_s, sd_s), deadline_s - work_s, sd_s, load, square)


def by_work(deadline_s: float, work_s: float, sd_s: float) -> float:
    """0..1: what would be late with nobody before it. Work is never early by as much as it may be late: its logarithm
    is taken as normal."""
    wide, ratio = (sd_s / work_s, deadline_s / work_s) if work_s > 0.0 else (0.0, MOST)
    if wide > NARROW and LEAST < ratio < MOST:
        variance = log1p(wide * wide if wide < MOST else MOST * MOST)
        return 0.5 * erfc((log(ratio) + 0.5 * variance) / sqrt(2.0 * variance))
    return 0.0 if deadline_s > work_s else 1.0


def waiting(alone: float, slack_s: float, sd_s: float, load: float, square: float) -> float:
    """0..1, with the wait: `alone` is late without it, `slack_s` is what the mean work leaves of the deadline."""
    if load <= 0.0 or square <= 0.0:
        return alone
    busy = load if load < FULL else FULL
    if slack_s <= 0.0:
        by_wait = busy
    else:
        place = busy * _SCALE
        low = int(place)
        part = place - low
        y0, a0 = _TABLE[low]
        y1, a1 = _TABLE[low + 1]
        rate = (y0 + part * (y1 - y0)) * load / square
        # Longer work leaves less to wait: the mean over it is a little more than at the mean of it.
        near = rate * (slack_s - sd_s)
        far = rate * (slack_s + sd_s)
        tail = (exp(-near) if near > 0.0 else 1.0) + (exp(-far) if far < 700.0 else 0.0)
        by_wait = 0.5 * (a0 + part * (a1 - a0)) * tail
        if by_wait > busy:
            by_wait = busy
        # Of those that would wait too long the queue is spared: exact for M/G/1 with a bounded wait.
        by_wait *= (1.0 - busy) / (1.0 - busy * by_wait)
    share = alone + (1.0 - alone) * by_wait
    if load > 1.0 and share < 1.0 - 1.0 / load:
        share = 1.0 - 1.0 / load
    return share if share < 1.0 else 1.0


def latency_s(quantile: float, work_s: float, sd_s: float, load: float, square: float) -> float:
    """What the share `quantile` of the answers stays under."""
    wait_s, tail = 0.0, 1.0 - quantile
    if load > tail and square > 0.0:
        place = min(load, FULL) * _SCALE
        low = int(place)
        y, amplitude = _TABLE[low]
        if amplitude > tail:
            wait_s = log(amplitude / tail) * square / load / y
    by_work_s = _normal(quantile) * sd_s
    return work_s + sqrt(by_work_s * by_work_s + wait_s * wait_s)


def _normal(quantile: float) -> float:
    """The standard normal's quantile, to 5e-4 (Abramowitz and Stegun 26.2.23)."""
    tail = min(max(1.0 - quantile, 1e-9), 0.5)
    t = sqrt(-2.0 * log(tail))
    return t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
