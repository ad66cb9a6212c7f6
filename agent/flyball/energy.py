"""Energy of any stretch of a program, as this machine's sensors see it.

    with flyball.energy.PowerMonitor() as monitor:
        work()
    monitor.report().energy_j       # and mean_w, scope, source, uncertainty; None where nothing measures, with `why`

sensors that give power -> samples of the total -> trapezoids from entry to exit -> Report

The figure is of the whole scope, not of this program alone: what else the machine does is in it. An estimate says that
it is one by its scope. Works without the daemon, and beside it.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Sequence
from types import TracebackType

import msgspec

from flyball.clock import SystemClock
from flyball.config import Sensing
from flyball.events import Events
from flyball.ports import Reading
from flyball.sensing.contract import Roots, Sensor
from flyball.sensing.discovery import discover
from flyball.sensing.energy import newest_of
from flyball.sensing.integral import COVERAGE_MIN, PowerIntegral, max_gap_s
from flyball.sensing.probe import probe
from flyball.sensing.sampler import Sampler
from flyball.sensing.total import explain_no_total, total_power

PERIOD_S = 0.1
PERIOD_MIN_S, PERIOD_MAX_S = 0.01, 3600.0  # as in sensing.periods
_FIRST_S = 3.0  # how long the first power figure may take; some need two reads
_TAKE_IN_S = 0.1
_BLOCKS = 10
_FEWEST_BLOCKS = 3
# Student's t, two-sided 95 %, by degrees of freedom (one less than there are blocks).
_T95 = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
_KEPT_BLOCKS = 4096
_FEWEST = 3  # readings within the stretch


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`energy_j` and `mean_w` are None where there is no figure; `why` says why. `scope` is what the figure is of
    (wall, machine, board, module, or estimated), `uncertainty` is relative (None: the sensor's own is not known, or
    the stretch was too short to see how much the power varies), `coverage` is the share of the time that readings
    cover; the rest is taken for the mean. Time in which the machine was suspended is in neither seconds nor joules."""

    seconds: float
    energy_j: float | None = None
    mean_w: float | None = None
    scope: str = ""
    source: str = ""
    uncertainty: float | None = None
    coverage: float = 0.0
    samples: int = 0
    why: str = ""


class PowerMonitor:
    """`period_s` is how often the power is read, as far as the hardware bears it. One monitor measures once. Raises
    ValueError for a period that is not of 0.01 to 3600 s."""

    def __init__(
        self, period_s: float = PERIOD_S, *, roots: Roots | None = None, settings: Sensing | None = None
    ) -> None:
        if not PERIOD_MIN_S <= period_s <= PERIOD_MAX_S:
            raise ValueError(f"period_s: expected {PERIOD_MIN_S:g} to {PERIOD_MAX_S:g} s, found {period_s!r}")
        self._period_s = period_s
        self._roots = roots or Roots()
        self._settings = settings or Sensing()
        self._clock = SystemClock()
        self._sampler: Sampler | None = None
        self._total: Reading | None = None
        self._integral = PowerIntegral(0.0)
        self._blocks = Blocks()
        self._samples = 0
        self._uncertainty: float | None = None
        self._start_s = self._end_s = self._at_s = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._why = ""

    def __enter__(self) -> PowerMonitor:
        if self._sampler is not None:
            raise RuntimeError("a PowerMonitor measures once: make another one")
        settings = self._settings
        giving = {sensor.name for sensor in power_sensors(discover(self._roots, settings), self._clock)}
        # New ones: a thread of the look before may still be in a read, and a sensor is read by one thread at a time.
        sensors = [sensor for sensor in discover(self._roots, settings) if sensor.name in giving]
        window_s = max(60.0, 20 * self._period_s)
        slower = {name: max(period_s, self._period_s) for name, period_s in settings.periods.items() if name in giving}
        self._sampler = Sampler(
            sensors, self._period_s, window_s, self._clock, Events(), periods=slower, total=settings.total
        )
        self._sampler.start()
        try:
            self._total = self._first_total(self._sampler)
        except BaseException:  # Ctrl-C: __exit__ will not be called
            self._sampler.stop()
            raise
        if self._total is None:
            self._why = explain_no_total(self._sampler.latest())
        else:
            self._integral = PowerIntegral(max_gap_s(self._sampler.period_s(self._total.sensor)))
            self._thread = threading.Thread(target=self._follow, name="power-monitor", daemon=True)
        self._start_s = self._at_s = self._clock.monotonic_s()
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_s = self._clock.monotonic_s()
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        assert self._sampler is not None
        self._sampler.stop()

    @property
    def energy_j(self) -> float | None:
        return self.report().energy_j

    @property
    def mean_w(self) -> float | None:
        return self.report().mean_w

    @property
    def scope(self) -> str:
        return self.report().scope

    @property
    def uncertainty(self) -> float | None:
        return self.report().uncertainty

    def report(self) -> Report:
        """Once the stretch is over. Raises RuntimeError before."""
        if not self._ended.is_set():
            raise RuntimeError("the measurement is not over: ask after the with statement")
        seconds = self._end_s - self._start_s
        if self._total is None:
            return Report(seconds=seconds, why=self._why)
        blocks = self._blocks.kept
        joules = math.fsum(j for j, _ in blocks)
        covered_s = math.fsum(s for _, s in blocks)
        coverage = min(1.0, covered_s / seconds) if seconds > 0 else 0.0
        scope, source = self._total.scope, f"{self._total.sensor}: {self._total.name}"
        why = ""
        if coverage < COVERAGE_MIN:
            why = f"readings cover {coverage:.0%} of the time, and {COVERAGE_MIN:.0%} is the least"
        elif self._samples < _FEWEST:
            why = f"{self._samples} readings in {seconds:.2f} s tell nothing: measure for longer, or read more often"
        if why:
            return Report(
                seconds=seconds, scope=scope, source=source, coverage=coverage, samples=self._samples, why=why
            )
        mean_w = joules / covered_s
        spread = spread_of(blocks, mean_w)
        uncertainty = None
        if self._uncertainty is not None and spread is not None:
            # What was taken while nothing was read is not known: it is as likely nothing as twice the mean.
            uncertainty = math.hypot(self._uncertainty, spread, 1 - coverage)
        return Report(
            seconds=seconds,
            energy_j=mean_w * seconds,
            mean_w=mean_w,
            uncertainty=uncertainty,
            coverage=coverage,
            samples=self._samples,
            scope=scope,
            source=source,
        )

    def _first_total(self, sampler: Sampler) -> Reading | None:
        # A counter's first figure comes with its second read.
        end_s = self._clock.monotonic_s() + max(_FIRST_S, self._period_s + 1.0)
        while True:
            total = total_power(sampler.latest())
            settled = total is not None and total.scope != "estimated"
            if settled or self._clock.monotonic_s() >= end_s or (total is not None and _all_read(sampler)):
                return total
            time.sleep(min(self._period_s, 0.02))

    def _follow(self) -> None:
        assert self._sampler is not None
        assert self._total is not None
        period_s = self._sampler.period_s(self._total.sensor)
        while not self._ended.wait(_TAKE_IN_S):
            self._take_in(math.inf)
        # The end lies between two samples: the second is waited for, as long as it may take.
        give_up_s = self._end_s + max_gap_s(period_s)
        while (self._integral.last_s or 0.0) < self._end_s and self._clock.monotonic_s() < give_up_s:
            time.sleep(period_s / 4)
            self._take_in(self._end_s)
        self._take_in(self._end_s)

    def _take_in(self, end_s: float) -> None:
        assert self._sampler is not None
        assert self._total is not None
        last_s = self._integral.last_s
        since_s = self._start_s - max_gap_s(self._sampler.period_s(self._total.sensor)) if last_s is None else last_s
        for t_s, power_w in self._sampler.samples("power", self._total.name, since_s):
            if last_s is None or t_s > last_s:
                self._integral.add(t_s, power_w)
                self._samples += self._start_s <= t_s <= end_s
        newest = newest_of(self._total, self._sampler.latest())
        if newest is not None and newest.uncertainty is not None:
            self._uncertainty = max(newest.uncertainty, self._uncertainty or 0.0)
        upto_s = min(self._integral.last_s or self._at_s, end_s)
        if upto_s > self._at_s:
            self._blocks.add(*self._integral.between(self._at_s, upto_s))
            self._at_s = upto_s
            self._integral.forget(self._at_s)


