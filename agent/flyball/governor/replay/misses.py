"""The share of requests that a rung misses in the long run, at some contention and rate.

rung, contention, rate, deadline -> one queue simulated -> share that is late or refused

The same queue as the plant's, over a fixed row of arrivals, so that shares can be compared with each other; known to
about half a point. What the oracle knows of a rung, and where the standard traces have their boundary.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from flyball.governor.replay.trace import Model

REQUESTS = 4000


def missed(rung: Model, contention: float, rate_per_s: float, deadline_s: float, slower: float = 1.0) -> float:
    """0..1; `slower` is a further factor on the work (throttling, too little memory)."""
    factor, spread = rung.slowed(contention)
    return _missed(_digits(rung.work_s * factor * slower), _digits(spread), _digits(rate_per_s), deadline_s)


def _digits(value: float) -> float:
    """Two and a half: what is simulated once serves many periods."""
    if value < 1e-12:
        return 0.0
    size = 10.0 ** (math.floor(math.log10(value)) - 2)
    return round(value / size / 2.0) * 2.0 * size


@lru_cache(maxsize=1)
def _row() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Arrivals at 1/s, and what makes each one's work longer or shorter."""
    rng = np.random.default_rng(0)
    return rng.exponential(1.0, REQUESTS).cumsum(), rng.standard_normal(REQUESTS)


@lru_cache(maxsize=20_000)
def _missed(mean_s: float, spread: float, rate_per_s: float, deadline_s: float) -> float:
    if rate_per_s <= 0.0:
        return 0.0
    gaps, normals = _row()
    times = (gaps / rate_per_s).tolist()
    works = (mean_s * np.exp(spread * normals - 0.5 * spread * spread)).tolist()
    longest_wait_s = max(deadline_s - mean_s, 0.0)
    free_s, misses = 0.0, 0
    for t_s, work_s in zip(times, works, strict=True):
        wait_s = free_s - t_s
        if wait_s <= 0.0:
            wait_s = 0.0
        elif wait_s > longest_wait_s:
            misses += 1
            continue
        free_s = t_s + wait_s + work_s
        if wait_s + work_s > deadline_s:
            misses += 1
    return misses / REQUESTS
