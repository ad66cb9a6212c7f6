"""The standard ten: traces made from a ladder's rungs and a seed.

NAME, rungs, seed -> standard -> Trace

Period 1 s, 20 minutes, 20 requests a second (Poisson), 25 C, the deadline twice the top rung's 95th percentile of work
at rest; a seed moves phases and lengths by up to 20 %. Where the words of a trace leave something open:

memory-leak     the machine's other work holds 400 MiB; the leak begins again 60 to 90 s after its process died
heat-ramp, summer-day   a machine without a fan, its limit such that the top rung is too hot in the greatest heat, and
                the strongest that stays 8 C below it is not, by 6.5 C
power-cap       100 % is the top rung's busy machine power (idle_w + joules / work_s). Where 60 % of that is less than
                any rung takes, per cent count above idle, and 100 % is what the top rung takes on average and a meter
                may add (2 %)
boundary        contention that puts the deadline between the 95th percentiles of two rungs, close to the upper one's:
                the strongest rung that has such a point is late 1.3 times as often as is allowed, within the noise
accelerator-lost   the top two rungs run on "npu", all others on "cpu"

    from flyball.governor.replay import profiles, standard
    trace = standard.standard("cpu-bursts", "defects", profiles.STAND_INS["defects"], seed=3)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from flyball.errors import ConfigError
from flyball.governor.replay.misses import missed
from flyball.governor.replay.profiles import COOLED, FANLESS, MIB
from flyball.governor.replay.trace import Board, Header, Model, Step, Trace
from flyball.governor.values import Limits

PERIOD_S, MINUTES, RATE_PER_S = 1.0, 20, 20.0
P95 = 1.645  # standard deviations
BASE_BYTES = 400.0 * MIB
LEAK_BYTES_PER_S = 4.0 * MIB
LEAK_UNTIL = 0.9
METER = 0.02
FITS_C = 6.5  # the margin of 5 C that is usual, and what sensors are off by
COOLER_C = 8.0
# The share of a day's 40 requests a second, by hour.
BY_HOUR = (0.05, 0.05, 0.05, 0.05, 0.05, 0.1, 0.2, 0.4, 0.6, 0.7, 0.8, 0.8,
           0.7, 0.7, 0.8, 0.9, 1.0, 1.0, 0.8, 0.6, 0.5, 0.3, 0.2, 0.1)  # fmt: skip
DAY_PER_S = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    """What a trace is made with: `vary(x)` is x within 20 %."""

    rungs: tuple[Model, ...]
    limits: Limits
    rng: np.random.Generator
    periods: int
    period_s: float = PERIOD_S

    def vary(self, value: float) -> float:
        return value * float(self.rng.uniform(0.8, 1.2))

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


Row = dict[str, Any]  # the fields of a Step, before its arrivals are drawn
Change = tuple[Board, Limits, tuple[Model, ...], list[Row]]


def standard(name: str, ladder: str, rungs: tuple[Model, ...], seed: int = 0, minutes: float | None = None) -> Trace:
    """`minutes` cuts the trace short. Raises ConfigError for a name that is not one of NAMES."""
    if name not in _MAKERS:
        raise ConfigError(f"no standard trace is called {name!r}; there are {', '.join(NAMES)}")
    period_s = 10.0 if name == "summer-day" else PERIOD_S
    whole = 24 * 60 if name == "summer-day" else MINUTES
    periods = max(1, round(min(minutes or whole, whole) * 60 / period_s))
    rng = np.random.default_rng([seed, NAMES.index(name)])
    limits = Limits(deadline_s=2.0 * p95_s(rungs[0], 0.0), temperature_c=COOLED.throttle_c, quantile=0.95,
                    memory_available_bytes=64.0 * MIB)  # fmt: skip
    making = _Making(rungs=rungs, limits=limits, rng=rng, periods=periods, period_s=period_s)
    board, limits, rungs, rows = _MAKERS[name](making)
    header = Header(name=name, seed=seed, period_s=period_s, ladder=ladder, rungs=rungs, board=board, limits=limits,
                    about=(_MAKERS[name].__doc__ or "").strip())  # fmt: skip
    rates = [row.setdefault("rate_per_s", RATE_PER_S) for row in rows]
    counts = np.random.default_rng([seed, 100]).poisson([rate * period_s for rate in rates]).tolist()
    usual = {"memory_taken_bytes": BASE_BYTES}
    steps = (
        Step(t_s=i * period_s, arrivals=n, **{**usual, **row})
        for i, (n, row) in enumerate(zip(counts, rows, strict=True))
    )
    return Trace(header=header, steps=tuple(steps))


def p95_s(rung: Model, contention: float) -> float:
    """Of the work (log-normal with mean work_s times factor)."""
    factor, spread = rung.slowed(contention)
    return rung.work_s * factor * math.exp(P95 * spread - 0.5 * spread * spread)


def steady(m: _Making) -> Change:
    """Nothing happens."""
    return _change(m, [{} for _ in range(m.periods)])


def cpu_bursts(m: _Making) -> Change:
    """3 foreign tasks per processor for 30 to 60 s every 90 to 150 s."""
    rows: list[Row] = [{} for _ in range(m.periods)]
    for begin, end in _bursts(m, (90, 150), (30, 60)):
        for row in rows[begin:end]:
            row["contention"] = 3.0
    return _change(m, rows)


def memory_leak(m: _Making) -> Change:
    """Another process takes 4 MiB/s until 90 % of 2 GiB are taken, then dies; again a while later."""
    rows: list[Row] = []
    board = COOLED
    top, least = m.rungs[0], min(m.rungs, key=lambda r: r.rss_bytes)
    room = (1.0 - LEAK_UNTIL) * board.memory_bytes
    # So that at the peak the largest rung is too large and the smallest is not.
    reserve = max(room - 0.5 * (top.rss_bytes + least.rss_bytes), 16.0 * MIB)
    taken, pause_s = BASE_BYTES, m.between(0, 90)
    speed = m.vary(LEAK_BYTES_PER_S)
    while len(rows) < m.periods:
        if pause_s > 0:
            pause_s -= m.period_s
        else:
            taken += speed * m.period_s
            if taken > LEAK_UNTIL * board.memory_bytes:
                taken, pause_s = BASE_BYTES, m.between(60, 90)
        rows.append({"memory_taken_bytes": taken})
    return board, msgspec.structs.replace(m.limits, memory_available_bytes=reserve), m.rungs, rows


def heat_ramp(m: _Making) -> Change:
    """Ambient from 25 to 55 C in 10 minutes, 5 there, and back."""
    begin_s, up_s, stay_s = m.between(0, 30), m.vary(600.0), m.vary(300.0)
    rows: list[Row] = []
    for i in range(m.periods):
        t_s = i * m.period_s - begin_s
        share = t_s / up_s if t_s < up_s else 1.0 if t_s < up_s + stay_s else 1.0 - (t_s - up_s - stay_s) / (0.5 * up_s)
        rows.append({"ambient_c": round(25.0 + 30.0 * min(max(share, 0.0), 1.0), 2)})
    return _hot(m, 55.0, RATE_PER_S, rows)


def summer_day(m: _Making) -> Change:
    """24 hours: ambient 22 to 48 C, requests by the hour."""
    shift_h, most_per_s = m.between(-1, 1), m.vary(DAY_PER_S)
    rows: list[Row] = []
    for i in range(m.periods):
        hour = i * m.period_s / 3600.0
        ambient_c = 35.0 - 13.0 * math.cos((hour - 4.0 - shift_h) / 24.0 * 2.0 * math.pi)
        rows.append({"ambient_c": round(ambient_c, 2), "rate_per_s": round(most_per_s * BY_HOUR[int(hour)], 3)})
    return _hot(m, 48.0, most_per_s, rows)


def power_cap(m: _Making) -> Change:
    """The cap falls from 100 % of the top rung's power to 60 % and rises to 80 %, 5 minutes each."""
    board, top = COOLED, m.rungs[0]
    means = [board.idle_w + RATE_PER_S * rung.joules for rung in m.rungs]
    zero_w, full_w = 0.0, board.idle_w + top.joules / top.work_s
    if 0.6 * full_w < min(means):
        zero_w, full_w = board.idle_w, means[0] * (1.0 + METER)
    lengths = [m.vary(300.0) for _ in range(3)]
    rows: list[Row] = []
    for i in range(m.periods):
        t_s = i * m.period_s
        phase = next((k for k in range(3) if t_s < sum(lengths[: k + 1])), 3)
        share = (1.0, 0.6, 0.8, 1.0)[phase]
        rows.append({"power_cap_w": round(zero_w + share * (full_w - zero_w), 4)})
    return _change(m, rows)


