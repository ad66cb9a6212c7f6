"""A machine made of numbers that meets a trace: its queue, memory and accelerators; heat and power are body.py's.

trace period + noise -> advance -> Period (what happened), and view() -> senses.py -> values.View (what is seen of it)

One server for each accelerator, first come first served. An inference takes work_s x slow-down at the contention (log-
normal about it), x 1/0.6 while throttled, x 3 while memory is short. A request that the queue before it would make late
is refused at once, as the engine does. A rung that is not resident loads first; meanwhile the old one answers, 15 %
slower, or, where there is no memory for both, nobody. Draws nothing itself: chance is all in sample.py, so that every
policy meets the same. A period costs some 10 us beside its requests (a third of a microsecond each).

    plant = Plant(trace, draw(trace))
    for i in range(len(trace.steps)):
        period = plant.advance(i)
        decision = policy.decide(plant.view())
        error = plant.switch(decision.target) if decision.target != decision.source else ""
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.governor.replay.body import Body
from flyball.governor.replay.period import Period
from flyball.governor.replay.sample import Sample
from flyball.governor.replay.senses import Moment, Senses
from flyball.governor.replay.trace import Model, Step, Trace
from flyball.governor.values import View

WINDOW_S = 5.0
RESIDENT_S = 0.02  # a switch to a rung that is open already
LOADING_SLOWS = 1.15  # the old rung, while another loads beside it
LOST_LOADS = 3.0  # loading on an accelerator that had gone
STANDBYS, STANDBY_BYTES = 2, 256.0 * (1 << 20)
RESERVE_BYTES = 64.0 * (1 << 20)  # where the trace has no limit of its own
RECLAIM_SHARE, RECLAIM_SLOWS = 0.75, 3.0  # of that reserve; below it pages are written out and read back
RECLAIM_PRESSURE = 0.3


@dataclass(slots=True)
class _Pending:
    """A switch on its way. `gap`: nobody answers until then."""

    target: Model
    ready_s: float
    resident: bool
    gap: bool


@dataclass(slots=True)
class _Tally:
    answered: int = 0
    late: int = 0
    refused: int = 0
    accuracy: float = 0.0
    on_time: float = 0.0
    joules: float = 0.0
    busy_s: float = 0.0


class Plant:
    """At the start the strongest rung answers. `switches` counts those that began, also the machine's own when an
    accelerator is lost. `hand_over` is what every answer takes beside waiting and work: the median in seconds and the
    deviation of its logarithm. It is long where the work is, by the same chance, and keeps no other request waiting."""

    def __init__(
        self, trace: Trace, sample: Sample, window_s: float = WINDOW_S, hand_over: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        header = trace.header
        self.trace, self._sample, self._hand_over = trace, sample, hand_over
        self._models = {rung.name: rung for rung in header.rungs}
        self._board, self._period_s = header.board, header.period_s
        self._limit_s = header.limits.deadline_s if header.limits.deadline_s is not None else math.inf
        self._reserve = header.limits.memory_available_bytes or RESERVE_BYTES
        self.active: Model | None = header.rungs[0]
        self._standby: list[Model] = []
        self.pending: _Pending | None = None
        self.switches = 0
        self._lost: tuple[str, ...] = ()
        self._reload: set[str] = set()
        self._free: dict[str, float] = {}
        self._body = Body(header.board, header.period_s, trace.steps[0].ambient_c)
        self._i = -1
        self._load_joules = 0.0
        self._latencies: deque[list[float]] = deque([[]], maxlen=max(1, round(window_s / header.period_s)))
        self._turned_away: deque[int] = deque([0], maxlen=self._latencies.maxlen)  # refused, beside the latencies
        self._works: list[float] = []
        self._last = _Tally()
        self._arrivals = 0
        self._available = header.board.memory_bytes
        self._senses = Senses(trace, sample)

    def advance(self, i: int) -> Period:
        """Period i, which must follow the one before."""
        step, period_s = self.trace.steps[i], self._period_s
        self._i = i
        begin_s, end_s = step.t_s, step.t_s + period_s
        if step.lost != self._lost:
            self._lose(step)
        self._available = self._memory(step)
        first, last = self._sample.first[i], self._sample.first[i + 1]
        times = begin_s + period_s * self._sample.offsets[first:last]
        normals = self._sample.normals[first:last]
        tally = _Tally()
        self._latencies.append([])
        self._turned_away.append(0)
        self._works = []
        pending = self.pending
        throttled = self._body.throttled
        if pending is None or pending.ready_s >= end_s:
            self._serve(step, times, normals, tally)
        else:
            split = int(np.searchsorted(times, pending.ready_s))
            self._serve(step, times[:split], normals[:split], tally)
            self._arrive(pending)
            self._serve(step, times[split:], normals[split:], tally)
        joules = tally.joules + self._load_joules
        self._load_joules = 0.0
        self._body.spend(joules, step)
        self._last, self._arrivals = tally, last - first
        return Period(
            t_s=begin_s,
            rung=self.active.name if self.active is not None else None,
            arrivals=last - first,
            answered=tally.answered,
            late=tally.late,
            refused=tally.refused,
            accuracy=tally.accuracy,
            accuracy_on_time=tally.on_time,
            joules=joules,
            power_w=self._body.power_w,
            temp_c=self._body.temp_c,
            throttled=throttled,
            available_bytes=self._available,
        )

    def switch(self, name: str) -> str:
        """From the end of the last period on; why not, or "" when it began. It is over when `pending` is None."""
        target = self._models.get(name)
        if target is None:
            return f"no rung is called {name}"
        if target.accelerator in self._lost:
            return f"accelerator {target.accelerator} is not there"
        if self.pending is not None:
            return "another switch is on its way"
        if target is not self.active:
            self._begin(target, self.now_s, self.trace.steps[self._i])
        return ""

    def view(self) -> View:
        """What sensors say after the last period."""
        body = self._body
        return self._senses.view(
            self._i,
            Moment(
                now_s=self.now_s,
                active=self.active.name if self.active is not None else None,
                standby=tuple(m.name for m in self._standby),
                lost=self._lost,
                temp_c=body.temp_c,
                clock=body.clock,
                throttled=body.throttled,
                power_w=body.power_w,
                available_bytes=self._available,
                pressure=RECLAIM_PRESSURE if self._available < RECLAIM_SHARE * self._reserve else 0.0,
                arrivals=self._arrivals,
                answered=self._last.answered,
                missed=self._last.late + self._last.refused,
                busy_s=self._last.busy_s,
                works=self._works,
                latencies=self._latencies,
                turned_away=sum(self._turned_away),
            ),
        )

    def latencies(self) -> list[float]:
        """Of the active rung's answers in the window, the oldest first; seconds."""
        return [latency_s for part in self._latencies for latency_s in part]

    @property
    def now_s(self) -> float:
        return self.trace.steps[self._i].t_s + self._period_s

    def _begin(self, target: Model, now_s: float, step: Step) -> None:
        self.switches += 1
        resident = target in self._standby
        took_s = RESIDENT_S
        if not resident:
            took_s = target.load_s * target.slowed(step.contention)[0]
            took_s *= LOST_LOADS if target.name in self._reload else 1.0
            took_s /= self._body.clock
            self._load_joules += target.load_s * self._board.core_w
            self._reload.discard(target.name)
        need = 0.0 if resident else target.rss_bytes
        while self._standby and self._memory(step, prune=False) - need < self._reserve:
            gone = next((m for m in self._standby if m is not target), None)
            if gone is None:
                break
            self._standby.remove(gone)
        gap = self.active is None or self._memory(step, prune=False) - need < RECLAIM_SHARE * self._reserve
        self.pending = _Pending(target, now_s + took_s, resident, gap and not resident)

    def _arrive(self, pending: _Pending) -> None:
        target, self.pending = pending.target, None
        if target in self._standby:
            self._standby.remove(target)
        if self.active is not None and not pending.gap:
            self._standby.insert(0, self.active)
        while len(self._standby) > STANDBYS or sum(m.rss_bytes for m in self._standby) > STANDBY_BYTES:
            self._standby.pop()
        if self.active is None or self.active.accelerator != target.accelerator or pending.gap:
            self._free[target.accelerator] = max(self._free.get(target.accelerator, 0.0), pending.ready_s)
        self.active = target
        self._latencies.clear()
        self._latencies.append([])
        self._turned_away.clear()
        self._turned_away.append(0)
        self._works = []

    def _serve(
        self, step: Step, times: npt.NDArray[np.float64], normals: npt.NDArray[np.float64], tally: _Tally
    ) -> None:
        active, pending = self.active, self.pending
        if pending is not None and pending.gap:  # all that came must wait for the new one, which is too long
            active = None
        if active is None:
            tally.refused += len(times)
            return
        if not len(times):
            return
        factor, spread = active.slowed(step.contention)
        mean_s = active.work_s * factor * self._slower()
        if pending is not None and not pending.resident:
            mean_s *= LOADING_SLOWS
        works = (mean_s * math.exp(-0.5 * spread * spread)) * np.exp(spread * normals)
        hands = self._hand_over[0] * np.exp(self._hand_over[1] * normals)
        limit_s = self._limit_s
        longest_wait_s = max(limit_s - mean_s, 0.0)
        free_s = self._free.get(active.accelerator, 0.0)
        latencies, done = self._latencies[-1], self._works
        before, refused, late = len(done), 0, 0
        for t_s, work_s, hand_s in zip(times.tolist(), works.tolist(), hands.tolist(), strict=True):
            wait_s = free_s - t_s
            if wait_s <= 0.0:
                wait_s = 0.0
            elif wait_s > longest_wait_s:
                refused += 1
                continue
            served_s = wait_s + work_s
            free_s = t_s + served_s
            latency_s = served_s + hand_s
            if latency_s > limit_s:
                late += 1
            latencies.append(latency_s)
            done.append(work_s)
        self._free[active.accelerator] = free_s
        answered = len(done) - before
        tally.answered += answered
        tally.late += late
        tally.refused += refused
        self._turned_away[-1] += refused
        tally.accuracy += answered * active.accuracy
        tally.on_time += (answered - late) * active.accuracy
        tally.joules += answered * active.joules
        tally.busy_s += sum(done[before:])

    def _slower(self) -> float:
        return (1.0 / self._body.clock) * (RECLAIM_SLOWS if self._available < RECLAIM_SHARE * self._reserve else 1.0)

    def _lose(self, step: Step) -> None:
        gone = set(step.lost) - set(self._lost)
        self._lost = step.lost
        affected = [m for m in self._models.values() if m.accelerator in gone]
        self._reload.update(m.name for m in affected)
        self._standby = [m for m in self._standby if m not in affected]
        if self.pending is not None and self.pending.target in affected:
            self.pending = None
        if self.active in affected or self.active is None:
            usable = [m for m in self._models.values() if m.accelerator not in self._lost]
            ready = [m for m in usable if m in self._standby]
            self.active = None
            self._latencies.clear()
            if self.pending is None and usable:
                self._begin((ready or usable)[0], step.t_s, step)

    def _memory(self, step: Step, prune: bool = True) -> float:
        """Available now. Warm rungs are let go before the reserve is touched."""
        available = self._board.memory_bytes - step.memory_taken_bytes
        available -= self.active.rss_bytes if self.active is not None else 0.0
        if self.pending is not None and not self.pending.resident:
            available -= self.pending.target.rss_bytes
        kept = sum(m.rss_bytes for m in self._standby)
        while prune and self._standby and available - kept < self._reserve:
            if self.pending is not None and self.pending.target is self._standby[-1]:
                break
            kept -= self._standby.pop().rss_bytes
        return max(available - kept, 0.0)
