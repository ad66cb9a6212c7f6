"""A warning is told once when it begins and once when it is over."""

import itertools
import math
import random
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.governor import memory, thermal, values
from flyball.governor.warnings import EarlyWarning, Expected, Horizons, Limits, State, event, limits_for, warn

MIB = 1 << 20
LIMITS = Limits(zones_c={"cpu": 80.0}, reserve_bytes=64.0 * MIB)


def told_of_memory(
    available_mib: Callable[[float], float],
    minutes: float,
    horizons: Horizons = Horizons(),  # noqa: B008
) -> Iterator[tuple[float, EarlyWarning]]:
    chance = random.Random(1)
    state, trend = State(), None
    for second in range(0, int(minutes * 60), 5):
        trend = memory.observe(trend, second, (available_mib(second) + chance.gauss(0, 2)) * MIB)
        state, told = warn(state, second, {}, trend, LIMITS, horizons)
        yield from ((second / 60, warning) for warning in told)


def heated(power_w: Callable[[float], float], seconds: int) -> Iterator[tuple[float, EarlyWarning]]:
    """A zone at 25 C that gains 4 K/W with two minutes."""
    chance = random.Random(1)
    state, zone, body_c = State(), None, 45.0
    for second in range(seconds):
        body_c += (25.0 + 4.0 * power_w(second) - body_c) * -math.expm1(-1 / 120)
        zone = thermal.observe(zone, second, body_c + chance.gauss(0, 0.1), power_w(second) + chance.gauss(0, 0.1))
        if zone is not None:
            state, told = warn(state, second, {"cpu": zone}, None, LIMITS)
            yield from ((float(second), warning) for warning in told)


def test_a_leak_is_told_once_a_quarter_of_an_hour_ahead() -> None:
    ((minute, warning),) = told_of_memory(lambda t: 1000 - max(t - 1800, 0) * 0.2, 30 + 75)
    left_min = 30 + (1000 - 64) / 0.2 / 60 - minute
    assert warning.expected.kind == "memory_exhaustion_expected"
    assert not warning.ended
    assert 15 <= left_min <= 25
    assert warning.expected.in_s is not None
    assert warning.expected.in_s / 60 == pytest.approx(left_min, rel=0.2)


def test_a_leak_that_stops_is_told_to_be_over() -> None:
    stops_s = 1800 + 0.8 * 936 / 0.2
    (begun, (minute, ended)) = told_of_memory(lambda t: 1000 - min(max(t - 1800, 0), stops_s - 1800) * 0.2, 180)
    assert not begun[1].ended
    assert ended.ended
    assert 0 < minute - stops_s / 60 < 40


def test_without_a_leak_nothing_is_told() -> None:
    assert list(told_of_memory(lambda t: 500 - 300 * (t % 400) / 400, 150)) == []


def test_without_a_reserve_or_a_limit_nothing_is_expected() -> None:
    trend = None
    for second in range(0, 4000, 5):
        trend = memory.observe(trend, second, (1000 - second * 0.2) * MIB)
    zone = thermal.observe(None, 4000.0, 95.0, 5.0)
    assert zone is not None
    sure = Horizons(memory_hold_s=0.0, heat_hold_s=0.0)
    assert warn(State(), 4000.0, {"cpu": zone}, trend, Limits(), sure)[1] == ()
    kinds = {w.expected.kind for w in warn(State(), 4000.0, {"cpu": zone}, trend, LIMITS, sure)[1]}
    assert kinds == {"memory_exhaustion_expected", "throttling_expected"}


def test_a_zone_is_measured_by_the_lowest_of_what_concerns_it() -> None:
    zones, trips_c = ("thermal/cpu", "thermal/gpu"), {"thermal/cpu": 75.0}
    lenient, strict = values.Limits(temperature_c=90.0), values.Limits(temperature_c=85.0, memory_available_bytes=64e6)
    found = limits_for([lenient, strict], zones, trips_c)
    assert found == Limits(zones_c={"thermal/cpu": 75.0, "thermal/gpu": 85.0}, reserve_bytes=64e6)
    assert limits_for([values.Limits()], zones, trips_c) == Limits(zones_c={"thermal/cpu": 75.0})


def test_heat_is_told_before_the_limit_is_reached_and_when_it_is_over() -> None:
    def power_w(second: float) -> float:
        return 16.0 if 1500 <= second < 1800 else (5.0, 8.0)[int(second / 90) % 2]

    (begun_s, begun), (ended_s, ended) = heated(power_w, 3000)
    assert 1500 < begun_s < 1500 + 120 * math.log((89 - 55) / (89 - 80))  # when it is really at 80 C
    assert begun.expected.name == "cpu"
    assert begun.expected.confidence > 0.7
    assert ended.ended
    assert 1800 + 120 <= ended_s < 2300


def test_heat_that_settles_below_the_limit_is_not_told() -> None:
    assert list(heated(lambda t: (5.0, 8.0, 12.0)[int(t / 120) % 3], 2400)) == []


