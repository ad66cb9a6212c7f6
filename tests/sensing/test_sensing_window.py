"""Windows: bounded, exact, and closed to what is no measurement."""

import math

import msgspec
import pytest
from fake_sensors import reading
from hypothesis import given
from hypothesis import strategies as st

from flyball.ports import Stats
from flyball.sensing.window import CAPACITY, MAX_SERIES, Windows, hottest, summarize


def test_a_window_holds_its_stats_and_no_more() -> None:
    windows = Windows(window_s=10, period_s=1)
    for t in range(1, 41):
        assert windows.add("told", [reading(float(t), t_s=float(t))], float(t)) == (1, [])
    assert windows.stats("temperature", 38.0) == {"x": summarize([38.0, 39.0, 40.0])}
    assert windows.stats("temperature", 40.5) == {}
    assert windows.stats("power", 0) == {}
    assert len(windows.samples("temperature", "x", 0)) == 12  # the window and two more, however long it runs
    assert windows.samples("temperature", "other", 0) == []


def test_memory_is_bounded_whatever_the_settings() -> None:
    windows = Windows(window_s=1e12, period_s=0.05)
    for t in range(CAPACITY + 50):
        windows.add("told", [reading(t_s=float(t))], float(t))
    assert len(windows.samples("temperature", "x", 0)) == CAPACITY


def test_a_sensor_that_makes_up_names_is_stopped_and_old_names_are_forgotten() -> None:
    windows = Windows(window_s=10, period_s=1)
    taken, problems = windows.add("told", [reading(t_s=1.0, name=f"n{i}") for i in range(MAX_SERIES + 5)], 1.0)
    assert (taken, len(problems)) == (MAX_SERIES, 5)
    assert "names are in use" in problems[0]
    assert windows.add("told", [reading(t_s=30.0, name="new")], 30.0) == (1, [])
    assert [r.name for r in windows.newest(0.0)] == ["new"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "12", True])
def test_what_is_no_number_is_refused(value: float) -> None:
    windows = Windows(window_s=10, period_s=1)
    taken, problems = windows.add("told", [reading(value, t_s=1.0), reading(2.0, t_s=1.0, name="y")], 1.0)
    assert (taken, [r.name for r in windows.newest(0.0)]) == (1, ["y"])
    assert problems == [f"temperature of x: expected a finite value, found {value!r}"]


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["large", "small", "too long to be written"])
def test_an_integer_that_no_float_holds_is_refused(value: float) -> None:
    windows = Windows(window_s=10, period_s=1)
    taken, problems = windows.add("told", [reading(value, t_s=1.0), reading(2.0, t_s=1.0, name="y")], 1.0)
    assert taken == 1
    assert problems == [f"temperature of x: expected a finite value, found an integer of {value.bit_length()} bits"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "uncertainty",
    ["2 %", math.nan, math.inf, -0.1, True, 10**400],
    ids=["text", "nan", "inf", "negative", "bool", "huge"],
)
def test_an_uncertainty_is_a_number_or_none(uncertainty: float) -> None:
    windows = Windows(window_s=10, period_s=1)
    wrong = msgspec.structs.replace(reading(t_s=1.0), uncertainty=uncertainty)
    taken, problems = windows.add("told", [wrong], 1.0)
    assert taken == 0
    assert problems[0].startswith("temperature of x: expected a relative uncertainty of at least 0 or None, found ")
    fine = [msgspec.structs.replace(reading(t_s=2.0, name=str(u)), uncertainty=u) for u in (None, 0, 0.6)]
    assert windows.add("told", fine, 2.0) == (3, [])


def test_a_name_that_cannot_be_sent_is_refused() -> None:
    windows = Windows(window_s=10, period_s=1)
    taken, problems = windows.add("told", [reading(t_s=1.0, name="rail\udcff"), reading(t_s=1.0, name="\u00e9")], 1.0)
    assert taken == 1
    assert problems == ["temperature of 'rail\\udcff': expected a name that can be written as UTF-8"]


