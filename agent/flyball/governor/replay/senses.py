"""What sensors and the engine would say of the simulated machine, noise and failures included.

Moment (how things are) + noise of the period -> Senses.view -> values.View

An unreadable sensor gives None, and so does what nothing was counted of. Draws nothing: the noise is sample.py's.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flyball.governor import values
from flyball.governor.replay.sample import STEP_C, Sample
from flyball.governor.replay.trace import Trace

WALL_S = 1_700_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The end of a period. `works` are the active rung's in it, `latencies` its own of the window, by period; `busy_s`
    is the accelerators'; `arrivals`, `answered` and `missed` (late or refused) are of the period and of all rungs;
    `turned_away` counts those refused in the window."""

    now_s: float
    active: str | None
    standby: tuple[str, ...]
    lost: tuple[str, ...]
    temp_c: float
    clock: float
    throttled: bool
    power_w: float
    available_bytes: float
    pressure: float
    arrivals: int
    answered: int
    missed: int
    busy_s: float
    works: Sequence[float]
    latencies: Iterable[Sequence[float]]
    turned_away: int


class Senses:
    """Of one trace."""

    def __init__(self, trace: Trace, sample: Sample) -> None:
        self._trace, self._sample = trace, sample
        self._known: dict[tuple[object, ...], tuple[values.Rung, ...]] = {}

    def view(self, i: int, now: Moment) -> values.View:
        """After period i."""
        header, step, sample = self._trace.header, self._trace.steps[i], self._sample
        unreadable, board = step.unreadable, header.board
        limits = header.limits if step.power_cap_w is None else _capped(header.limits, step.power_cap_w)
        used = min(1.0, step.contention + now.busy_s / header.period_s / board.cpus)
        warm_c = round((now.temp_c + sample.temperature_c[i]) / STEP_C) * STEP_C
        return values.View(
            now_s=now.now_s,
            wall_s=WALL_S + now.now_s,
            machine=values.Machine(
                cpus=board.cpus,
                contention=None if "contention" in unreadable else max(0.0, step.contention + sample.contention[i]),
                cpu_utilization=used,
                clock=now.clock,
                zones={} if "temperature" in unreadable else {board.zone: warm_c},
                power_w=None if "power" in unreadable else now.power_w * sample.power[i],
                memory_available_bytes=None if "memory" in unreadable else now.available_bytes,
                memory_pressure=None if "memory" in unreadable else now.pressure,
                throttled=("thermal",) if now.throttled else (),
                tells_throttling=True,
            ),
            ladders=(
                values.LadderView(
                    name=header.ladder,
                    active=now.active,
                    rungs=self._rungs(now),
                    seen=_seen(now, header.period_s, limits.deadline_s),
                    limits=limits,
                    error="" if now.active is not None else "no rung is open; another is loading",
                ),
            ),
        )

    def _rungs(self, now: Moment) -> tuple[values.Rung, ...]:
        key = (now.active, now.standby, now.lost)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = tuple(
                values.Rung(
                    name=m.name,
                    accuracy=m.accuracy,
                    accelerator=m.accelerator,
                    usable=m.accelerator not in now.lost,
                    error=f"accelerator {m.accelerator} is not there" if m.accelerator in now.lost else "",
                    resident=m.name == now.active or m.name in now.standby,
                    work_s=m.work_s,
                    spread=m.spread,
                    joules=m.joules,
                    rss_bytes=m.rss_bytes,
                    load_s=m.load_s,
                )
                for m in self._trace.header.rungs
            )
        return known


def _seen(now: Moment, period_s: float, deadline_s: float | None) -> values.Seen:
    works = now.works
    count = len(works)
    mean_s = sum(works) / count if count else None
    std_s = None
    if mean_s is not None and count > 1:
        std_s = math.sqrt(sum([(work_s - mean_s) ** 2 for work_s in works]) / (count - 1))
    ordered = sorted([latency_s for part in now.latencies for latency_s in part])
    asked = len(ordered) + now.turned_away
    too_late = now.turned_away + (0 if deadline_s is None else len(ordered) - bisect_right(ordered, deadline_s))
    return values.Seen(
        arrivals_per_s=now.arrivals / period_s,
        answers_per_s=now.answered / period_s,
        answers=count,
        work_mean_s=mean_s,
        work_std_s=std_s,
        late=now.missed / now.arrivals if now.arrivals else None,
        window_answers=asked,
        window_late=too_late / asked if asked else None,
        p50_s=_rank(ordered, 0.50),
        p95_s=_rank(ordered, 0.95),
        p99_s=_rank(ordered, 0.99),
    )


def _rank(ordered: list[float], q: float) -> float | None:
    return ordered[max(math.ceil(q * len(ordered) - 1e-9), 1) - 1] if ordered else None


def _capped(limits: values.Limits, power_w: float) -> values.Limits:
    return values.Limits(
        deadline_s=limits.deadline_s,
        quantile=limits.quantile,
        temperature_c=limits.temperature_c,
        memory_available_bytes=limits.memory_available_bytes,
        power_w=power_w,
        energy_j_per_h=limits.energy_j_per_h,
        accuracy=limits.accuracy,
    )
