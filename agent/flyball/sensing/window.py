"""The last readings of every quantity and name, in bounded memory.

Reading -> ring per (quantity, name) -> newest reading | stats over a window | samples since

Refuses what is no measurement (NaN, infinity, a time from the future) and says so. Safe to use from several threads.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import get_args

from flyball.ports import UNITS, Quantity, Reading, Scope, Stats

CAPACITY = 8192  # samples per series, 320 KiB when full: at 1 Hz two hours, at 100 Hz 80 s
MAX_SERIES = 512  # a sensor that makes up new names must not eat the memory
QUANTITIES: tuple[str, ...] = get_args(Quantity)
SCOPES: tuple[str, ...] = get_args(Scope)
MOST_W = 100_000.0  # more than anything that this runs on takes: a plug-in that means milliwatts


class Series:
    """One quantity under one name."""

    __slots__ = ("newest", "times_s", "values")

    def __init__(self, first: Reading, capacity: int) -> None:
        self.newest = first
        # Two rings of floats: the times are the same objects in every series of one read.
        self.times_s: deque[float] = deque(maxlen=capacity)
        self.values: deque[float] = deque(maxlen=capacity)

    def add(self, reading: Reading) -> None:
        self.newest = reading
        self.times_s.append(reading.t_s)
        self.values.append(reading.value)

    def since(self, since_s: float) -> list[tuple[float, float]]:
        """Samples at or after `since_s`, oldest first; looks at no older one."""
        found: list[tuple[float, float]] = []
        for t_s, value in zip(reversed(self.times_s), reversed(self.values), strict=True):
            if t_s < since_s:
                break
            found.append((t_s, value))
        found.reverse()
        return found


class Windows:
    """`period_s` is how often a sensor is read unless `periods` has its name."""

    def __init__(
        self, *, window_s: float, period_s: float, periods: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        self._window_s = window_s
        self._period_s = period_s
        self._periods = periods
        self._series: dict[tuple[Quantity, str], Series] = {}
        self._lock = threading.Lock()

    def add(self, sensor: str, readings: Iterable[object], now_s: float) -> tuple[int, list[str]]:
        """How many of this sensor's readings were taken, and why the others were not."""
        taken, problems = 0, []
        with self._lock:
            for reading in readings:
                problem = self._refusal(sensor, reading, now_s)
                if problem:
                    problems.append(problem)
                elif isinstance(reading, Reading):
                    key = (reading.quantity, reading.name)
                    series = self._series.get(key)
                    if series is None or now_s - series.newest.t_s > self._window_s:
                        series = self._series[key] = Series(reading, self._capacity(sensor))
                    series.add(reading)
                    taken += 1
        return taken, problems

    def newest(self, since_s: float) -> list[Reading]:
        """The newest reading of every series that has one at or after `since_s`."""
        with self._lock:
            return [s.newest for s in self._series.values() if s.newest.t_s >= since_s]

    def samples(self, quantity: Quantity, name: str, since_s: float) -> list[tuple[float, float]]:
        with self._lock:
            series = self._series.get((quantity, name))
            return series.since(since_s) if series else []

    def stats(self, quantity: Quantity, since_s: float) -> dict[str, Stats]:
        """By name; names without a reading since then are not in it."""
        with self._lock:
            found = {name: s.since(since_s) for (q, name), s in self._series.items() if q == quantity}
        return {name: summarize([value for _, value in samples]) for name, samples in found.items() if samples}

    def _capacity(self, sensor: str) -> int:
        period_s = self._periods.get(sensor, self._period_s)
        return min(math.ceil(self._window_s / period_s) + 2, CAPACITY)

    def _refusal(self, sensor: str, reading: object, now_s: float) -> str:
        """Why this is no measurement; "" when it is one."""
        if not isinstance(reading, Reading):
            return f"expected a Reading, found {type(reading).__name__}"
        where = f"{reading.quantity} of {reading.name}"
        if not isinstance(reading.quantity, str) or reading.quantity not in QUANTITIES:
            return f"{where}: expected one of {', '.join(QUANTITIES)}"
        if not isinstance(reading.name, str):
            return f"{where}: expected text for a name, found {type(reading.name).__name__}"
        if not is_text(reading.name):
            return f"{reading.quantity} of {reading.name!a}: expected a name that can be written as UTF-8"
        if reading.unit != UNITS[reading.quantity]:
            return f"{where}: expected {UNITS[reading.quantity]}, found {reading.unit!r}"
        if reading.scope not in SCOPES:
            return f"{where}: expected a scope of {', '.join(SCOPES)}, found {reading.scope!r}"
        if reading.sensor != sensor:
            return f"{where}: expected the sensor {sensor!r}, found {reading.sensor!r}"
        for what, number in (("a finite value", reading.value), ("a finite time", reading.t_s)):
            if not is_finite(number):
                return f"{where}: expected {what}, found {shown(number)}"
        if reading.uncertainty is not None and not (is_finite(reading.uncertainty) and reading.uncertainty >= 0):
            return f"{where}: expected a relative uncertainty of at least 0 or None, found {shown(reading.uncertainty)}"
        if reading.quantity == "power" and not 0 <= reading.value <= MOST_W:
            return f"{where}: expected 0 to {MOST_W:g} W, found {reading.value:g} W"
        if reading.t_s > now_s:
            return f"{where}: stamped {reading.t_s - now_s:.3f} s in the future"
        series = self._series.get((reading.quantity, reading.name))
        if series is None:
            if len(self._series) >= MAX_SERIES:
                self._forget(now_s - self._window_s)
            return f"{where}: more than {MAX_SERIES} names are in use" if len(self._series) >= MAX_SERIES else ""
        if series.newest.sensor != reading.sensor and now_s - series.newest.t_s <= self._window_s:
            return f"{where}: the sensor {series.newest.sensor} reads this name already"
        if reading.t_s <= series.newest.t_s and series.newest.t_s <= now_s:
            return f"{where}: expected a later time than the reading before; the name may occur twice"
        return ""

    def _forget(self, before_s: float) -> None:
        for key in [key for key, series in self._series.items() if series.newest.t_s < before_s]:
            del self._series[key]


def is_finite(number: object) -> bool:
    """A finite number that a float can hold."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond 1.8e308
        return False


def is_text(name: str) -> bool:
    """Whether it can be sent: a file's name that is no UTF-8 has halves of surrogate pairs in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    # Python refuses to write integers of more than 4300 digits.
    if isinstance(value, int) and value.bit_length() > 1024:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def summarize(values: Sequence[float]) -> Stats:
    """Of at least one value. Quantiles are exact (nearest rank): the window keeps every sample anyway, and a sketch of
    them would be a second copy (ADR 11)."""
    ordered = sorted(values)

    def quantile(q: float) -> float:
        return ordered[math.ceil(q * len(ordered)) - 1]

    return Stats(
        count=len(values),
        mean=math.fsum(values) / len(values),
        minimum=ordered[0],
        maximum=ordered[-1],
        last=values[-1],
        p50=quantile(0.5),
        p95=quantile(0.95),
        p99=quantile(0.99),
    )


def hottest(stats: Iterable[Stats]) -> Stats | None:
    """Each figure of the series in which it is highest: a limit holds for all zones when it holds for this."""
    found = list(stats)
    if not found:
        return None
    return Stats(
        count=sum(s.count for s in found),
        mean=max(s.mean for s in found),
        minimum=max(s.minimum for s in found),
        maximum=max(s.maximum for s in found),
        last=max(s.last for s in found),
        p50=max(s.p50 for s in found),
        p95=max(s.p95 for s in found),
        p99=max(s.p99 for s in found),
    )
