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
from flyball.sensing.integral import COVERAGE_MIN, GAP_MIN_S, PowerIntegral, max_gap_s
from flyball.sensing.total import TRUST, explain_no_total, total_power

log = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, str]  # ladder, rung

IDLE_BUSY = 0.01  # of a period at most, summed over all rungs
IDLE_MEMORY_S = 60.0
EXPLAIN_AFTER_S = 5.0  # sensors have had their first reads by then


class PowerSource(Protocol):
    """What the meter needs of the sampler."""

    def latest(self) -> Sequence[Reading]: ...

    def samples(self, quantity: Quantity, name: str, since_s: float) -> Sequence[tuple[float, float]]: ...

    def period_s(self, sensor: str) -> float: ...


class Shares:
    """Energy and answers per (ladder, rung); pure.

    The energy of a period goes to the rungs that worked in it, by their busy seconds: gross, idle power included; and
    net, less what idling would have taken, once that is known. A period in which nothing ran is charged to nobody. Of a
    period that was not covered whole, only that part of the answers counts.
    """

    def __init__(self) -> None:
        self._gross: dict[Key, tuple[float, float]] = {}  # joules, answers
        self._net: dict[Key, tuple[float, float]] = {}

    def add(
        self,
        joules: float,
        coverage: float,
        busy: Mapping[Key, float],
        answers: Mapping[Key, int],
        idle_j: float | None = None,
    ) -> None:
        worked = {key: busy_s for key, busy_s in busy.items() if busy_s > 0}
        busy_s = math.fsum(worked.values())
        for key in {*worked, *(key for key, count in answers.items() if count > 0)}:
            share, count = worked.get(key, 0.0) / busy_s if busy_s else 0.0, answers.get(key, 0) * coverage
            _add(self._gross, key, joules * share, count)
            if idle_j is not None:
                _add(self._net, key, (joules - idle_j) * share, count)

    def joules_per_answer(self, key: Key) -> float | None:
        joules, answers = self._gross.get(key, (0.0, 0.0))
        return joules / answers if joules and answers else None

    def net_joules_per_answer(self, key: Key) -> float | None:
        """None as long as idling is not known, and where the work took no more than idling: that is noise."""
        joules, answers = self._net.get(key, (0.0, 0.0))
        return joules / answers if joules > 0 and answers else None


def _add(totals: dict[Key, tuple[float, float]], key: Key, joules: float, answers: float) -> None:
    before_j, before = totals.get(key, (0.0, 0.0))
    totals[key] = (before_j + joules, before + answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Period:
    start_s: float
    end_s: float
    busy: Mapping[Key, float]
    answers: Mapping[Key, int]
    at_rest: bool


class EnergyMeter:
    """Implements ports.EnergyMeter. All methods from one thread."""

    def __init__(self, source: PowerSource) -> None:
        self._source = source
        self._max_gap_s = GAP_MIN_S  # of the total's sensor, once there is one
        self._total: Reading | None = None  # the reading whose series is integrated
        self._integral = PowerIntegral(self._max_gap_s)
        self._shares = Shares()
        self._idle_w: float | None = None
        self._idle_s = 0.0  # what `_idle_w` is the mean of, up to IDLE_MEMORY_S
        self._uncertainty: float | None = None
        self._pending: deque[_Period] = deque()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._explained = False

    def account(
        self, now_s: float, busy: Mapping[Key, float], answers: Mapping[Key, int], at_rest: bool = True
    ) -> None:
        """Busy seconds and answers per (ladder, rung) since the last call; `at_rest`: nothing else was done for the
        ladders, such as opening a rung. The first call only starts the clock."""
        last_s, self._last_s = self._last_s, now_s
        if self._first_s is None:
            self._first_s = now_s
        self._follow(now_s)
        if last_s is not None and now_s > last_s:
            self._pending.append(
                _Period(start_s=last_s, end_s=now_s, busy=dict(busy), answers=dict(answers), at_rest=at_rest)
            )
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
            uncertainty=self._uncertainty,
        )

    def joules_per_inference(self, ladder: str, rung: str) -> float | None:
        return self._shares.joules_per_answer((ladder, rung))

    def net_joules_per_inference(self, ladder: str, rung: str) -> float | None:
        return self._shares.net_joules_per_answer((ladder, rung))

    def idle_w(self) -> float | None:
        """None before the machine was seen idle."""
        return self._idle_w

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
            self._idle_w, self._idle_s = None, 0.0
            self._uncertainty = None
            self._pending.clear()
        newest = newest_of(self._total, readings)
        if newest is not None and newest.uncertainty is not None:  # the worst that was seen
            self._uncertainty = max(newest.uncertainty, self._uncertainty or 0.0)
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
                self._learn_idle(period, joules / covered_s, covered_s)
                idle_j = None if self._idle_w is None else self._idle_w * covered_s
                self._shares.add(joules, coverage, period.busy, period.answers, idle_j)
        self._integral.forget(self._pending[0].start_s if self._pending else now_s - self._max_gap_s)

    def _learn_idle(self, period: _Period, power_w: float, covered_s: float) -> None:
        """What the machine takes with its ladders open and nothing to do: the mean of all such time up to a minute, and
        of about the last minute from then on."""
        if not period.at_rest or sum(period.busy.values()) > IDLE_BUSY * (period.end_s - period.start_s):
            return
        self._idle_s = min(self._idle_s + covered_s, IDLE_MEMORY_S)
        weight = min(1.0, covered_s / self._idle_s)
        self._idle_w = power_w if self._idle_w is None else self._idle_w + (power_w - self._idle_w) * weight

    def _explain(self, readings: Sequence[Reading], now_s: float) -> None:
        if self._total is not None or self._explained or self._first_s is None:
            return
        if now_s - self._first_s >= EXPLAIN_AFTER_S:
            self._explained = True
            log.info("no energy is counted: %s", explain_no_total(readings))


def newest_of(total: Reading | None, readings: Sequence[Reading]) -> Reading | None:
    """The power of that name: a voltage may bear it too."""
    named = (r for r in readings if total is not None and (r.quantity, r.name) == (total.quantity, total.name))
    return next(named, None)


def _replaces(new: Reading, old: Reading) -> bool:
    """A total of wider scope, or another one of the same. Never a narrower: a lost sensor leaves a gap, which is
    honest, where an estimate in its place would be added to a measurement."""
    if (new.name, new.scope) == (old.name, old.scope):
        return False
    return TRUST.index(new.scope) <= TRUST.index(old.scope)
