"""Looks at the ladders and the machine.

Measured + Readings -> View

Reads through the ports only, and remembers nothing but the counters of the last look; decides nothing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flyball.clock import Clock
from flyball.config import Config
from flyball.governor import profile
from flyball.governor.state import LadderState, State
from flyball.governor.values import LadderView, Limits, Machine, Seen, View, limits_of
from flyball.ports import EnergyMeter, Ladder, LadderTotals, LatencyWindow, Reading, Readings
from flyball.sensing.total import total_power

log = logging.getLogger(__name__)

TASKS_S = 2.0  # "runnable" is a sample of a moment: its mean over a while says how many tasks there are
NEWEST_S, ODD_TASKS = 1.0, 0.8  # where the newest differ by less, per processor, and by more from those before: these
UNDER_VOLTAGE = "under_voltage"
NOTIFIES = "x86_pkg_temp"  # its trip points slow nothing down: programs move them to be told of a temperature


@dataclass(frozen=True, slots=True)
class _Counts:
    at_s: float
    arrivals: int
    answers: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the survey reads. `figures` gives a ladder's profile, by its name and version; `load_score` the load of the
    machine in one figure."""

    readings: Readings
    clock: Clock
    cpus: int
    meter: EnergyMeter | None = None
    floor: Callable[[str], float | None] = lambda ladder: None
    figures: Callable[[str, str], Mapping[str, profile.Figures]] = lambda ladder, version: {}
    load_score: Callable[[Sequence[Reading]], float | None] = lambda readings: None
    synchronized: Callable[[], bool] = lambda: False


