"""Energy between two moments, from samples of power.

samples -> trapezoids -> joules and covered seconds, both ends interpolated

Pure. What was not sampled is left out of the energy and of the seconds; nothing is filled in.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

GAP_PERIODS = 3
GAP_MIN_S = 0.5
COVERAGE_MIN = 0.9  # of a stretch of time; less makes its energy void
_MARKS = 4096


@dataclass(frozen=True, slots=True)
class _Mark:
    """A sample, with the energy and the covered time up to it."""

    t_s: float
    power_w: float
    joules: float
    covered_s: float


def max_gap_s(period_s: float) -> float:
    """How far apart two samples of a sensor with this period may be and still be joined."""
    return max(GAP_PERIODS * period_s, GAP_MIN_S)


class PowerIntegral:
    """Trapezoids over power samples; pure. A step of more than `max_gap_s`, or back in time, is void: it adds neither
    energy nor covered time."""

    def __init__(self, max_gap_s: float) -> None:
        self._max_gap_s = max_gap_s
        self._marks: deque[_Mark] = deque(maxlen=_MARKS)

    @property
    def last_s(self) -> float | None:
        return self._marks[-1].t_s if self._marks else None

    @property
    def joules(self) -> float:
        return self._marks[-1].joules if self._marks else 0.0

    @property
    def covered_s(self) -> float:
        return self._marks[-1].covered_s if self._marks else 0.0

    def add(self, t_s: float, power_w: float) -> None:
        """A second sample of one moment changes nothing. Raises ValueError for what is not finite."""
        if not (math.isfinite(t_s) and math.isfinite(power_w)):
            raise ValueError(f"expected a finite time and power, found {t_s} s, {power_w} W")
        if not self._marks:
            self._marks.append(_Mark(t_s, power_w, 0.0, 0.0))
            return
        last = self._marks[-1]
        step_s = t_s - last.t_s
        if step_s == 0:
            return
        if 0 < step_s <= self._max_gap_s:
            joules = last.joules + (last.power_w + power_w) / 2 * step_s
            self._marks.append(_Mark(t_s, power_w, joules, last.covered_s + step_s))
            return
        if step_s < 0:  # what lies behind cannot be looked up by time any more
            self._marks.clear()
        self._marks.append(_Mark(t_s, power_w, last.joules, last.covered_s))

    def between(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Joules and covered seconds from `start_s` to `end_s`, both interpolated; outside the samples nothing is
        covered."""
        start_j, start_covered_s = self._until(start_s)
        end_j, end_covered_s = self._until(end_s)
        return end_j - start_j, end_covered_s - start_covered_s

    def forget(self, before_s: float) -> None:
        """Marks that no question about later times needs."""
        while len(self._marks) > 1 and self._marks[1].t_s <= before_s:
            self._marks.popleft()

    def _until(self, t_s: float) -> tuple[float, float]:
        after: _Mark | None = None
        for mark in reversed(self._marks):  # questions are about the last seconds
            if mark.t_s <= t_s:
                if after is None or after.covered_s == mark.covered_s:  # beyond the last, or in a gap
                    return mark.joules, mark.covered_s
                part_s = t_s - mark.t_s
                power_w = mark.power_w + (after.power_w - mark.power_w) * part_s / (after.t_s - mark.t_s)
                return mark.joules + (mark.power_w + power_w) / 2 * part_s, mark.covered_s + part_s
            after = mark
        return (after.joules, after.covered_s) if after else (0.0, 0.0)
