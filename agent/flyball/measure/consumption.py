"""What a rung took from the supply, per inference.

samples of the total power -> trapezoids over the run -> W and their spread -> J, gross and less the idle power

A figure carries the scope of its source, and scopes are never mixed. Less than 90 % of the run covered: no figure.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from flyball.energy import spread_of
from flyball.ladder.profile import Energy
from flyball.ports import Reading, Scope
from flyball.sensing.energy import PowerSource
from flyball.sensing.integral import COVERAGE_MIN, PowerIntegral, max_gap_s

UPDATES_NEEDED = 30
_BLOCKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Mean power over a window of time. `uncertainty` is relative; None when the sensor's own is not known."""

    scope: Scope
    source: str
    power_w: float
    uncertainty: float | None
    coverage: float
    updates: int


def draw(source: PowerSource, total: Reading | None, start_s: float, end_s: float, period_s: float) -> Draw | None:
    """Of the reading `total`, which the source has sampled with this period beyond both ends, so that these can be
    interpolated. None without such a reading, and when less than 90 % of the window is covered."""
    if total is None or end_s <= start_s:
        return None
    samples = source.samples("power", total.name, start_s - 2 * period_s)
    integral = PowerIntegral(max_gap_s(period_s))
    for t_s, power_w in samples:
        integral.add(t_s, power_w)
    joules, covered_s = integral.between(start_s, end_s)
    length_s = end_s - start_s
    gap_s = max_gap_s(period_s)
    if covered_s < COVERAGE_MIN * length_s or length_s - covered_s >= gap_s:
        return None  # a gap within it voids a measurement, however long it is
    power_w = joules / covered_s
    inside = [w for t_s, w in samples if start_s <= t_s <= end_s]
    uncertainty = None
    spread = _spread(integral, start_s, end_s, power_w)
    if total.uncertainty is not None and spread is not None:
        uncertainty = math.hypot(total.uncertainty, spread)
    return Draw(
        scope=total.scope,
        source=total.name,
        power_w=power_w,
        uncertainty=uncertainty,
        coverage=min(covered_s / length_s, 1.0),
        updates=sum(1 for a, b in itertools.pairwise(inside) if a != b) + (1 if inside else 0),
    )


def _spread(integral: PowerIntegral, start_s: float, end_s: float, power_w: float) -> float | None:
    block_s = (end_s - start_s) / _BLOCKS
    return spread_of(
        [integral.between(start_s + i * block_s, start_s + (i + 1) * block_s) for i in range(_BLOCKS)], power_w
    )


def energy(run: Draw | None, idle: Draw | None, duration_s: float, inferences: int) -> tuple[Energy | None, list[str]]:
    """Per inference, and notes on what is missing and why."""
    if run is None:
        return None, [
            f"no energy figure: the power readings have a gap, or cover less than {COVERAGE_MIN:.0%} of the run"
        ]
    if not inferences or run.power_w <= 0:
        return None, ["no energy figure: " + ("no power was drawn" if inferences else "nothing was answered")]
    notes = []
    if run.updates < UPDATES_NEEDED:
        notes.append(f"the power reading changed fewer than {UPDATES_NEEDED} times: its mean is not firm")
    idle_w = net_j = net_uncertainty = None
    if idle is None:
        notes.append("no idle-subtracted figure: the idle power could not be read")
    else:
        idle_w = idle.power_w
        net_w = run.power_w - idle.power_w
        net_uncertainty = _of_difference(run, idle, net_w) if net_w > 0 else None
        if net_w <= 0:
            notes.append("no idle-subtracted figure: the run took no more than idling")
        elif net_uncertainty is None:
            notes.append("no idle-subtracted figure: how certain the power is is not known, nor is the difference then")
        elif net_uncertainty > 1:
            notes.append("no idle-subtracted figure: the difference between run and idling is less certain than large")
            net_uncertainty = None
        else:
            net_j = net_w * duration_s / inferences
    return (
        Energy(
            scope=run.scope,
            source=run.source,
            power_w=run.power_w,
            uncertainty=run.uncertainty,
            idle_w=idle_w,
            gross_j=run.power_w * duration_s / inferences,
            net_j=net_j,
            net_uncertainty=net_uncertainty,
            fps_per_watt=inferences / duration_s / run.power_w,
            coverage=run.coverage,
            updates=run.updates,
        ),
        notes,
    )


def _of_difference(run: Draw, idle: Draw, net_w: float) -> float | None:
    """As if the two erred independently; a gain that is off in both alike would do less harm."""
    if run.uncertainty is None or idle.uncertainty is None:
        return None
    return math.hypot(run.uncertainty * run.power_w, idle.uncertainty * idle.power_w) / net_w