def arrival_bursts(m: _Making) -> Change:
    """5 requests a second, with 60 for 20 s every 60 to 120 s."""
    rows: list[Row] = [{"rate_per_s": 5.0} for _ in range(m.periods)]
    for begin, end in _bursts(m, (60, 120), (20, 20)):
        for row in rows[begin:end]:
            row["rate_per_s"] = 60.0
    return _change(m, rows)


def sensor_drop_out(m: _Making) -> Change:
    """As cpu-bursts; temperature and power cannot be read for 60 to 180 s, three times."""
    board, limits, rungs, rows = cpu_bursts(m)
    third = m.periods // 3
    for k in range(3):
        begin = k * third + int(m.between(0.1, 0.5) * third)
        for row in rows[begin : begin + round(m.between(60, 180) / m.period_s)]:
            row["unreadable"] = ("temperature", "power")
    return board, limits, rungs, rows


def boundary(m: _Making) -> Change:
    """Constant contention that puts the deadline at the 95th percentile, between two rungs, with 3 % noise."""
    level = _boundary_contention(m.rungs, m.limits)
    noise = m.rng.normal(1.0, 0.03, m.periods).tolist()
    return _change(m, [{"contention": round(max(0.0, level * factor), 4)} for factor in noise])


def accelerator_lost(m: _Making) -> Change:
    """The accelerator of the top two rungs vanishes for 120 s, twice; loading then takes three times as long."""
    rungs = tuple(msgspec.structs.replace(r, accelerator="npu" if i < 2 else "cpu") for i, r in enumerate(m.rungs))
    rows: list[Row] = [{} for _ in range(m.periods)]
    for k in range(2):
        begin = round((m.vary(240.0) + k * 540.0) / m.period_s)
        for row in rows[begin : begin + round(m.vary(120.0) / m.period_s)]:
            row["lost"] = ("npu",)
    board, limits, _, _ = _change(m, rows)
    return board, limits, rungs, rows