def expecting(in_s: float | None, confidence: float = 0.95) -> tuple[thermal.Zone, Limits]:
    """A zone that is expected at its limit so soon."""
    zone = thermal.observe(None, 0.0, 40.0, 5.0)
    assert zone is not None
    filters = tuple(
        msgspec.structs.replace(f, tau_s=600.0, ambient_c=80.0, r_kw=0.0, rr=0.0, er=0.0, te=0.0, tt=1e-6, ee=1e-6)
        for f in zone.filters
    )
    zone = msgspec.structs.replace(zone, filters=filters, stretch=0.1)
    limit_c = 200.0 if in_s is None else 80.0 - 40.0 * math.exp(-in_s / 600.0)
    return zone, Limits(zones_c={"cpu": limit_c})


def feed(steps: list[tuple[float, float | None]]) -> list[tuple[float, bool]]:
    """(time, seconds expected) -> (time, ended) of what was told."""
    state, out = State(), []
    for now_s, in_s in steps:
        zone, limits = expecting(in_s)
        zone = msgspec.structs.replace(zone, t_s=now_s)
        state, told = warn(state, now_s, {"cpu": zone}, None, limits)
        out += [(now_s, w.ended) for w in told]
    return out


def every(begin_s: float, end_s: float, in_s: float | None) -> list[tuple[float, float | None]]:
    return [(float(t), in_s) for t in range(int(begin_s), int(end_s), 5)]


def test_it_must_hold_for_a_while() -> None:
    assert feed(every(0, 15, 300) + every(15, 30, None) + every(30, 45, 300)) == []
    assert feed(every(0, 60, 300)) == [(20.0, False)]


def test_between_one_and_two_horizons_it_goes_on_but_does_not_begin() -> None:
    assert feed(every(0, 300, 900)) == []
    assert feed(every(0, 60, 300) + every(60, 600, 900)) == [(20.0, False)]
    assert feed(every(0, 60, 300) + every(60, 600, 1500)) == [(20.0, False), (175.0, True)]


def test_a_flutter_is_told_once() -> None:
    steps = [(t, in_s if int(t / 60) % 2 == 0 or t < 60 else None) for t, in_s in every(0, 1200, 300)]
    assert feed(steps) == [(20.0, False)]


def test_silence_neither_begins_nor_ends() -> None:
    zone, limits = expecting(300.0)
    state, told = State(), []
    for now_s in range(0, 60, 5):
        state, new = warn(state, now_s, {"cpu": msgspec.structs.replace(zone, t_s=float(now_s))}, None, limits)
        told += new
    assert len(told) == 1
    for now_s in range(60, 3600, 5):  # the sensor is gone: its zone is as it was
        state, new = warn(state, now_s, {"cpu": msgspec.structs.replace(zone, t_s=55.0)}, None, limits)
        assert new == ()
        state, new = warn(state, now_s, {}, None, limits)
        assert new == ()
    calm, _ = expecting(None)
    _, new = warn(state, 3600.0, {"cpu": msgspec.structs.replace(calm, t_s=3600.0)}, None, Limits(zones_c={"cpu": 200}))
    assert [w.ended for w in new] == [True]


def test_what_was_pending_before_a_silence_starts_anew() -> None:
    assert feed([*every(0, 15, 300), *every(1000, 1015, 300)]) == []


def test_an_event_says_what_when_and_how_surely() -> None:
    expected = Expected(
        kind="memory_exhaustion_expected",
        name="memory",
        t_s=5.0,
        in_s=1080.0,
        earliest_s=960.0,
        latest_s=1260.0,
        confidence=0.91234,
        value=400.0 * MIB,
        limit=64.0 * MIB,
    )
    begun = event(EarlyWarning(expected=expected), 5.0)
    assert begun.kind == "memory_exhaustion_expected"
    assert begun.severity == "warning"
    assert begun.message == (
        "400 MiB of memory are available; the reserve of 64 MiB is expected to be reached in 18 min (confidence 91%)"
    )
    assert begun.detail["in_s"] == 1080.0
    assert begun.detail["earliest_s"] == 960.0
    assert begun.detail["confidence"] == 0.912
    over = event(EarlyWarning(expected=msgspec.structs.replace(expected, in_s=None), ended=True), 9.0)
    assert (over.kind, over.severity, over.t_s) == ("memory_exhaustion_expected_over", "info", 9.0)
    assert over.message.endswith("is no longer expected to be reached soon")
    hot = msgspec.structs.replace(expected, kind="throttling_expected", name="cpu", value=71.23, limit=80.0, in_s=45.0)
    assert event(EarlyWarning(expected=hot), 5.0).message.startswith(
        "cpu is at 71.2 C; its limit of 80.0 C is expected"
    )
    assert "in 45 s" in event(EarlyWarning(expected=hot), 5.0).message


def test_the_state_is_written_down_and_read_back() -> None:
    zone, limits = expecting(300.0)
    state = State()
    for now_s in (0.0, 5.0):
        state, _ = warn(state, now_s, {"cpu": msgspec.structs.replace(zone, t_s=now_s)}, None, limits)
    again = msgspec.json.decode(msgspec.json.encode(state), type=State)
    assert again == state
    assert "throttling_expected/cpu" in again.pending


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 200), st.one_of(st.none(), st.floats(0, 3000))), max_size=60))
def test_begun_and_ended_take_turns(changes: list[tuple[float, float | None]]) -> None:
    times = itertools.accumulate(step for step, _ in changes)
    told = feed([(t, in_s) for t, (_, in_s) in zip(times, changes, strict=True)])
    assert [ended for _, ended in told] == [i % 2 == 1 for i in range(len(told))]
