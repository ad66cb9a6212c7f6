"""Energy of the machine, and its share per answered inference.

power samples of the total (`flyball.sensing.total`) -> trapezoids -> J -> shares of (ladder, rung) by busy time

    meter = EnergyMeter(sampler)
    meter.account(now_s, busy, answers)     # once per period, from one thread: what was added since the last call

What was not sampled is left out of the energy and of the seconds it covers; nothing is filled in. Figures of different
scopes are never added: when a measured total appears after an estimate, the count starts again.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from flyball.ports import EnergyTotal, Quantity, Reading
from flyball.sensing.total import TRUST, explain_no_total, total_power

log = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, str]  # ladder, rung

GAP_PERIODS = 3
GAP_MIN_S = 0.5
COVERAGE_MIN = 0.9  # of an accounting period; less makes it void
EXPLAIN_AFTER_S = 5.0  # sensors have had their first reads by then
_MARKS = 4096


class PowerSource(Protocol):
    """What the meter needs of the sampler."""

    def latest(self) -> Sequence[Reading]: ...

    def samples(self, quantity: Quantity, name: str, since_s: float) -> Sequence[tuple[float, float]]: ...

    def period_s(self, sensor: str) -> float: ...


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


class Shares:
    """Energy and answers per (ladder, rung); pure.

    The energy of a period goes to the rungs that worked in it, by their busy seconds: gross, idle power included. A
    period in which nothing ran is charged to nobody. Of a period that was not covered whole, only that part of the
    answers counts.
    """

    def __init__(self) -> None:
        self._joules: dict[Key, float] = {}
        self._answers: dict[Key, float] = {}

    def add(self, joules: float, coverage: float, busy: Mapping[Key, float], answers: Mapping[Key, int]) -> None:
        worked = {key: busy_s for key, busy_s in busy.items() if busy_s > 0}
        busy_s = math.fsum(worked.values())
        for key, own_s in worked.items():
            self._joules[key] = self._joules.get(key, 0.0) + joules * own_s / busy_s
        for key, count in answers.items():
            if count > 0:
                self._answers[key] = self._answers.get(key, 0.0) + count * coverage

    def joules_per_answer(self, key: Key) -> float | None:
        joules, answers = self._joules.get(key), self._answers.get(key)
        return joules / answers if joules is not None and answers else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Period:
    start_s: float
    end_s: float
    busy: Mapping[Key, float]
    answers: Mapping[Key, int]


class EnergyMeter:
    """Implements ports.EnergyMeter. All methods from one thread."""

    def __init__(self, source: PowerSource) -> None:
        self._source = source
        self._max_gap_s = GAP_MIN_S  # of the total's sensor, once there is one
        self._total: Reading | None = None  # the reading whose series is integrated
        self._integral = PowerIntegral(self._max_gap_s)
        self._shares = Shares()
        self._pending: deque[_Period] = deque()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._explained = False

    def account(self, now_s: float, busy: Mapping[Key, float], answers: Mapping[Key, int]) -> None:
        """Busy seconds and answers per (ladder, rung) since the last call. The first call only starts the clock."""
        last_s, self._last_s = self._last_s, now_s
        if self._first_s is None:
            self._first_s = now_s
        self._follow(now_s)
        if last_s is not None and now_s > last_s:
            self._pending.append(_Period(start_s=last_s, end_s=now_s, busy=dict(busy), answers=dict(answers)))
        elif last_s is not None and now_s < last_s:
            self._pending.clear()  # the clock went back: what was pending cannot be placed
        self._settle(now_s)

    def energy(self) -> EnergyTotal | None:
        """None before two samples of a total have been seen."""
        if self._total is None or self._integral.covered_s == 0:
            return None
        return EnergyTotal(
            joules=self._integral.joules,
            covered_s=self._integral.covered_s,
            scope=self._total.scope,
            source=f"{self._total.sensor}: {self._total.name}",
        )

    def joules_per_inference(self, ladder: str, rung: str) -> float | None:
        return self._shares.joules_per_answer((ladder, rung))

    def _follow(self, now_s: float) -> None:
        """Take in the new samples of the total, and a better total when there is one."""
        readings = self._source.latest()
        total = total_power(readings)
        if total is None:
            self._explain(readings, now_s)
        elif self._total is None or _replaces(total, self._total):
            if self._total is not None:
                log.info(
                    "energy is counted anew from %s (%s), no more from %s", total.name, total.scope, self._total.name
                )
            self._total = total
            self._max_gap_s = max_gap_s(self._source.period_s(total.sensor))
            self._integral = PowerIntegral(self._max_gap_s)
            self._shares = Shares()
            self._pending.clear()
        if self._total is not None:
            last_s = self._integral.last_s
            since_s = -math.inf if last_s is None or last_s > now_s else last_s
            for t_s, power_w in self._source.samples("power", self._total.name, since_s):
                self._integral.add(t_s, power_w)

    def _settle(self, now_s: float) -> None:
        """Share out the periods that samples reach beyond, or will reach no more."""
        while self._pending:
            period = self._pending[0]
            reached = self._integral.last_s is not None and self._integral.last_s >= period.end_s
            if not reached and now_s - period.end_s <= self._max_gap_s:
                break
            self._pending.popleft()
            joules, covered_s = self._integral.between(period.start_s, period.end_s)
            coverage = covered_s / (period.end_s - period.start_s)
            if coverage >= COVERAGE_MIN:
                self._shares.add(joules, coverage, period.busy, period.answers)
        self._integral.forget(self._pending[0].start_s if self._pending else now_s - self._max_gap_s)

    def _explain(self, readings: Sequence[Reading], now_s: float) -> None:
        if self._total is not None or self._explained or self._first_s is None:
            return
        if now_s - self._first_s >= EXPLAIN_AFTER_S:
            self._explained = True
            log.info("no energy is counted: %s", explain_no_total(readings))


def _replaces(new: Reading, old: Reading) -> bool:
    """A total of wider scope, or another one of the same. Never a narrower: a lost sensor leaves a gap, which is
    honest, where an estimate in its place would be added to a measurement."""
    if (new.name, new.scope) == (old.name, old.scope):
        return False
    return TRUST.index(new.scope) <= TRUST.index(old.scope)