def _change(m: _Making, rows: list[Row]) -> Change:
    return COOLED, m.limits, m.rungs, rows


def _hot(m: _Making, ambient_c: float, rate_per_s: float, rows: list[Row]) -> Change:
    """The limit is FITS_C above what that rung settles at, in the greatest heat, which is the strongest of those that
    stay COOLER_C below the top one."""
    settled = [ambient_c + FANLESS.idle_rise_c + FANLESS.r_kw * min(rate_per_s, 1.0 / rung.work_s) * rung.joules
               for rung in m.rungs]  # fmt: skip
    fitting_c = next((temp_c for temp_c in settled if temp_c <= settled[0] - COOLER_C), min(settled))
    limit_c = round(fitting_c + FITS_C, 1)
    board = msgspec.structs.replace(FANLESS, throttle_c=limit_c)
    return board, msgspec.structs.replace(m.limits, temperature_c=limit_c), m.rungs, rows


def _bursts(m: _Making, every_s: tuple[float, float], length_s: tuple[float, float]) -> list[tuple[int, int]]:
    """First period and the one after the last, of each."""
    found, at_s = [], m.between(0.3, 1.0) * every_s[0]
    while at_s < m.periods * m.period_s:
        end_s = at_s + m.vary(m.between(*length_s))
        found.append((round(at_s / m.period_s), round(end_s / m.period_s)))
        at_s = max(at_s + m.vary(m.between(*every_s)), end_s + m.period_s)
    return found


BEYOND = 1.3  # times the late answers that are allowed: at 1.0 it would be chance which rung holds the limit


def _boundary_contention(rungs: tuple[Model, ...], limits: Limits) -> float:
    """By bisection, of the strongest rung that holds the deadline at rest and not beside 8 tasks per processor."""
    deadline_s, most = limits.deadline_s or math.inf, BEYOND * (1.0 - limits.quantile)
    for rung in rungs:
        low, high = 0.0, 8.0
        if missed(rung, low, RATE_PER_S, deadline_s) > most or missed(rung, high, RATE_PER_S, deadline_s) < most:
            continue
        for _ in range(12):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if missed(rung, middle, RATE_PER_S, deadline_s) < most else (low, middle)
        return high
    return 4.0  # no rung has its boundary there


_MAKERS: Mapping[str, Callable[[_Making], Change]] = {
    "steady": steady,
    "cpu-bursts": cpu_bursts,
    "memory-leak": memory_leak,
    "heat-ramp": heat_ramp,
    "summer-day": summer_day,
    "power-cap": power_cap,
    "arrival-bursts": arrival_bursts,
    "sensor-drop-out": sensor_drop_out,
    "boundary": boundary,
    "accelerator-lost": accelerator_lost,
}
NAMES = tuple(_MAKERS)
