"""The governor on the ten standard traces, beside every baseline, in the simulated machine.

    python bench/governor.py [--quick] [--json] [--grid] [--html FILE] [--workers N]

For every trace, ladder (the defects' and the MobileNets) and seed (100 to 119): the governor, every static rung, a
plain threshold, a threshold with hysteresis, a PID and the per-step oracle, all on the same requests and noise.
The rungs are those of bench/contention.json where it is there, else the figures that come with flyball.governor.replay.

violation_gap_points   requests missed, in percent of all, less the oracle's: the worst trace, means over seeds
accuracy_gap_pct       mean accuracy of the answers below the oracle's, in percent of that; the worst, sensor-drop-out
                       left out (it is scored on violations only)
energy_gap_pct, net_energy_gap_pct   joules per answer above the oracle's, loading included: of all that the machine
                       takes, and of what it takes beyond idle; the worst, sensor-drop-out left out
better_than_hysteresis in how many of the 8 dynamic traces (all but steady and boundary) the governor is surely better
                       than threshold + hysteresis: the 95 % interval of the paired difference in violations or in
                       accuracy leaves out 0; better accuracy counts where violations are not a point more; of the two
                       ladders the one with fewer
worse_by_over_1        dynamic traces, over both ladders, in which it misses a point more than that, or has a point less
                       accuracy without surely missing fewer
worse_on_time_by_over_1   those in which a point fewer of all requests are answered right and in time: what a user gets,
                       with misses and accuracy in one figure (sensor-drop-out too)
boundary_switches_per_h, boundary_accuracy_gap_pct   of the trace boundary: switches, and accuracy below that of the
                       best static rung
throttled_s            the most seconds of any run in which the oracle's was not throttled at all (null: no such run)
decision_us            one choice for 3 ladders of 8 rungs, median: predict every rung, choose, decide whether to move
period_us              all that a period takes: taking in what was seen (filters of heat, slow-down, memory) before it,
                       and, after it, the figures that went in and how every rung looked, in words

grid_edges             in how many parameters the tuned threshold + hysteresis lies at the edge of the grid that was
                       searched: a better one may lie beyond (stderr names them)

--grid searches the parameters of threshold + hysteresis (108 points on seeds 0 and 1, the best 12 of them on seeds 0 to
9; least mean regret over traces and ladders) and writes them to bench/governor_grid.json, which every later run reads.
--html writes one trace's page. --quick: 4 seeds, the defects' ladder, 6 traces.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from _decision import decision_us
from _rig import arguments, ended, replace, show, within

from flyball.config import Governor as Rules
from flyball.demo.stage import check_writable
from flyball.errors import ConfigError, FlyballError
from flyball.governor.replay import profiles, standard
from flyball.governor.replay.baselines import Hysteresis, Threshold
from flyball.governor.replay.page import page
from flyball.governor.replay.run import TUNED, policy, run
from flyball.governor.replay.sample import draw
from flyball.governor.replay.score import Difference, Score, paired, score
from flyball.governor.replay.study import compare, everything
from flyball.governor.replay.trace import Model

HERE = Path(__file__).resolve().parent
CURVES, GRID = HERE / "contention.json", HERE / "governor_grid.json"
LADDERS = ("defects", "mobilenets")
SEEDS, GRID_SEEDS, QUICK_SEEDS = range(100, 120), range(10), range(100, 104)
QUICK_TRACES = ("steady", "cpu-bursts", "heat-ramp", "power-cap", "arrival-bursts", "boundary")
STILL = ("steady", "boundary")
VIOLATIONS_ONLY = ("sensor-drop-out",)
POINT = 0.01
POINTS = tuple(
    Hysteresis(down=down, up=up, down_windows=fast, up_windows=slow, dwell_s=dwell_s)
    for down, up, fast, slow, dwell_s in itertools.product(
        (0.35, 0.5, 0.65), (0.2, 0.3, 0.4), (1, 2), (180, 400, 900), (3.0, 10.0)
    )
)
COARSE_SEEDS, KEPT = range(2), 12  # all points on these, the best of them on all of GRID_SEEDS
RULES = Rules()
T = TypeVar("T")


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """bench/governor_grid.json: regrets in accuracy per request, of all points on COARSE_SEEDS and of the best of those
    on `seeds`, and what is best on these."""

    date: str
    rungs: str
    seeds: tuple[int, ...]
    traces: tuple[str, ...]
    best: Hysteresis
    coarse: tuple[tuple[Hysteresis, float], ...]
    points: tuple[tuple[Hysteresis, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    ladder: str
    trace: str
    seed: int
    tuned: Hysteresis


def rungs(ladder: str) -> tuple[Model, ...]:
    """Raises ConfigError."""
    known = profiles.measured(CURVES) if CURVES.exists() else profiles.STAND_INS
    if ladder not in known:
        raise ConfigError(f"{CURVES}: has no rungs of {ladder}; measure them again: bench/contention.py --write")
    return known[ladder]


def scores_of(job: Job) -> dict[str, Score]:
    """Of every policy, in a process of the pool; "static" is the best static rung in hindsight."""
    trace = standard.standard(job.trace, job.ladder, rungs(job.ladder), job.seed)
    compared = compare(trace, everything(trace), RULES, job.tuned)
    found = {score.policy: score for score in compared.scores}
    return {**found, "static": found[compared.best_static or "oracle"]}


def regrets_of(points: Sequence[Hysteresis], job: Job) -> list[float]:
    trace = standard.standard(job.trace, job.ladder, rungs(job.ladder), job.seed)
    sample = draw(trace)
    best = score(run(trace, policy("oracle", trace), "oracle", sample)).worth
    return [best - score(run(trace, Threshold(point), "hysteresis", sample)).worth for point in points]


def told(results: Iterable[T], count: int, what: str) -> Iterator[T]:
    """The same, with progress on stderr."""
    began_s = last_s = time.monotonic()
    for done, result in enumerate(results, 1):
        now_s = time.monotonic()
        if now_s - last_s > 10 or done == count:
            left_s = (now_s - began_s) / done * (count - done)
            print(f"  {what}: {done} of {count}, about {left_s:.0f} s left", file=sys.stderr, flush=True)
            last_s = now_s
        yield result


def search(pool: ProcessPoolExecutor) -> Grid:
    coarse = regrets(pool, POINTS, COARSE_SEEDS)
    kept = sorted(POINTS, key=coarse.__getitem__)[:KEPT]
    fine = regrets(pool, kept, GRID_SEEDS)
    return Grid(
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        rungs=CURVES.name if CURVES.exists() else "as they come with flyball.governor.replay",
        seeds=tuple(GRID_SEEDS),
        traces=standard.NAMES,
        best=min(kept, key=fine.__getitem__),
        coarse=tuple(coarse.items()),
        points=tuple(fine.items()),
    )


def regrets(pool: ProcessPoolExecutor, points: Sequence[Hysteresis], seeds: Sequence[int]) -> dict[Hysteresis, float]:
    """The mean over seeds, ladders and traces."""
    jobs = [Job(ladder=ladder, trace=trace, seed=seed, tuned=TUNED)
            for seed in seeds for ladder in LADDERS for trace in standard.NAMES]  # fmt: skip
    rows = list(told(pool.map(partial(regrets_of, points), jobs), len(jobs), "grid"))
    return {point: statistics.fmean(column) for point, column in zip(points, zip(*rows, strict=True), strict=True)}


def edges(best: Hysteresis, points: Sequence[Hysteresis]) -> list[str]:
    """The parameters that were searched, and in which no point lies on one side of the best one: what is better may lie
    outside, and the baseline is then weaker than a search of more points would make it."""
    found = []
    for field in Hysteresis.__struct_fields__:
        values = {getattr(point, field) for point in points}
        if len(values) > 1 and getattr(best, field) in (min(values), max(values)):
            found.append(field)
    return found


Found = Mapping[tuple[str, str], Sequence[Mapping[str, Score]]]  # by ladder and trace, one for each seed


def mean(scores: Sequence[Mapping[str, Score]], name: str, field: str) -> float | None:
    values = [getattr(each[name], field) for each in scores]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def against(scores: Sequence[Mapping[str, Score]], other: str, field: str) -> Difference:
    """The governor's less the other's, seed by seed. Raises FlyballError where one of the two is not known."""
    pairs = [(getattr(s["governor"], field), getattr(s[other], field)) for s in scores]
    if any(None in pair for pair in pairs):
        raise FlyballError(f"governor or {other} has no {field} for some seed: nothing was asked, or nothing answered")
    return paired([own for own, _ in pairs], [its for _, its in pairs])


def gap_pct(scores: Sequence[Mapping[str, Score]], other: str, field: str) -> float:
    """Of means, by how many percent the governor's is above the other's. Raises FlyballError as `against`."""
    its = mean(scores, other, field)
    difference = against(scores, other, field).mean
    if not its:
        raise FlyballError(f"{field} of {other} is 0: there are no percent of that")
    return difference / its * 100.0


def better(scores: Sequence[Mapping[str, Score]]) -> bool:
    missed, accuracy = against(scores, "hysteresis", "violations"), against(scores, "hysteresis", "accuracy")
    fewer = missed.sure and missed.mean < 0.0
    truer = accuracy.sure and accuracy.mean > 0.0 and missed.mean <= POINT
    return fewer or truer


def worse(scores: Sequence[Mapping[str, Score]]) -> bool:
    missed, accuracy = against(scores, "hysteresis", "violations"), against(scores, "hysteresis", "accuracy")
    return missed.mean > POINT or (accuracy.mean < -POINT and not (missed.sure and missed.mean < 0.0))


def worse_on_time(scores: Sequence[Mapping[str, Score]]) -> bool:
    return against(scores, "hysteresis", "on_time_accuracy").mean < -POINT


def figures(found: Found) -> dict[str, object]:
    judged = {key: scores for key, scores in found.items() if key[1] not in VIOLATIONS_ONLY}
    dynamic = {key: scores for key, scores in found.items() if key[1] not in STILL}
    edge = [scores for (_, trace), scores in found.items() if trace == "boundary"]
    ladders = sorted({ladder for ladder, _ in found})
    calm = [each["governor"] for scores in found.values() for each in scores if each["oracle"].throttled_s == 0.0]
    gaps = {key: against(scores, "oracle", "violations").mean * 100.0 for key, scores in found.items()}
    worst = max(gaps, key=lambda key: gaps[key])
    choice_us, period_us = decision_us()
    return {
        "violation_gap_points": round(max(gaps.values()), 2),
        "violation_gap_worst": "/".join(worst),
        "accuracy_gap_pct": round(max(-gap_pct(s, "oracle", "accuracy") for s in judged.values()), 2),
        "energy_gap_pct": round(max(gap_pct(s, "oracle", "gross_joules_per_answer") for s in judged.values()), 2),
        "net_energy_gap_pct": round(max(gap_pct(s, "oracle", "joules_per_answer") for s in judged.values()), 2),
        "better_than_hysteresis": min(sum(better(s) for (own, _), s in dynamic.items() if own == ladder)
                                      for ladder in ladders),
        "dynamic_traces": len({trace for _, trace in dynamic}),
        "worse_by_over_1": sum(worse(scores) for scores in dynamic.values()),
        "worse_on_time_by_over_1": sum(worse_on_time(scores) for scores in dynamic.values()),
        "boundary_switches_per_h": round(max(mean(s, "governor", "switches_per_h") or 0.0 for s in edge), 2),
        "boundary_accuracy_gap_pct": round(max(-gap_pct(s, "static", "accuracy") for s in edge), 2),
        "throttled_s": max((each.throttled_s for each in calm), default=None),
        "decision_us": choice_us,
        "period_us": period_us,
        "seeds": len(next(iter(found.values()))),
    }  # fmt: skip


def table(found: Found) -> str:
    """For every ladder and trace, a line for each policy (means over seeds), and what sets the governor apart."""
    heads = ("missed %", "accuracy %", "on time %", "mJ", "gross mJ", "switch/h", "throttled s", "over cap s",
             "recovery s", "p95 off %", "regret")  # fmt: skip
    fields = ("violations", "accuracy", "on_time_accuracy", "joules_per_answer", "gross_joules_per_answer",
              "switches_per_h", "throttled_s", "over_cap_s", "recovery_s", "prediction_error", "regret")  # fmt: skip
    scales = (100, 100, 100, 1e3, 1e3, 1, 1, 1, 1, 100, 1)
    lines = []
    for (ladder, trace), scores in found.items():
        lines.append(f"\n{ladder}/{trace}")
        lines.append(f"{'':<18}" + "".join(f"{head:>13}" for head in heads))
        for name in ("governor", *(p for p in scores[0] if p not in ("governor", "static"))):
            cells = []
            for field, scale in zip(fields, scales, strict=True):
                value = mean(scores, name, field)
                cells.append(f"{'-' if value is None else f'{value * scale:.4g}':>13}")
            lines.append(f"{name:<18}" + "".join(cells))
        for other in ("hysteresis", "oracle"):
            parts = []
            for field in ("violations", "accuracy"):
                apart = against(scores, other, field)
                ends = apart.interval
                span = "" if ends is None else f" ({ends[0] * 100:+.2f} to {ends[1] * 100:+.2f})"
                parts.append(f"{field} {apart.mean * 100:+.2f}{span}")
            lines.append(f"  governor less {other}, points: {', '.join(parts)}")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = arguments(__doc__, "4 seeds, one ladder, 6 traces")
    parser.add_argument("--grid", action="store_true", help=f"search again and write {GRID.name}")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page of one trace (see --trace)")
    parser.add_argument("--trace", choices=standard.NAMES, help="for --html (default: cpu-bursts)")
    parser.add_argument("--workers", type=within(1, 64, whole=True), default=2, help="processes (default: 2)")
    chosen = parser.parse_args()
    if chosen.trace is not None and chosen.html is None:
        parser.error("--trace says which trace --html shows: name a file with --html")
    return chosen


def tuned_by(file: Path) -> Hysteresis:
    """Raises ConfigError."""
    if not file.exists():
        print(f"no {file.name}: threshold + hysteresis is not tuned (--grid does that)", file=sys.stderr)
        return TUNED
    try:
        return msgspec.json.decode(file.read_bytes(), type=Grid).best
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not what --grid writes: {error}; search again") from None


def deaf() -> None:
    """A process of the pool leaves Ctrl-C to its parent, which cancels what waits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main() -> int:
    chosen = options()
    for name, file in (("--html", chosen.html), ("--grid", GRID if chosen.grid else None)):
        if file is not None:
            check_writable(name, file)
    try:
        return judge(chosen)
    except BrokenProcessPool:
        raise FlyballError("a process of the pool was killed (short of memory?): try --workers 1") from None


