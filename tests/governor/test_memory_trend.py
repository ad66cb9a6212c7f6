"""A leak is told from what only looks like one."""

import math
import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.governor.memory import Forecast, Point, Trend, exhaustion, observe

MIB = 1 << 20
RESERVE = 64.0 * MIB


def after(
    available_mib: Callable[[float], float],
    minutes: float,
    every_s: float = 5.0,
    noise_mib: float = 2.0,
    seed: int = 1,
    psi: float | None = None,
) -> Trend:
    chance = random.Random(seed)
    trend: Trend | None = None
    for i in range(int(minutes * 60 / every_s)):
        t_s = i * every_s
        trend = observe(trend, t_s, (available_mib(t_s) + chance.gauss(0, noise_mib)) * MIB, psi)
    assert trend is not None
    return trend


def ever(available_mib: Callable[[float], float], minutes: int) -> list[Forecast]:
    """Every forecast within an hour that was made on the way."""
    chance = random.Random(1)
    trend: Trend | None = None
    made = []
    for second in range(0, minutes * 60, 5):
        trend = observe(trend, second, (available_mib(second) + chance.gauss(0, 2)) * MIB)
        if trend is not None and second % 60 == 0:
            forecast = exhaustion(trend, RESERVE)
            if forecast is not None and forecast.in_s < 1320.0:
                made.append(forecast)
    return made


def saw(t_s: float, period_s: float, height_mib: float) -> float:
    return -height_mib * (t_s % period_s) / period_s


@pytest.mark.parametrize("every_s", [1.0, 10.0])
@pytest.mark.parametrize("rate_mib_s", [0.15, 0.3])
def test_a_steady_leak_is_forecast_to_the_minute(rate_mib_s: float, every_s: float) -> None:
    trend = after(lambda t: 1000 - rate_mib_s * t, 40, every_s)
    forecast = exhaustion(trend, RESERVE)
    assert forecast is not None
    really_s = (1000 - rate_mib_s * 2400 - 64) / rate_mib_s
    assert forecast.in_s == pytest.approx(really_s, rel=0.1)
    assert forecast.earliest_s <= forecast.in_s <= forecast.latest_s
    assert forecast.bytes_per_s == pytest.approx(rate_mib_s * MIB, rel=0.1)
    assert forecast.confidence > 0.9


def test_a_leak_that_begins_later_is_found_within_minutes() -> None:
    trend = after(lambda t: 1000 - max(t - 3600, 0) * 0.4, 60 + 15)
    forecast = exhaustion(trend, RESERVE)
    assert forecast is not None
    assert forecast.in_s == pytest.approx((1000 - 64 - 0.4 * 900) / 0.4, rel=0.2)


def test_a_fast_leak_is_found_after_four_minutes() -> None:
    trend = after(lambda t: 1800 - max(t - 1800, 0) * 4.0, 30 + 4.6, every_s=1.0)
    forecast = exhaustion(trend, RESERVE)
    assert forecast is not None
    assert forecast.in_s == pytest.approx((1800 - 64 - 4.0 * 276) / 4.0, rel=0.15)


def test_what_would_come_much_later_is_looked_at_for_longer_first() -> None:
    assert exhaustion(after(lambda t: 4000 - max(t - 3600, 0) * 0.2, 60 + 20), RESERVE) is None
    forecast = exhaustion(after(lambda t: 4000 - max(t - 3600, 0) * 0.2, 60 + 150), RESERVE)
    assert forecast is not None
    assert forecast.over_s >= 3840.0


@pytest.mark.parametrize("period_s", [40.0, 300.0])
def test_a_leak_below_a_sawtooth_is_found(period_s: float) -> None:
    trend = after(lambda t: 1000 - max(t - 1800, 0) * 0.2 + saw(t, period_s, 100), 30 + 60)
    forecast = exhaustion(trend, RESERVE)
    assert forecast is not None
    really_s = (1000 - 64 - 100 - 0.2 * 3600) / 0.2
    assert forecast.in_s == pytest.approx(really_s, rel=0.35, abs=120)


@pytest.mark.parametrize("period_s", [30.0, 200.0, 480.0, 700.0])
@pytest.mark.parametrize("height_mib", [100.0, 600.0])
def test_a_sawtooth_is_no_leak(period_s: float, height_mib: float) -> None:
    assert ever(lambda t: 800 + saw(t, period_s, height_mib), 150) == []


def test_a_step_is_no_leak() -> None:
    assert ever(lambda t: 800 - (400 if t > 3000 else 0) - (150 if t > 5000 else 0), 120) == []


def test_growth_that_levels_off_is_no_leak() -> None:
    assert ever(lambda t: 900 - 400 * (1 - math.exp(-t / 600)), 120) == []


