"""What forecast.py, live_governor.py, headline.py and joint.py make of what they saw; no daemon is started here."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flyball.errors import FlyballError
from flyball.governor.warnings import Expected

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        names = ("forecast", "_live", "live_governor", "headline", "joint")
        yield {name: importlib.import_module(name) for name in names}


# ------------------------------------------------------------------------------------------------------- forecast.py


def series(forecast: ModuleType, reached_s: float | None, leak_s: float | None, kind: str = "leak") -> Any:
    return forecast.Series(
        seed=0, kind=kind, period_s=1.0, available=np.zeros(1), leak_s=leak_s, reached_s=reached_s
    )  # fmt: skip


def told(t_s: float, in_s: float) -> Expected:
    return Expected(kind="memory", name="memory", t_s=t_s, in_s=in_s, earliest_s=0.8 * in_s, latest_s=1.5 * in_s,
                    confidence=0.8, value=0.0, limit=0.0)  # fmt: skip


def test_a_warning_is_right_when_the_reserve_is_reached_within_twice_its_time(modules: dict[str, ModuleType]) -> None:
    forecast = modules["forecast"]
    leak = series(forecast, 6000.0, 1000.0)
    found = forecast.scores(
        [
            (leak, [told(4800.0, 1200.0)]),  # 20 minutes before
            (leak, [told(1000.0, 1200.0), told(5400.0, 600.0)]),  # far too early; then right, but only 10 minutes
            (leak, []),
            (series(forecast, 1800.0, 1000.0), [told(1500.0, 300.0)]),  # too short a leak to be told 15 minutes before
            (series(forecast, None, 1000.0, "leak that stops"), [told(2000.0, 600.0)]),
            (series(forecast, None, None, "sawtooth"), []),
        ]
    )
    assert (found["right"], found["wrong"], found["leaks"], found["found"]) == (3, 2, 3, 1)
    assert found["lead_min"] == 10.0
    assert found["precision"] == 0.6
    assert found["recall"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["inside_pct"] == 75.0
    assert (found["wrong_on_leak"], found["wrong_on_leak_that_stops"]) == (1, 1)


def test_no_warning_at_all_is_no_success(modules: dict[str, ModuleType]) -> None:
    forecast = modules["forecast"]
    found = forecast.scores([(series(forecast, 6000.0, 1000.0), [])])
    assert (found["lead_min"], found["precision"], found["recall"]) == (0.0, 0.0, 0.0)


def test_half_of_the_series_leak_and_the_others_never_come_near(modules: dict[str, ModuleType]) -> None:
    forecast = modules["forecast"]
    for seed in range(40):
        made = forecast.series(seed)
        assert (made.leak_s is not None) == (seed % 2 == 0)
        if made.leak_s is None:
            assert made.reached_s is None
            assert made.available.min() > forecast.RESERVE
        if made.reached_s is not None:
            assert made.available[-1] <= forecast.RESERVE
            assert made.available[:-1].min() > forecast.RESERVE
            assert made.reached_s == pytest.approx((len(made.available) - 1) * made.period_s)


# ---------------------------------------------------------------------------------------------------- live runs


def asked(live: ModuleType, due_s: float, rung: str, late: bool, right: bool = True) -> Any:
    latency_s = 0.05 if late else 0.01
    return live.Asked(due_s=due_s, latency_s=latency_s, since_due_s=latency_s, rung=rung, right=right)


def held(live: ModuleType, rung: str, late: tuple[int, ...]) -> list[Any]:
    """One request a second for 30 s; `late`: those that were."""
    return [asked(live, float(i), rung, i in late) for i in range(30)]


def plan_of(live: ModuleType) -> Any:
    return live.Plan(phases_s=(10.0, 10.0, 10.0), rate_per_s=1.0, cores=1)


def test_the_best_static_rung_is_the_most_accurate_within_what_is_allowed(modules: dict[str, ModuleType]) -> None:
    live, bench = modules["_live"], modules["live_governor"]
    found = {
        live.GOVERNED: held(live, "a", (10, 11, 12)),
        "a": held(live, "a", tuple(range(10, 25))),
        "b": held(live, "b", (10,)),
        "c": held(live, "c", ()),
    }
    figures = bench.scores(found, ["a", "b", "c"], plan_of(live), 0.02)
    assert figures["best_static"] == "b", "3 % late; c is not as accurate"
    assert figures["violations_vs_best_static"] == pytest.approx(6.67)
    assert figures["violations_vs_none"] == pytest.approx(-40.0)
    assert (figures["recovery_down_s"], figures["recovery_up_s"], figures["recovery_s"]) == (3.0, 0.0, 3.0)
    figures = bench.scores({**found, "b": found["a"]}, ["a", "b"], plan_of(live), 0.02)
    assert figures["best_static"] == "a", "both are late; the first of the least late"
    late_after = {**found, live.GOVERNED: held(live, "a", (10, 25, 26, 27))}
    figures = bench.scores(late_after, ["a", "b", "c"], plan_of(live), 0.02, 20.0)
    assert figures["late_pct_governor"] == pytest.approx(5.0), "what nobody else was asked is not counted"
    assert figures["requests"] == 20


def test_the_oracle_takes_the_best_rung_of_every_phase(modules: dict[str, ModuleType]) -> None:
    live, bench = modules["_live"], modules["headline"]
    worths = {"a": 0.9, "b": 0.6}
    found = {
        live.GOVERNED: [*held(live, "a", ())[:11], *held(live, "b", ())[11:20], *held(live, "a", ())[20:]],
        "a": held(live, "a", tuple(range(10, 20))),
        "b": held(live, "b", ()),
    }
    figures = bench.scores(found, ["a", "b"], plan_of(live), 0.02, worths)
    assert figures["best_static"] == "a"  # 20 x 0.9 against 30 x 0.6: the first of equals
    assert figures["per_s_a"] == pytest.approx(18 / 30, abs=1e-3)
    assert figures["oracle_per_s"] == pytest.approx((18 + 6) / 30, abs=1e-3)
    assert figures["governed_per_s"] == pytest.approx((21 * 0.9 + 9 * 0.6) / 30, abs=1e-3)
    assert figures["vs_oracle"] == pytest.approx(24.3 / 24, abs=1e-3)
    assert figures["vs_best_static_x"] == pytest.approx(24.3 / 18, abs=1e-3)


def test_only_right_answers_count_where_pictures_are_labelled(modules: dict[str, ModuleType]) -> None:
    live, bench = modules["_live"], modules["headline"]
    wrong = [asked(live, float(i), "a", late=False, right=i % 2 == 0) for i in range(30)]
    found = {live.GOVERNED: wrong, "a": held(live, "a", ())}
    figures = bench.scores(found, ["a"], plan_of(live), 0.02, {})
    assert (figures["governed_per_s"], figures["per_s_a"]) == (0.5, 1.0)


def test_nothing_in_time_is_nothing_to_compare_with(modules: dict[str, ModuleType]) -> None:
    live, bench = modules["_live"], modules["headline"]
    late = held(live, "a", tuple(range(30)))
    with pytest.raises(FlyballError, match="nothing to compare"):
        bench.scores({live.GOVERNED: held(live, "a", ()), "a": late}, ["a"], plan_of(live), 0.02, {})


# ---------------------------------------------------------------------------------------------------------- joint.py


def test_both_ways_meet_the_same_requests_and_the_same_noise(modules: dict[str, ModuleType]) -> None:
    joint = modules["joint"]
    hurried = [joint.simulate(together, 0.03, 3, 2) for together in (True, False)]
    patient = joint.simulate(True, 0.1, 3, 2)
    assert len(hurried[0][0]) == len(hurried[1][0]) == len(patient[0])
    assert hurried[0][0][:10] == hurried[1][0][:10] == patient[0][:10], "both begin on the top rung"
    assert hurried[0] != hurried[1]
    assert hurried[0] == joint.simulate(True, 0.03, 3, 2)
    for took, late, _ in hurried:
        assert late == sum(latency_s > 0.03 for latency_s in took)
