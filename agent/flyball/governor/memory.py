"""Where available memory is heading: a steady leak told from cycles, steps and what levels off.

available bytes -> observe -> Trend (<= 64 points) -> exhaustion -> Forecast | None

Kept are the lowest and the highest value of spans of time, finer ones for what is recent. Over a leak both envelopes
fall, steadily; below cycles of allocating and freeing the upper one stays; a step falls once; what levels off slows
down; and a fall to where memory has been before, and come back from, is nothing new. Plain floats and no clock: a
recorded log gives the same numbers again. Never reads a sensor, never frees anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, inf, isfinite, log, sqrt
from typing import NamedTuple

import msgspec

SPANS_S = (30.0, 60.0, 120.0, 240.0, 480.0)
PER_SPAN = 12  # points of each span: 6 minutes at 30 s, three hours in all
WINDOWS = 8  # per time scale
SCALES_S = (240.0, 480.0, 960.0, 1920.0, 3840.0, 7680.0)
FALLING = 24  # of the 28 pairs of windows, on both envelopes: by chance once in 140 times on each (Kendall)
KEPT_UP = 0.4  # of the first half's fall the second half must still show; a step or what levels off does not
SPED_UP = 2.5  # a fall that only began within the scale is for a shorter one
LEVELLING = 0.15  # noise granted before a slower second half counts as levelling off
BEFORE = 4  # times the scale: so far back is looked for cycles
GIVEN_BACK = 1.2  # a fall counts when it exceeds by this the largest rise in that time: cycles give back what they took
YOUNG_S = 960.0  # before that everything is starting up
EVEN = (0.6, 1.6)  # second half's fall over the first's, of a fall that fills its scale
LARGEST_SD = 0.15  # of the slope, as a share: a staircase of steps is less even than that
STOPPED = 0.5  # of the rate: what the newest part of the scale must show, as far as it can be told
ROUGH = 3.5  # measured: by how much less sure a slope is than the scatter of its pairs lets it seem
KNOWN = 0.15  # of the range that memory is known to move in: how far beyond it a fall is something new
SMALLEST_SHARE = 0.02  # of what is left above the reserve: less of a fall over a whole scale says nothing
FORESIGHT = 3.0  # times the scale on which it fell: what would come later than that is looked at for longer first
PRESSED = 0.05  # PSI memory "some": from here on it speaks for the forecast
PSI_SHARE = 0.1  # of a new value in the running mean


class Point(msgspec.Struct, frozen=True, gc=False):
    """The lowest and the highest that was available in `span_s` from `t_s` on."""

    t_s: float
    span_s: float
    low: float
    high: float


class Fall(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """On one time scale: bytes per second (positive), its relative standard deviation, the second half's fall as a
    share of the first's, and where the lower envelope was at its end, with its standard deviation."""

    scale_s: float
    rate: float
    relative_sd: float
    kept_up: float
    base: float
    base_sd: float


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """`points` are the closed spans, oldest first; `open_s`, `low` and `high` are the one that is being filled. `psi`
    is the smoothed share of time in which some task waited for memory, None where the kernel does not tell. `falls`,
    shortest scale first, are those that held up when the last span was closed, at `open_s`."""

    t_s: float
    began_s: float
    open_s: float
    low: float
    high: float
    points: tuple[Point, ...] = ()
    falls: tuple[Fall, ...] = ()
    psi: float | None = None


