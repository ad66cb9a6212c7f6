"""What a run says of a rung, and whether it may be believed. Pure.

Load, power draws, disturbances -> figures, reasons against them, notes -> RungProfile

Figures are given whatever speaks against them; a run counts as valid only when nothing does.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from flyball.ladder.manifest import Rung
from flyball.ladder.profile import EarlyStopping, Latency, RungProfile, Scenario
from flyball.measure.conditions import OTHERS_MOST, Disturbance
from flyball.measure.consumption import Draw, energy
from flyball.measure.scenario import JUDGED_BY, Load
from flyball.measure.stopping import CONFIDENCE, estimate, queries_needed

SHORTEST_S = 30.0
_NO_TELLING = "nothing on this machine tells of throttling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything seen of one rung. `no_power`: why there is no draw at all, "" when there may be one."""

    scenario: Scenario
    seconds: float  # asked for
    run: Load
    restarts: int = 0  # of the worker, during the run
    interrupted: bool
    load_s: float | None
    rss_bytes: int | None
    peak_rss_bytes: int | None
    rate_per_s: float | None
    power: Draw | None
    idle: Draw | None
    no_power: str
    limits_dropped: Sequence[str]
    disturbance: Disturbance
    others: float | None  # of all processors' time, during the run
    others_idle: float | None  # and while the idle power was taken
    battery: bool


def unmeasured(rung: Rung, *, error: str = "", skipped: str = "") -> RungProfile:
    return RungProfile(
        name=rung.name,
        sha256=rung.sha256,
        backend=rung.backend,
        precision=rung.precision,
        accuracy=rung.accuracy,
        valid=False,
        error=error,
        skipped=skipped,
    )


def profile_of(rung: Rung, seen: Observed) -> RungProfile:
    run = seen.run
    early = early_stopping(run.latencies_s, seen.scenario)
    spent, notes = energy(seen.power, seen.idle, run.duration_s, run.inferences)
    if seen.no_power:
        notes = [f"no energy figure: {seen.no_power}"]
    if seen.others is None:
        notes.append("not known whether other work ran beside it")
    if seen.disturbance.throttled_s is None:
        silent = ", ".join(seen.disturbance.unseen)
        missed = f"{silent} did not answer all through the run: throttling may have been missed"
        notes.append(missed if silent else _NO_TELLING)
    reasons = against(seen, early)
    return RungProfile(
        name=rung.name,
        sha256=rung.sha256,
        backend=rung.backend,
        precision=rung.precision,
        accuracy=rung.accuracy,
        valid=not reasons,
        reasons=tuple(reasons),
        notes=tuple(notes),
        duration_s=run.duration_s,
        inferences=run.inferences,
        errors=run.errors.total(),
        latency=latency(run.latencies_s),
        early_stopping=early,
        throughput_per_s=run.per_s if run.inferences else None,
        rate_per_s=seen.rate_per_s,
        load_s=seen.load_s,
        rss_bytes=seen.rss_bytes,
        peak_rss_bytes=seen.peak_rss_bytes,
        energy=spent,
        throttled_s=seen.disturbance.throttled_s,
        temperature_max_c=seen.disturbance.temperature_max_c,
        others_cpu=seen.others,
    )


def against(seen: Observed, early: EarlyStopping | None) -> list[str]:
    """Every reason why the run is not valid."""
    run, reasons = seen.run, []
    if seen.interrupted:
        reasons.append(f"interrupted after {run.duration_s:.1f} s of {seen.seconds:g} s")
    elif run.duration_s < SHORTEST_S:
        reasons.append(f"it ran for {run.duration_s:.1f} s; {SHORTEST_S:g} s are needed (--seconds {SHORTEST_S:g})")
    if not run.latencies_s:
        reasons.append("nothing was answered")
    elif early is not None and early.estimate_ms is None:
        found, needed = len(run.latencies_s), early.queries_needed
        enough_s = max(math.ceil(1.1 * needed / found * run.duration_s), math.ceil(SHORTEST_S))
        reasons.append(
            f"{found} queries; the {early.percentile * 100:g}th percentile needs {needed} (--seconds {enough_s})"
        )
    if run.errors:
        text, _ = run.errors.most_common(1)[0]
        reasons.append(f"{run.errors.total()} inferences failed: {text}")
    if seen.restarts:
        reasons.append(f"its worker ended during the run and was started again ({seen.restarts} times)")
    reasons += dict.fromkeys([*seen.disturbance.reasons, *seen.limits_dropped])
    for share, when in ((seen.others, ""), (seen.others_idle, " while the idle power was taken")):
        if share is not None and share > OTHERS_MOST:
            reasons.append(
                f"other work took {share * 100:.3g}% of the processors{when}; at most {OTHERS_MOST:.0%} may be"
            )
    if seen.battery:
        reasons.append("the machine runs from its battery, which may hold its clocks down")
    return reasons


def latency(latencies_s: Sequence[float]) -> Latency | None:
    """None of no latency."""
    if not latencies_s:
        return None
    ms = sorted(value * 1e3 for value in latencies_s)
    return Latency(
        queries=len(ms),
        mean_ms=statistics.fmean(ms),
        std_ms=statistics.stdev(ms) if len(ms) > 1 else None,
        p50_ms=percentile(ms, 0.50),
        p90_ms=percentile(ms, 0.90),
        p95_ms=percentile(ms, 0.95),
        p99_ms=percentile(ms, 0.99),
        max_ms=ms[-1],
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed (nearest rank). Of at least one, sorted."""
    rank = math.ceil(round(share * len(ordered), 9))  # 0.95 * 100 is 95.00000000000001 to a float, and not rank 96
    return ordered[max(rank, 1) - 1]


def early_stopping(latencies_s: Sequence[float], scenario: Scenario) -> EarlyStopping | None:
    """None for a scenario that is not judged by a percentile."""
    share = JUDGED_BY[scenario]
    if share is None:
        return None
    bound_s = estimate(latencies_s, share)
    return EarlyStopping(
        percentile=share,
        confidence=CONFIDENCE,
        queries_needed=queries_needed(share),
        estimate_ms=None if bound_s is None else bound_s * 1e3,
    )