def judge(chosen: argparse.Namespace) -> int:
    with ProcessPoolExecutor(int(chosen.workers), initializer=deaf) as pool:
        if chosen.grid:
            replace(GRID, msgspec.json.format(msgspec.json.encode(search(pool)), indent=1) + b"\n")
        tuned = tuned_by(GRID)
        if cut := ", ".join(edges(tuned, POINTS)):
            print(f"threshold + hysteresis is at the edge of the grid in {cut}: better may lie beyond", file=sys.stderr)
        ladders, seeds, traces = (
            (LADDERS[:1], QUICK_SEEDS, QUICK_TRACES) if chosen.quick else (LADDERS, SEEDS, standard.NAMES)
        )
        jobs = [Job(ladder=ladder, trace=trace, seed=seed, tuned=tuned)
                for ladder in ladders for trace in traces for seed in seeds]  # fmt: skip
        found: dict[tuple[str, str], list[dict[str, Score]]] = {}
        for job, scores in zip(jobs, told(pool.map(scores_of, jobs), len(jobs), "runs"), strict=True):
            found.setdefault((job.ladder, job.trace), []).append(scores)
    if not chosen.json:
        print(table(found))
        print(f"\nthreshold + hysteresis: {json.dumps(msgspec.to_builtins(tuned))}\n")
    if chosen.html is not None:
        trace = standard.standard(chosen.trace or "cpu-bursts", "defects", rungs("defects"), SEEDS[0])
        compared = compare(trace, ["governor", "hysteresis", "oracle"], RULES, tuned)
        chosen.html.write_text(page(compared.runs, compared.scores), encoding="utf-8")
    show({**figures(found), "grid_edges": len(edges(tuned, POINTS))}, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
