"""What chance adds to a trace: when requests arrive, how long each takes, what sensors add.

Trace -> draw -> Sample, one row for each period

Drawn from the trace's seed alone, before any policy decides: all policies meet the same requests and the same noise
(common random numbers), so that their differences are their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.governor.replay.trace import Trace

TEMPERATURE_C = 0.2  # standard deviation; sensors step by 0.1 to 1 C
STEP_C = 0.1
CONTENTION = 0.3  # at most so far off, tasks per processor: it is counted at one instant
POWER = 0.02  # relative standard deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`offsets` (rising within a period, 0..1 of it) and `normals` are those of all requests, in order; the requests of
    period i are `first[i]` to `first[i + 1]`. `temperature_c`, `contention` and `power` are what sensors add, one value
    a period (power as a factor)."""

    first: list[int]
    offsets: npt.NDArray[np.float64]
    normals: npt.NDArray[np.float64]
    temperature_c: list[float]
    contention: list[float]
    power: list[float]


def draw(trace: Trace) -> Sample:
    counts = np.array([step.arrivals for step in trace.steps], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(counts)])
    arriving = np.random.default_rng([trace.header.seed, 1])
    offsets = arriving.random(int(first[-1]))
    period = np.repeat(np.arange(len(counts)), counts)
    offsets = np.sort(offsets + period) - period  # sorted within each period
    sensing = np.random.default_rng([trace.header.seed, 2])
    periods = len(counts)
    return Sample(
        first=first.tolist(),
        offsets=np.clip(offsets, 0.0, 1.0),
        normals=arriving.standard_normal(int(first[-1])),
        temperature_c=(TEMPERATURE_C * sensing.standard_normal(periods)).tolist(),
        contention=sensing.uniform(-CONTENTION, CONTENTION, periods).tolist(),
        power=(1.0 + POWER * sensing.standard_normal(periods)).tolist(),
    )