def test_a_slow_wave_is_no_leak() -> None:
    assert ever(lambda t: 600 + 300 * math.cos(2 * math.pi * t / 6 / 3600), 360) == []


def test_a_leak_that_stops_is_let_go() -> None:
    def available(t_s: float) -> float:
        return 1000 - 0.2 * min(t_s, 3000)

    assert exhaustion(after(available, 49), RESERVE) is not None
    assert exhaustion(after(available, 80), RESERVE) is None


def test_pressure_makes_surer_and_none_is_not_zero() -> None:
    def falling(t_s: float) -> float:
        return 1000 - 0.2 * t_s + saw(t_s, 170, 60)

    plain, pressed = after(falling, 40), after(falling, 40, psi=0.2)
    assert plain.psi is None
    assert pressed.psi == pytest.approx(0.2)
    one, other = exhaustion(plain, RESERVE), exhaustion(pressed, RESERVE)
    assert one is not None
    assert other is not None
    assert one.confidence < other.confidence <= 1.0


def test_below_the_reserve_and_falling_is_now() -> None:
    forecast = exhaustion(after(lambda t: 500 - 0.2 * t, 40, noise_mib=0.5), 100.0 * MIB)
    assert forecast is not None
    assert forecast.in_s == 0.0


def test_little_is_kept_of_a_long_time() -> None:
    trend = after(lambda t: 800.0, 24 * 60, every_s=10.0)
    assert 40 <= len(trend.points) <= 64
    assert trend.t_s - trend.points[0].t_s > 2.5 * 3600
    assert all(a.t_s + a.span_s == b.t_s for a, b in zip(trend.points, trend.points[1:], strict=False))
    assert min(p.low for p in trend.points) < 800 * MIB < max(p.high for p in trend.points)


def test_what_was_lowest_is_kept_when_points_are_joined() -> None:
    trend = after(lambda t: 300.0 if 600 <= t < 605 else 800.0, 120, noise_mib=0.0)
    assert min(p.low for p in trend.points) == 300 * MIB
    assert max(p.high for p in trend.points) == 800 * MIB


def test_a_gap_is_not_bridged() -> None:
    trend: Trend | None = after(lambda t: 1000.0, 30)
    for i in range(24):  # two minutes of something lower, an hour later
        trend = observe(trend, 5400.0 + i * 5.0, 300.0 * MIB)
    assert trend is not None
    assert exhaustion(trend, RESERVE) is None


@pytest.mark.parametrize("odd", [math.nan, math.inf, -1.0])
def test_what_is_no_size_changes_nothing(odd: float) -> None:
    assert observe(None, 0.0, odd) is None
    trend = observe(None, 0.0, 5.0)
    assert observe(trend, 1.0, odd) is trend
    assert observe(trend, odd, 4.0) is trend
    assert observe(trend, 0.0, 4.0) is trend
    assert observe(trend, 1.0, 4.0, odd) == observe(trend, 1.0, 4.0, None)
    assert exhaustion(after(lambda t: 1000 - 0.3 * t, 30), odd if odd != -1.0 else math.nan) is None


def test_a_trend_is_written_down_and_read_back_to_the_same_numbers() -> None:
    trend = after(lambda t: 1000 - 0.3 * t, 40)
    again = msgspec.json.decode(msgspec.json.encode(trend), type=Trend)
    assert again == trend
    assert exhaustion(again, RESERVE) == exhaustion(trend, RESERVE)
    assert isinstance(again.points[0], Point)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 400), st.one_of(st.floats(0, 1e10), st.floats(allow_nan=True))), max_size=150),
    st.floats(0, 1e9),
)
def test_whatever_comes_in_a_forecast_is_in_order(given_samples: list[tuple[float, float]], reserve: float) -> None:
    trend: Trend | None = None
    t_s = 0.0
    for dt_s, available in given_samples:
        t_s += dt_s
        trend = observe(trend, t_s, available, None)
    if trend is None:
        return
    assert len(trend.points) <= 64
    forecast = exhaustion(trend, reserve)
    if forecast is not None:
        assert 0.0 <= forecast.earliest_s <= forecast.in_s <= forecast.latest_s < math.inf
        assert 0.0 <= forecast.confidence <= 1.0


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0, 3), st.integers(0, 1000))
def test_any_steady_leak_is_found_before_it_is_half_way(rate_mib_s: float, noise_mib: float, seed: int) -> None:
    room_mib = 2.0 * rate_mib_s * 2700 + 64
    trend = after(lambda t: room_mib - rate_mib_s * t, 40, noise_mib=noise_mib, seed=seed)
    forecast = exhaustion(trend, RESERVE)
    assert forecast is not None
    assert forecast.in_s == pytest.approx(3000, rel=0.25)