class Survey:
    """Keeps the counters of the last look, for rates."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._before: dict[tuple[str, str], _Counts] = {}
        self._refused: dict[tuple[str, str], list[tuple[float, int]]] = {}  # when looked, and how many since before
        self._faulty: set[str] = set()
        self._busy: dict[tuple[str, str], tuple[float, float]] = {}  # when, and that ladder's own work until then

    def look(self, ladders: Sequence[Ladder], config: Config, state: State, changing: Sequence[Ladder] = ()) -> View:
        """Of `ladders`; of those that are `changing` their rung only what their answers take of the processors: that
        is no contention."""
        clock = self._sources.clock
        now_s, wall_s = clock.monotonic_s(), clock.wall_s()
        totals: dict[tuple[str, str], LadderTotals] = {}
        views: list[LadderView] = []
        for one in ladders:
            try:
                its = one.totals()
                views.append(self._ladder(one, its, config, state, now_s))
                totals[one.name, one.version] = its
                if one.name in self._faulty:
                    self._faulty.discard(one.name)
                    log.warning("decisions for the ladder %s work again", one.name)
            except Exception:
                # A boundary: whatever is wrong with one ladder, the others are governed. It is left out of the view.
                self._fault(one)
        working = dict(totals)
        for one in changing:
            try:
                working[one.name, one.version] = one.totals()
            except Exception:  # the same
                self._fault(one)
        busy = self._busy_share(working, now_s)
        self._before = {key: self._before[key] for key in totals if key in self._before}
        self._refused = {key: past for key, past in self._refused.items() if key in totals}
        return View(now_s=now_s, wall_s=wall_s, machine=self._machine(state, busy, wall_s), ladders=tuple(views))

    def _fault(self, one: Ladder) -> None:
        if one.name not in self._faulty:
            self._faulty.add(one.name)
            log.exception("no decision could be made for the ladder %s", one.name)

    def trips_c(self, zones: Sequence[str]) -> Mapping[str, float]:
        """Of every zone ("sensor/zone") its lowest trip point, where one is known. Names of trip points are
        "<zone>/<trip>"."""
        lowest: dict[str, float] = {}
        for reading in self._sources.readings.latest():
            if reading.quantity == "temperature_limit" and math.isfinite(reading.value):
                zone = reading.name.rpartition("/")[0]
                lowest[zone] = min(reading.value, lowest.get(zone, math.inf))
        found = {key: lowest.get(key.partition("/")[2]) for key in zones}
        return {key: trip_c for key, trip_c in found.items() if trip_c is not None and NOTIFIES not in key}

    # ------------------------------------------------------------------------------------------------ ladders

    def _ladder(self, ladder: Ladder, totals: LadderTotals, config: Config, state: State, now_s: float) -> LadderView:
        status, sources = ladder.status(), self._sources
        own = state.of(ladder.name)
        limits = limits_of(config, ladder.name, sources.floor(ladder.name))
        known = sources.figures(ladder.name, ladder.version)
        meter = sources.meter
        return LadderView(
            name=status.name,
            active=status.active,
            rungs=tuple(
                profile.rung(
                    r, known.get(r.name), None if meter is None else meter.net_joules_per_inference(ladder.name, r.name)
                )
                for r in status.rungs
            ),
            seen=self._seen(ladder, status.active, status.pending, totals, config, limits, own, now_s),
            limits=limits,
            error=status.error,
        )

    def _seen(
        self, ladder: Ladder, active: str | None, pending: int, totals: LadderTotals, config: Config, limits: Limits,
        own: LadderState, now_s: float,
    ) -> Seen:  # fmt: skip
        rules = config.governor
        key = (ladder.name, ladder.version)
        refused = totals.failure.get("REJECTED", 0)
        # The caller's mistakes are turned down at once: nothing waits for them, and no rung has work with them.
        failed = sum(count for reason, count in totals.failure.items() if reason != "OTHER")
        arrivals = totals.success + failed + pending
        counts = _Counts(now_s, arrivals, totals.success, refused)
        before = self._before.get(key)
        self._before[key] = counts
        since_s = rules.period_s if before is None else max(now_s - before.at_s, 1e-3)
        # Requests that waited out the load, or the change itself, are answered in the first period of a stay: their
        # latency is the former rung's fault. Older answers of this rung belong to an earlier stay.
        stay_s = now_s - own.since_s - rules.period_s if active == own.active else 0.0
        window_s = min(rules.window_s, stay_s)
        window = _window(ladder, window_s, limits.deadline_s)
        newest = _window(ladder, min(since_s, stay_s), limits.deadline_s)
        turned_away = 0 if before is None else max(0, counts.refused - before.refused)
        past = [(t, n) for t, n in self._refused.get(key, ()) if t > now_s - rules.window_s]
        past = self._refused[key] = [*past, (now_s, turned_away)] if turned_away else past
        in_window = sum(n for t, n in past if t > now_s - window_s)
        return Seen(
            arrivals_per_s=None if before is None else max(0, counts.arrivals - before.arrivals) / since_s,
            answers_per_s=None if before is None else max(0, counts.answers - before.answers) / since_s,
            answers=0 if newest is None else newest.count,
            work_mean_s=None if newest is None else newest.work_mean_s,
            work_std_s=None if newest is None else newest.work_std_s,
            late=_late(newest, turned_away),
            window_answers=0 if window is None else window.count + in_window,
            window_late=_late(window, in_window),
            p50_s=None if window is None else window.p50_s,
            p95_s=None if window is None else window.p95_s,
            p99_s=None if window is None else window.p99_s,
            pending=pending,
        )

    # ------------------------------------------------------------------------------------------------ the machine

    def _machine(self, state: State, own_busy: float, wall_s: float) -> Machine:
        sources = self._sources
        readings = sources.readings
        latest = readings.latest()
        zones = {
            f"{r.sensor}/{r.name}": r.value for r in latest if r.quantity == "temperature" and math.isfinite(r.value)
        }
        tasks = _tasks(readings, sources.cpus)
        power = total_power(latest)
        return Machine(
            contention=None if tasks is None else max(0.0, tasks - own_busy) / sources.cpus,
            cpu_utilization=_value(latest, "cpu_utilization"),
            clock=_clock(latest),
            zones=zones,
            off=_switched_off(zones, readings, state),
            power_w=None if power is None else power.value,
            estimated=power is not None and power.scope == "estimated",
            memory_available_bytes=_value(latest, "memory_available"),
            memory_pressure=_value(latest, "pressure", "memory_some"),
            cpus=sources.cpus,
            throttled=tuple(r.name for r in latest if r.quantity == "throttled" and r.value > 0),
            tells_throttling=any(r.quantity == "throttled" for r in latest),
            gpu_utilization=_value(latest, "utilization", "gpu"),
            cpu_pressure=_value(latest, "pressure", "cpu_some"),
            under_voltage=_alarm(latest, UNDER_VOLTAGE),
            load_score=sources.load_score(latest),
            hour=_hour(wall_s) if sources.synchronized() else None,
        )

    def _busy_share(self, totals: Mapping[tuple[str, str], LadderTotals], now_s: float) -> float:
        """How many tasks of Flyball's own have been at work on the average since the last look."""
        share = 0.0
        for key, its in totals.items():
            busy_s = sum(its.busy_s_by_rung.values())
            at_s, before_s = self._busy.get(key, (now_s, busy_s))
            if now_s > at_s:
                share += max(0.0, busy_s - before_s) / (now_s - at_s)
            self._busy[key] = (now_s, busy_s)
        return share


