"""What bench/contention.py found: how each rung of this machine slows down beside so many burners.

bench/contention.json <-> Contention -> slow_downs, hand_over, summary, table

Seconds, bytes, joules and watts; None is not known. Measures nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

SHORTEST_S = 1e-6  # of a hand-over: one that was measured as none
SMALL, LARGE = "v1_0.25_128", "v2_1.0_224"  # of the MobileNets


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One rung beside so many burners. Work is pre + run + post of the `n` answers, without waiting; total is from
    asking to having the answer."""

    burners_per_core: int
    burners: int
    n: int
    work_mean_s: float
    work_std_s: float | None
    work_p50_s: float
    work_p95_s: float
    work_p99_s: float
    total_p50_s: float
    total_p95_s: float
    runnable: float | None  # mean of the tasks running or ready to run at any time, the rung's own included
    rivals: float | None  # the same while no request was under way
    cpu_utilization: float | None  # of all cores, 0 to 1
    cpu_some: float | None  # share of time in which some task waited for the processor (PSI), 0 to 1


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    ladder: str
    rung: str
    precision: str
    accuracy: float | None
    accuracy_source: str
    open_s: float  # on the quiet machine: from asking for the rung until it could answer, its process started and warm
    load_s: float | None  # the part of it in which the worker read the model; rss_bytes are this worker's
    rss_bytes: int | None
    joules: float  # one inference beyond idling: its work alone times the watts of one core; estimated
    drift: float  # mean work alone: after everything over before
    levels: tuple[Level, ...]


class Contention(msgspec.Struct, frozen=True, kw_only=True):
    date: str
    machine: str
    cpus: int
    autogroup: bool  # whether the kernel shares the processor out by sessions first
    idle_w: float  # of the machine with no core busy, by the model of the sensor `estimated`
    load_w: float  # with all of them busy
    power_basis: str
    per_s: float  # requests asked for per second, where the rung can
    seconds: float  # for each rung and level; twice that for level 0
    rungs: tuple[Rung, ...]


def summary(result: Contention) -> dict[str, float | None]:
    """The last line."""
    ratios = {rung.rung: slow_downs(rung.levels) for rung in result.rungs}
    small, large = (ratios.get(name, {}).get(8) for name in (SMALL, LARGE))
    return {
        "rungs": len(result.rungs),
        "levels": max(len(rung.levels) for rung in result.rungs),
        "worst_slow_down": max(ratio for each in ratios.values() for ratio in each.values()),
        "slow_down_small_at_8": small,
        "slow_down_large_at_8": large,
        "worst_drift": max((rung.drift for rung in result.rungs), key=lambda drift: abs(drift - 1)),
    }


def slow_downs(levels: Sequence[Level]) -> dict[int, float]:
    """By burners per core: mean work over mean work alone."""
    alone_s = next(level.work_mean_s for level in levels if level.burners_per_core == 0)
    return {level.burners_per_core: round(level.work_mean_s / alone_s, 3) for level in levels}


def hand_over(level: Level) -> tuple[float, float]:
    """What an answer takes beside its work: the median in seconds and the deviation of its logarithm, of the log-normal
    that leads from the median and the 95th percentile of the work to those of the total."""
    median_s = max(level.total_p50_s - level.work_p50_s, SHORTEST_S)
    p95_s = max(level.total_p95_s - level.work_p95_s, median_s)
    return median_s, math.log(p95_s / median_s) / 1.645


def table(result: Contention) -> str:
    """A line for each rung, for people: mean work alone, and how many times that beside so many burners per core."""
    numbers = [level.burners_per_core for level in result.rungs[0].levels[1:]]
    lines = [f"{'rung':<16}{'alone ms':>9}" + "".join(f"{f'at {n}':>8}" for n in numbers)]
    for rung in result.rungs:
        ratios = slow_downs(rung.levels)
        lines.append(
            f"{rung.rung:<16}{rung.levels[0].work_mean_s * 1e3:>9.2f}" + "".join(f"{ratios[n]:>8.2f}" for n in numbers)
        )
    return "\n".join(lines)
