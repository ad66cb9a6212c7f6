"""What a run was worth, in figures.

Run (and the oracle's Run) -> score -> Score; two rows of figures over the same seeds -> paired -> difference, interval

None where there is nothing to judge by: no answers, no contention that came, no predictions. Never 0 for that.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from flyball.governor.replay import oracle
from flyball.governor.replay.run import Run

Z95 = 1.96
# Student's t at 97.5 %, by degrees of freedom; beyond 30 the normal's is near enough.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
       2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
       2.042)  # fmt: skip
CAP_S = 10.0  # a power cap is on the mean of so long
CONTENTION_STEP = 0.5  # a change of contention from which the time to recover is taken
CALM_PERIODS = 3
FORETOLD_S = 5.0  # a predicted p95 is compared with that of the window so long after


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """`violations` is the share of all requests that were late or refused, `violations_interval` its 95 % interval
    (Wilson; it takes requests as independent, which in a queue they are not quite). `accuracy` is the mean over
    answers, `on_time_accuracy` that over all requests, those missed counted as wrong. `joules_per_answer` is beyond
    idle, loading included, `gross_joules_per_answer` all that the machine took. `recovery_s` is the mean time from a
    rise of contention until 3 periods in a row held the quantile. `prediction_error` is the median of |predicted p95 /
    what came - 1|. `regret` is the oracle's worth less this one's, in accuracy per request, broken limits included."""

    policy: str
    requests: int
    answered: int
    late: int
    refused: int
    violations: float | None
    violations_interval: tuple[float, float] | None
    accuracy: float | None
    on_time_accuracy: float | None
    joules_per_answer: float | None
    gross_joules_per_answer: float | None
    switches: int
    switches_per_h: float
    throttled_s: float
    over_limit_s: float
    over_cap_s: float
    short_memory_s: float
    recovery_s: float | None
    prediction_error: float | None
    worth: float
    regret: float | None
    decide_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of one less other over the same seeds, and its 95 % interval (None: fewer than two)."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and (self.interval[0] > 0.0 or self.interval[1] < 0.0)


def score(run: Run, best: Run | None = None, aim: oracle.Aim = oracle.AIM) -> Score:
    """`best` is the oracle's run of the same trace; without it there is no regret. `aim` is what it was chosen with."""
    periods, trace = run.periods, run.trace
    period_s, limits = trace.header.period_s, trace.header.limits
    requests = sum(p.arrivals for p in periods)
    late, refused = sum(p.late for p in periods), sum(p.refused for p in periods)
    answered = sum(p.answered for p in periods)
    joules = sum(p.joules for p in periods)
    gross_j = period_s * sum(p.power_w for p in periods)
    worth = oracle.worth(trace, [p.rung for p in periods], aim)
    hottest_c, reserve = limits.temperature_c, limits.memory_available_bytes
    return Score(
        policy=run.policy,
        requests=requests,
        answered=answered,
        late=late,
        refused=refused,
        violations=(late + refused) / requests if requests else None,
        violations_interval=wilson(late + refused, requests) if requests else None,
        accuracy=sum(p.accuracy for p in periods) / answered if answered else None,
        on_time_accuracy=sum(p.accuracy_on_time for p in periods) / requests if requests else None,
        joules_per_answer=joules / answered if answered else None,
        gross_joules_per_answer=gross_j / answered if answered else None,
        switches=run.switches,
        switches_per_h=run.switches / trace.seconds * 3600.0,
        throttled_s=period_s * sum(p.throttled for p in periods),
        over_limit_s=0.0 if hottest_c is None else period_s * sum(p.temp_c > hottest_c for p in periods),
        over_cap_s=over_cap_s(run),
        short_memory_s=0.0 if reserve is None else period_s * sum(p.available_bytes < reserve for p in periods),
        recovery_s=recovery_s(run),
        prediction_error=prediction_error(run),
        worth=worth,
        regret=oracle.worth(trace, [p.rung for p in best.periods], aim) - worth if best is not None else None,
        decide_us=run.decide_s / len(periods) * 1e6,
    )


def over_cap_s(run: Run) -> float:
    """Time in which the mean of the last 10 s was above the cap that held then. 0 without a cap."""
    period_s, total_s = run.trace.header.period_s, 0.0
    width = max(1, round(CAP_S / period_s))
    for i, step in enumerate(run.trace.steps):
        cap_w = step.power_cap_w if step.power_cap_w is not None else run.trace.header.limits.power_w
        begin = i - width + 1
        if cap_w is None or begin < 0 or run.trace.steps[begin].power_cap_w != step.power_cap_w:
            continue
        if sum(p.power_w for p in run.periods[begin : i + 1]) / width > cap_w:
            total_s += period_s
    return total_s


def recovery_s(run: Run) -> float | None:
    """None when contention never rose. One that is never recovered from counts until the contention changes again."""
    steps = run.trace.steps
    changes = [i for i in range(1, len(steps)) if abs(steps[i].contention - steps[i - 1].contention) >= CONTENTION_STEP]
    times = []
    for n, i in enumerate(changes):
        if steps[i].contention < steps[i - 1].contention:
            continue
        end = changes[n + 1] if n + 1 < len(changes) else len(steps)
        times.append(next((k - i for k in range(i, end) if _calm(run, k)), end - i) * run.trace.header.period_s)
    return statistics.fmean(times) if times else None


def _calm(run: Run, i: int) -> bool:
    """From period i on; one request too many is chance."""
    some = run.periods[i : i + CALM_PERIODS]
    allowed = max(1.0, (1.0 - run.trace.header.limits.quantile) * sum(p.arrivals for p in some))
    return sum(p.missed for p in some) <= allowed


def prediction_error(run: Run) -> float | None:
    """Over periods after which the rung stayed until the comparison."""
    ahead = max(1, round(FORETOLD_S / run.trace.header.period_s))
    errors = []
    for i in range(len(run.periods) - ahead):
        foretold, came = run.predicted_s[i], run.p95_s[i + ahead]
        held = {p.rung for p in run.periods[i + 1 : i + ahead + 1]}
        if foretold is not None and came and len(held) == 1:
            errors.append(abs(foretold / came - 1.0))
    return statistics.median(errors) if errors else None


def wilson(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a share. `of` > 0."""
    share, z2 = hits / of, Z95 * Z95
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z95 * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired(one: Sequence[float], other: Sequence[float]) -> Difference:
    """One less other, seed by seed: both met the same requests, so that what chance did to both falls out."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Difference(mean=mean, interval=None)
    t = T95[len(differences) - 2] if len(differences) - 2 < len(T95) else Z95
    half = t * statistics.stdev(differences) / math.sqrt(len(differences))
    return Difference(mean=mean, interval=(mean - half, mean + half))