def _tasks(readings: Readings, cpus: int) -> float | None:
    """How many tasks there are. A load that came or went within the window is not averaged with the time before it."""
    every, newest = readings.window("runnable", TASKS_S), readings.window("runnable", NEWEST_S)
    if every is None or newest is None or newest.count < 2 or newest.count == every.count:
        return None if every is None else every.mean
    before = (every.mean * every.count - newest.mean * newest.count) / (every.count - newest.count)
    alike, odd = newest.maximum - newest.minimum, ODD_TASKS * cpus
    return newest.mean if alike <= odd < abs(newest.mean - before) else every.mean


def _window(ladder: Ladder, seconds: float, deadline_s: float | None) -> LatencyWindow | None:
    return ladder.window(seconds, deadline_s) if seconds > 0 else None


def _late(window: LatencyWindow | None, refused: int) -> float | None:
    if window is None or window.late is None or window.count + refused == 0:
        return None
    return (window.late + refused) / (window.count + refused)


def _value(latest: Sequence[Reading], quantity: str, name: str = "") -> float | None:
    return next((r.value for r in latest if r.quantity == quantity and name in ("", r.name)), None)


def _alarm(latest: Sequence[Reading], name: str) -> bool | None:
    found = [r.value > 0 for r in latest if r.quantity == "alarm" and r.name == name]
    return any(found) if found else None


def _clock(latest: Sequence[Reading]) -> float | None:
    """The mean frequency of the processors as a share of the highest; None where the kernel does not say."""
    highest = {r.name: r.value for r in latest if r.quantity == "frequency_limit" and r.sensor == "clocks"}
    now = {r.name: r.value for r in latest if r.quantity == "frequency" and r.sensor == "clocks"}
    shares = [now[name] / top for name, top in highest.items() if top > 0 and name in now]
    return sum(shares) / len(shares) if shares else None


def _switched_off(zones: Mapping[str, float], readings: Readings, state: State) -> tuple[str, ...]:
    """The zones once read whose sensor leaves them out and yet has nothing to complain of: they are switched off (the
    cv zones of Orin), which is no loss."""
    known = {name.partition("/")[2] for name in state.sensed if name.startswith("temperature/")} - zones.keys()
    if not known:
        return ()
    content = {h.sensor for h in readings.health() if h.state == "ok" and not h.reason}
    return tuple(sorted(zone for zone in known if zone.partition("/")[0] in content))


def _hour(wall_s: float) -> float:
    local = time.localtime(wall_s)
    return local.tm_hour + local.tm_min / 60.0 + local.tm_sec / 3600.0
