"""The simulator's own error: what it predicts of a rung beside steady burners, and what the real daemon then does.

Contention, arrivals -> replay.plant -> Latencies; the same arrivals -> daemon beside burners -> Latencies; -> Point

The same requests are due at the same moments for both, and the latency of both is counted from there. The plant has the
curve that was measured just before, with the hand-over of that rung at that level; its chance is drawn, so that the
prediction is the middle of REPEATS draws. In the live figure only, and so part of the error: a generator that is late,
the wait for one of _live.SENDERS, HTTP, and the daemon's other tasks. The daemon's own figure, which leaves the first
three out, is shown beside it. Both begin with an empty queue and SETTLE_S that do not count. No request has a timeout,
so that none is refused for being late, on either side. Percentiles are nearest-rank, of the answers; one that did not
come is late.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from _curves import Contention, hand_over
from _live import Asked, Plan, rig
from _rig import percentile

from flyball.errors import ConfigError
from flyball.governor.replay import profiles
from flyball.governor.replay.plant import Plant
from flyball.governor.replay.sample import draw
from flyball.governor.replay.trace import Board, Header, Model, Step, Trace
from flyball.governor.values import Limits

LADDER = "defects"  # as the curves name it, and what the rig serves
SETTLE_S = 1.0  # until the burners burn; what was asked before leaves its queue, and does not count
CALM_S = 1.0
REPEATS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """None where nothing was answered; `late` is the share of all requests beyond the deadline."""

    p50_s: float | None
    p95_s: float | None
    late: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One rung beside so many burners per core. `live` and `simulated` are from the moment at which a request was due;
    `own` is the daemon's own figure of the same requests, which nothing is held against."""

    rung: str
    burners_per_core: int
    requests: int
    live: Latencies
    own: Latencies
    simulated: Latencies

    def p50_error(self) -> float | None:
        """Relative to the live one; None where one of the two is not known."""
        return _relative(self.simulated.p50_s, self.live.p50_s)

    def p95_error(self) -> float | None:
        """As p50_error."""
        return _relative(self.simulated.p95_s, self.live.p95_s)


def _relative(told: float | None, real: float | None) -> float | None:
    return abs(told - real) / real if told is not None and real else None


def compare(
    curves: Contention, rungs: Sequence[str], levels: Sequence[int], seconds: float, quiet: bool
) -> list[Point]:
    """The real daemon for `seconds` at each point, `levels` among those of the curves. Rungs without a curve are left
    out. Raises FlyballError."""
    models = models_of(curves)
    board = msgspec.structs.replace(profiles.COOLED, cpus=curves.cpus)
    points = []
    with rig(quick=True) as live:
        for number, level in enumerate(levels):
            for rung in (name for name in rungs if name in models):
                if not quiet:
                    print(f"  live: {rung}, {level} burner(s) per core", file=sys.stderr, flush=True)
                plan = Plan(
                    phases_s=(0.0, SETTLE_S + seconds), rate_per_s=curves.per_s, cores=curves.cpus, calm_s=CALM_S,
                    seed=number + 1, burners_per_core=level,
                )  # fmt: skip
                asked = live.run(rung, plan)
                if any(a.due_s >= SETTLE_S for a in asked):
                    hand = hand_over_of(curves, rung, level)
                    points.append(point_of(asked, models[rung], plan, live.deadline_s, board, hand))
    return points


def point_of(
    asked: Sequence[Asked], model: Model, plan: Plan, deadline_s: float, board: Board, hand: tuple[float, float]
) -> Point:
    """`asked` is what came of the whole plan, at least one request of it after SETTLE_S."""
    counted = [a for a in asked if a.due_s >= SETTLE_S]
    level, arrivals = plan.burners_per_core, [a.due_s for a in asked]
    return Point(
        rung=model.name,
        burners_per_core=level,
        requests=len(counted),
        live=latencies_of([a.since_due_s for a in counted], deadline_s),
        own=latencies_of([a.latency_s for a in counted], deadline_s),
        simulated=predict(model, arrivals, plan.ends_s(), level, deadline_s, board, settle_s=SETTLE_S, hand=hand),
    )