def test_times_are_checked() -> None:
    windows = Windows(window_s=10, period_s=1)
    assert windows.add("told", [reading(t_s=5.0)], 5.0) == (1, [])
    for t_s, says in ((1e12, "in the future"), (math.nan, "finite time"), (5.0, "later time"), (4.0, "later time")):
        assert says in windows.add("told", [reading(t_s=t_s)], 6.0)[1][0]
    assert windows.add("told", [None, 3], 6.0) == (
        0, ["expected a Reading, found NoneType", "expected a Reading, found int"],
    )  # fmt: skip


def test_a_name_belongs_to_the_sensor_that_reads_it() -> None:
    windows = Windows(window_s=10, period_s=1)
    windows.add("a", [reading(t_s=1.0, sensor="a")], 1.0)
    assert windows.add("b", [reading(t_s=2.0, sensor="b")], 2.0)[1] == [
        "temperature of x: the sensor a reads this name already"
    ]
    assert windows.add("b", [reading(t_s=20.0, sensor="b")], 20.0) == (1, [])  # a has given it up


def test_a_reading_names_its_sensor() -> None:
    windows = Windows(window_s=10, period_s=1)
    assert windows.add("a", [reading(t_s=1.0)], 1.0) == (
        0, ["temperature of x: expected the sensor 'a', found 'told'"],
    )  # fmt: skip


@given(st.lists(st.floats(min_value=-1e9, max_value=1e9), min_size=1, max_size=60), st.floats(0, 70))
def test_stats_are_those_of_the_samples(values: list[float], since_s: float) -> None:
    windows = Windows(window_s=100, period_s=1)
    for t, value in enumerate(values):
        windows.add("told", [reading(value, t_s=float(t))], float(t))
    expected = [value for t, value in enumerate(values) if t >= since_s]
    stats = windows.stats("temperature", since_s).get("x")
    if stats is None:
        assert expected == []
        return
    assert (stats.count, stats.minimum, stats.maximum, stats.last) == (
        len(expected), min(expected), max(expected), expected[-1],
    )  # fmt: skip
    assert stats.mean == pytest.approx(sum(expected) / len(expected), abs=1e-3)


def test_the_hottest_zone_figure_by_figure() -> None:
    a = Stats(count=2, mean=50, minimum=40, maximum=60, last=41, p50=40, p95=60, p99=60)
    b = Stats(count=3, mean=45, minimum=44, maximum=46, last=46, p50=45, p95=46, p99=46)
    assert hottest([a, b]) == Stats(count=5, mean=50, minimum=44, maximum=60, last=46, p50=45, p95=60, p99=60)
    assert hottest([]) is None


def test_quantiles_are_values_that_were_read() -> None:
    stats = summarize([float(n) for n in range(100, 0, -1)])
    assert (stats.p50, stats.p95, stats.p99, stats.maximum) == (50.0, 95.0, 99.0, 100.0)
    assert summarize([7.0]) == Stats(count=1, mean=7, minimum=7, maximum=7, last=7, p50=7, p95=7, p99=7)


def test_a_sensor_with_a_period_of_its_own_has_room_for_its_window() -> None:
    windows = Windows(window_s=10, period_s=1, periods={"quick": 0.1})
    for t in range(1, 400):
        windows.add("quick", [reading(t_s=t / 10, sensor="quick")], t / 10)
    assert len(windows.samples("temperature", "x", 0)) == 102


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"value": -50.0}, "expected 0 to 100000 W, found -50 W"),
        ({"value": 1e300}, "expected 0 to 100000 W"),
        ({"unit": "mW"}, "expected W, found 'mW'"),
        ({"scope": "galaxy"}, "expected a scope of"),
    ],
)
def test_power_that_cannot_be_becomes_nobodys_total(change: dict[str, object], problem: str) -> None:
    power = msgspec.structs.replace(reading(9.0, t_s=1.0, quantity="power", scope="wall"), **change)
    taken, problems = Windows(window_s=10, period_s=1).add("told", [power], 1.0)
    assert taken == 0
    assert problem in problems[0]