class Blocks:
    """Joules and covered seconds of neighbouring stretches of about equal length, which grows with the whole so that
    there are never more than `most`; pure."""

    def __init__(self, most: int = _KEPT_BLOCKS) -> None:
        self._most = most
        self._least_s = 0.0
        self.kept: list[tuple[float, float]] = []

    def add(self, joules: float, covered_s: float) -> None:
        if self.kept and self.kept[-1][1] < self._least_s:
            last_j, last_s = self.kept[-1]
            self.kept[-1] = (last_j + joules, last_s + covered_s)
            return
        self.kept.append((joules, covered_s))
        if len(self.kept) >= self._most:
            self.kept = merged(self.kept, self._most // 2)
            self._least_s = statistics.median(s for _, s in self.kept)


def power_sensors(sensors: Sequence[Sensor], clock: SystemClock) -> list[Sensor]:
    """Those that give power."""
    readings, _ = probe(sensors, clock)
    found = {reading.sensor for reading in readings if reading.quantity == "power"}
    return [sensor for sensor in sensors if sensor.name in found]


def merged(blocks: Sequence[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """At most `count` blocks, neighbours added up."""
    size = math.ceil(len(blocks) / count)
    parts = [blocks[i : i + size] for i in range(0, len(blocks), size)]
    return [(math.fsum(j for j, _ in part), math.fsum(s for _, s in part)) for part in parts]


def spread_of(blocks: Sequence[tuple[float, float]], mean_w: float) -> float | None:
    """Half of the relative 95 % interval of the mean power, from the means of up to ten blocks: neighbouring samples
    resemble each other, so that they do not count one by one. None from fewer than three: they tell no spread."""
    full = [(j, s) for j, s in blocks if s > 0]
    if len(full) > 1 and full[-1][1] < statistics.median(s for _, s in full) / 2:  # the rest at the end
        full[-2:] = [(full[-2][0] + full[-1][0], full[-2][1] + full[-1][1])]
    means = [joules / covered_s for joules, covered_s in merged(full, _BLOCKS)] if full else []
    if len(means) < _FEWEST_BLOCKS or mean_w <= 0:
        return None
    return _T95[len(means) - 1] * statistics.stdev(means) / math.sqrt(len(means)) / mean_w


def _all_read(sampler: Sampler) -> bool:
    return all(health.reads >= 3 for health in sampler.health())