class Forecast(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The reserve is reached in `in_s` seconds, between `earliest_s` and `latest_s` with 80 %. `confidence`, 0 to 1, is
    that it happens within twice `in_s` if nothing changes. `bytes_per_s` is what is lost (positive)."""

    in_s: float
    earliest_s: float
    latest_s: float
    confidence: float
    bytes_per_s: float
    over_s: float


class _Window(NamedTuple):
    low: float
    high: float


class _Slope(NamedTuple):
    """Bytes per second, positive where memory falls, its standard deviation, and how many of the 28 pairs of windows
    fell, on the envelope where fewer did."""

    rate: float
    deviation: float
    falling: int


def observe(trend: Trend | None, t_s: float, available_bytes: float, psi: float | None = None) -> Trend | None:
    """The trend after one sample; `t_s` is monotonic, `psi` a ratio. A sample that is not finite, negative or not newer
    than the last leaves it as it is (None while there is none)."""
    if not (isfinite(t_s) and 0.0 <= available_bytes < inf):
        return trend
    if psi is not None and not 0.0 <= psi <= 1.0:
        psi = None
    if trend is None:
        return Trend(t_s=t_s, began_s=t_s, open_s=t_s, low=available_bytes, high=available_bytes, psi=psi)
    if t_s <= trend.t_s:
        return trend
    if psi is not None and trend.psi is not None:
        psi = trend.psi + PSI_SHARE * (psi - trend.psi)
    low, high, open_s, points, falls = trend.low, trend.high, trend.open_s, trend.points, trend.falls
    if t_s - open_s >= SPANS_S[0]:
        points = _compacted((*points, Point(open_s, SPANS_S[0], low, high)))
        # On the grid, so that spans stay in step with each other whatever the interval of the samples.
        open_s += SPANS_S[0] * ((t_s - open_s) // SPANS_S[0])
        low = high = available_bytes
        falls = _falls(points, trend.began_s, open_s)
    elif available_bytes < low:
        low = available_bytes
    elif available_bytes > high:
        high = available_bytes
    return Trend(t_s=t_s, began_s=trend.began_s, open_s=open_s, low=low, high=high, points=points, falls=falls, psi=psi)


def exhaustion(trend: Trend, reserve_bytes: float) -> Forecast | None:
    """When what is available will have fallen to `reserve_bytes`; None = no downward trend that holds up."""
    if not isfinite(reserve_bytes):
        return None
    left = trend.low - reserve_bytes
    best: Fall | None = None
    for fall in trend.falls:
        # Where both hold the longer scale tells more: over the shorter one, a cycle adds its own slope to the leak's.
        enough = fall.rate * fall.scale_s >= SMALLEST_SHARE * left
        if enough and (best is None or EVEN[0] <= fall.kept_up <= EVEN[1]):
            best = fall
    if best is None:
        return None
    base = best.base - best.rate * (trend.t_s - trend.open_s)
    left = max(min(base, trend.high) - reserve_bytes, 0.0)
    in_s = _reached_s(left, best)
    if in_s is None or in_s > FORESIGHT * best.scale_s:
        return None
    sd_s = sqrt((best.relative_sd * in_s) ** 2 + (best.base_sd / best.rate) ** 2)
    confidence = 0.5 * erfc(-0.5 / max(best.relative_sd, 1e-3) / sqrt(2.0))
    if trend.psi is not None and trend.psi >= PRESSED:
        confidence += 0.5 * (1.0 - confidence)
    return Forecast(
        in_s=in_s,
        earliest_s=in_s * in_s / (in_s + 1.28 * sd_s) if in_s > 0.0 else 0.0,
        latest_s=in_s + 1.28 * sd_s,
        confidence=confidence,
        bytes_per_s=best.rate,
        over_s=best.scale_s,
    )


def _falls(points: tuple[Point, ...], began_s: float, now_s: float) -> tuple[Fall, ...]:
    scales_s = [scale_s for scale_s in SCALES_S if now_s - began_s >= max(scale_s, YOUNG_S)]
    return tuple(fall for scale_s in scales_s if (fall := _fall(points, now_s, scale_s)) is not None)


def _fall(points: tuple[Point, ...], now_s: float, scale_s: float) -> Fall | None:
    """None when memory has not been falling steadily over that scale, or has only gone where it had been before."""
    seen = [w for w in _windows(points, now_s, scale_s, WINDOWS) if w is not None]
    if len(seen) < WINDOWS or seen[-1].high >= seen[0].high:
        return None
    since_s = now_s - scale_s
    known = [p for p in points if p.t_s + p.span_s / 2.0 < since_s]
    if known:
        low, high = min(p.low for p in known), max(p.high for p in known)
        if seen[-1].low > low - KNOWN * (high - low):
            return None
    slope = _slope(seen, scale_s)
    middle = [w.low + w.high for w in seen]
    first = middle[0] + middle[1] - middle[2] - middle[3]
    second = middle[4] + middle[5] - middle[6] - middle[7]
    if slope.falling < FALLING or first <= 0.0 or not KEPT_UP <= second / first <= SPED_UP:
        return None
    if slope.deviation > LARGEST_SD * slope.rate:
        return None
    longer = [w.high for w in _windows(points, now_s, BEFORE * scale_s, BEFORE * WINDOWS) if w is not None]
    if seen[0].high - seen[-1].high < GIVEN_BACK * _recovery(longer) or _stopped(points, now_s, scale_s, slope.rate):
        return None
    width_s = scale_s / WINDOWS
    offsets = sorted(w.low - slope.rate * width_s * (WINDOWS - 1 - i) for i, w in enumerate(seen))
    return Fall(
        scale_s=scale_s,
        rate=slope.rate,
        relative_sd=ROUGH * slope.deviation / slope.rate,
        kept_up=second / first,
        base=_median(offsets),
        base_sd=(offsets[-2] - offsets[1]) / 2.0,
    )


def _stopped(points: tuple[Point, ...], now_s: float, scale_s: float, rate: float) -> bool:
    """Whether the last eighth, quarter or half of the scale, looked at closely, clearly falls more slowly."""
    for part_s in (scale_s / 8.0, scale_s / 4.0, scale_s / 2.0):
        seen = [w for w in _windows(points, now_s, part_s, WINDOWS) if w is not None]
        if part_s >= SCALES_S[0] / 2.0 and len(seen) == WINDOWS:
            slope = _slope(seen, part_s)
            if slope.rate + 1.28 * slope.deviation < STOPPED * rate:
                return True
    return False


def _windows(points: tuple[Point, ...], now_s: float, scale_s: float, count: int) -> list[_Window | None]:
    """The scale in `count` parts, oldest first; None where nothing was observed."""
    width_s = scale_s / count
    since_s = now_s - scale_s
    lows = [inf] * count
    highs = [-inf] * count
    for p in points:
        middle_s = p.t_s + p.span_s / 2.0
        if middle_s >= since_s:
            place = min(int((middle_s - since_s) / width_s), count - 1)
            if p.low < lows[place]:
                lows[place] = p.low
            if p.high > highs[place]:
                highs[place] = p.high
    return [_Window(low, high) if low < inf else None for low, high in zip(lows, highs, strict=True)]


def _slope(windows: Sequence[_Window], scale_s: float) -> _Slope:
    """Theil and Sen's, over both envelopes at once."""
    width_s = scale_s / WINDOWS
    lows, highs = _pairs([w.low for w in windows], width_s), _pairs([w.high for w in windows], width_s)
    rates = sorted(lows + highs)
    # The pairs share their windows: of 56 slopes some ten are independent.
    deviation = (rates[46] - rates[9]) / 2.0 / sqrt(10.0)
    return _Slope(_median(rates), deviation, min(sum(r > 0.0 for r in lows), sum(r > 0.0 for r in highs)))


def _reached_s(left: float, fall: Fall) -> float | None:
    """Straight on, or, when the second half was slower, on a curve that slows down as much again and again."""
    kept_up = fall.kept_up + LEVELLING
    if left <= 0.0:
        return 0.0
    if kept_up >= 1.0:
        return left / fall.rate
    half_s = fall.scale_s / 2.0
    coming = fall.rate * half_s * kept_up  # in the next half
    share = left * (1.0 - kept_up) / coming
    if share >= 1.0:
        return None
    return half_s * log(1.0 - share) / log(kept_up)


def _recovery(values: Sequence[float]) -> float:
    """The largest rise from any value to a later one."""
    lowest, rise = values[0], 0.0
    for value in values:
        lowest = min(lowest, value)
        rise = max(rise, value - lowest)
    return rise


def _pairs(values: Sequence[float], width_s: float) -> list[float]:
    """Theil and Sen's slopes of all pairs, positive where it falls."""
    count = len(values)
    return [(values[i] - values[j]) / ((j - i) * width_s) for i in range(count) for j in range(i + 1, count)]


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0


def _compacted(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """At most PER_SPAN of each span: the two oldest of one become one of the next, and the oldest of all goes."""
    for span_s, longer_s in zip(SPANS_S, (*SPANS_S[1:], None), strict=True):
        same = [i for i, p in enumerate(points) if p.span_s == span_s]
        if len(same) <= PER_SPAN:
            break
        i = same[0]
        if longer_s is None:
            points = points[i + 1 :]
            continue
        a, b = points[i], points[i + 1]
        points = (*points[:i], Point(a.t_s, longer_s, min(a.low, b.low), max(a.high, b.high)), *points[i + 2 :])
    return points