def hand_over_of(curves: Contention, rung: str, level: int) -> tuple[float, float]:
    """Raises ConfigError where the curves do not have it."""
    for one in curves.rungs:
        if (one.ladder, one.rung) == (LADDER, rung):
            for each in one.levels:
                if each.burners_per_core == level:
                    return hand_over(each)
    raise ConfigError(f"the curves have no {LADDER} {rung} beside {level} burner(s) per core; measure that level too")


def models_of(curves: Contention) -> dict[str, Model]:
    """As every reader of the file gets them. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="flyball-curves-") as place:
        file = Path(place) / "contention.json"
        file.write_bytes(msgspec.json.encode(curves))
        return {model.name: model for model in profiles.measured(file).get(LADDER, ())}


def latencies_of(found: Sequence[float | None], deadline_s: float) -> Latencies:
    """Of at least one request; None for one without an answer."""
    known = [latency_s for latency_s in found if latency_s is not None]
    return Latencies(
        p50_s=percentile(known, 0.5) if known else None,
        p95_s=percentile(known, 0.95) if known else None,
        late=sum(latency_s is None or latency_s > deadline_s for latency_s in found) / len(found),
    )


def predict(
    model: Model,
    arrivals: Sequence[float],
    seconds: float,
    level: float,
    deadline_s: float,
    board: Board,
    settle_s: float = 0.0,
    hand: tuple[float, float] = (0.0, 0.0),
) -> Latencies:
    """`arrivals` in seconds from 0 to `seconds`, rising, at least one of them not before `settle_s`: those before are
    served and not counted. `hand` as _curves.hand_over has it."""
    settled = sum(at_s < settle_s for at_s in arrivals)
    drawn = [
        latencies_of(_drawn(model, arrivals, seconds, level, board, hand, seed)[settled:], deadline_s)
        for seed in range(REPEATS)
    ]
    return Latencies(
        p50_s=_median([one.p50_s for one in drawn]),
        p95_s=_median([one.p95_s for one in drawn]),
        late=statistics.fmean(one.late for one in drawn),
    )


def _drawn(
    model: Model,
    arrivals: Sequence[float],
    seconds: float,
    level: float,
    board: Board,
    hand: tuple[float, float],
    seed: int,
) -> list[float]:
    count = math.ceil(seconds)
    places = [min(int(at_s), count - 1) for at_s in arrivals]
    header = Header(name="steady", seed=seed, ladder=LADDER, rungs=(model,), board=board, limits=Limits())
    steps = tuple(Step(t_s=float(i), arrivals=places.count(i), contention=float(level)) for i in range(count))
    trace = Trace(header=header, steps=steps)
    offsets = np.array([at_s - place for at_s, place in zip(arrivals, places, strict=True)])
    plant = Plant(trace, dataclasses.replace(draw(trace), offsets=offsets), window_s=float(count), hand_over=hand)
    for i in range(count):
        plant.advance(i)
    return plant.latencies()


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def summary(points: Sequence[Point]) -> dict[str, float | int | None]:
    """For the last line; None where nothing could be compared."""
    p50 = [error for point in points if (error := point.p50_error()) is not None]
    p95 = [error for point in points if (error := point.p95_error()) is not None]
    off = [abs(point.simulated.late - point.live.late) for point in points]
    return {
        "simulator_error_pct": _percent(_median([*p50, *p95])),
        "simulator_p50_error_pct": _percent(_median(p50)),
        "simulator_p95_error_pct": _percent(_median(p95)),
        "simulator_worst_error_pct": _percent(max([*p50, *p95], default=None)),
        "simulator_late_points": round(100 * statistics.fmean(off), 2) if off else None,
        "simulator_points": len(points),
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def table(points: Sequence[Point]) -> str:
    """A line for each point, for people: the daemon's own figure, live from the due moment, simulated; ms, per cent."""
    heads = ("own p50", "p50 ms", "simul.", "own p95", "p95 ms", "simul.", "late %", "simul.")
    lines = [f"{'rung':<12}{'burners':>8}" + "".join(f"{head:>9}" for head in heads)]
    for point in points:
        live, told = point.live, point.simulated
        cells = [_ms(one.p50_s) for one in (point.own, live, told)]
        cells += [_ms(one.p95_s) for one in (point.own, live, told)]
        cells += [f"{100 * one.late:.1f}" for one in (live, told)]
        lines.append(f"{point.rung:<12}{point.burners_per_core:>8}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"
