"""The simulator's own error: what it predicts of a rung beside steady burners, and what the real daemon then does.

Contention, arrivals -> replay.plant -> Latencies; the same arrivals -> daemon beside burners -> Latencies; -> Point

Both meet the same requests at the same moments, the plant with the curve that was measured just before. Its work is
drawn, so that the prediction is the middle of REPEATS draws. The daemon's own tasks and those that send the requests
are in no curve: what they cost is part of the error. No request has a timeout, so that none is refused for being late,
on either side. Percentiles are nearest-rank, of the answers; one that did not come is late.
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
from _curves import Contention
from _live import Plan, between, rig
from _rig import percentile

from flyball.governor.replay import profiles
from flyball.governor.replay.plant import Plant
from flyball.governor.replay.sample import draw
from flyball.governor.replay.trace import Board, Header, Model, Step, Trace
from flyball.governor.values import Limits

LADDER = "defects"  # as the curves name it, and what the rig serves
SETTLE_S = 1.0  # until the burners burn; what was asked before does not count
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
    """One rung beside so many burners per core."""

    rung: str
    burners_per_core: int
    requests: int
    live: Latencies
    simulated: Latencies

    def errors(self) -> list[float]:
        """Of the median and of the 95th percentile, relative to the live ones; those that are known."""
        pairs = ((self.simulated.p50_s, self.live.p50_s), (self.simulated.p95_s, self.live.p95_s))
        return [abs(told - real) / real for told, real in pairs if told is not None and real]


def compare(
    curves: Contention, rungs: Sequence[str], levels: Sequence[int], seconds: float, quiet: bool
) -> list[Point]:
    """The real daemon for `seconds` at each point. Rungs without a curve are left out. Raises FlyballError."""
    models = models_of(curves)
    board = msgspec.structs.replace(profiles.COOLED, cpus=curves.cpus)
    points = []
    with rig() as live:
        for number, level in enumerate(levels):
            for rung in (name for name in rungs if name in models):
                if not quiet:
                    print(f"  live: {rung}, {level} burner(s) per core", file=sys.stderr, flush=True)
                plan = Plan(
                    phases_s=(0.0, SETTLE_S + seconds), rate_per_s=curves.per_s, cores=curves.cpus, calm_s=CALM_S,
                    seed=number + 1, burners_per_core=level,
                )  # fmt: skip
                asked = between(live.run(rung, plan), SETTLE_S, plan.ends_s())
                arrivals = [a.due_s - SETTLE_S for a in asked]
                if arrivals:
                    points.append(
                        Point(
                            rung=rung,
                            burners_per_core=level,
                            requests=len(asked),
                            live=latencies_of([a.latency_s for a in asked], live.deadline_s),
                            simulated=predict(models[rung], arrivals, seconds, level, live.deadline_s, board),
                        )
                    )
    return points


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
    model: Model, arrivals: Sequence[float], seconds: float, level: float, deadline_s: float, board: Board
) -> Latencies:
    """`arrivals` in seconds from 0 to `seconds`, rising, at least one."""
    drawn = [latencies_of(_drawn(model, arrivals, seconds, level, board, seed), deadline_s) for seed in range(REPEATS)]
    return Latencies(
        p50_s=_median([one.p50_s for one in drawn]),
        p95_s=_median([one.p95_s for one in drawn]),
        late=statistics.fmean(one.late for one in drawn),
    )


def _drawn(
    model: Model, arrivals: Sequence[float], seconds: float, level: float, board: Board, seed: int
) -> list[float]:
    count = math.ceil(seconds)
    places = [min(int(at_s), count - 1) for at_s in arrivals]
    header = Header(name="steady", seed=seed, ladder=LADDER, rungs=(model,), board=board, limits=Limits())
    steps = tuple(Step(t_s=float(i), arrivals=places.count(i), contention=float(level)) for i in range(count))
    trace = Trace(header=header, steps=steps)
    offsets = np.array([at_s - place for at_s, place in zip(arrivals, places, strict=True)])
    plant = Plant(trace, dataclasses.replace(draw(trace), offsets=offsets), window_s=float(count))
    for i in range(count):
        plant.advance(i)
    return plant.latencies()


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def summary(points: Sequence[Point]) -> dict[str, float | int | None]:
    """For the last line; None where nothing could be compared."""
    errors = [error for point in points for error in point.errors()]
    off = [abs(point.simulated.late - point.live.late) for point in points]
    return {
        "simulator_error_pct": round(100 * statistics.median(errors), 1) if errors else None,
        "simulator_late_points": round(100 * statistics.fmean(off), 2) if off else None,
        "simulator_points": len(points),
    }


def table(points: Sequence[Point]) -> str:
    """A line for each point, for people: live beside simulated, in ms and per cent."""
    heads = ("p50 ms", "simul.", "p95 ms", "simul.", "late %", "simul.")
    lines = [f"{'rung':<12}{'burners':>8}" + "".join(f"{head:>9}" for head in heads)]
    for point in points:
        live, told = point.live, point.simulated
        cells = [_ms(live.p50_s), _ms(told.p50_s), _ms(live.p95_s), _ms(told.p95_s)]
        cells += [f"{100 * one.late:.1f}" for one in (live, told)]
        lines.append(f"{point.rung:<12}{point.burners_per_core:>8}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"
