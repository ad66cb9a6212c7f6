"""The oracle, and the scores that everything is compared by."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from made_traces import BIG, BOARD, LADDER, MIB, made, model

from flyball.governor.replay import oracle, profiles, standard
from flyball.governor.replay.misses import missed
from flyball.governor.replay.period import Period
from flyball.governor.replay.run import Change, Run, policy, run
from flyball.governor.replay.score import over_cap_s, paired, prediction_error, recovery_s, score, wilson
from flyball.governor.replay.trace import Trace
from flyball.governor.values import Limits


def statics(trace: Trace) -> list[str]:
    return [f"static:{rung.name}" for rung in trace.header.rungs]


# --------------------------------------------------------------------------------------------------------- choice


def test_it_is_the_best_of_all_ways_without_heat() -> None:
    """Against every one of 3^6, on traces drawn at random."""
    dice = random.Random(3)
    for _ in range(5):
        rows = [{"contention": dice.choice([0.0, 1.0, 4.0]), "arrivals": dice.randrange(5, 40),
                 "rate_per_s": float(dice.choice([5, 20, 60])), "power_cap_w": dice.choice([None, 6.4])}
                for _ in range(6)]  # fmt: skip
        trace = made(rows, rungs=LADDER)
        names = [rung.name for rung in LADDER]
        ways = [(LADDER[0].name, *rest) for rest in itertools.product(names, repeat=5)]
        best = max(oracle.worth(trace, way) for way in ways)
        assert oracle.worth(trace, oracle.choose(trace)) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("ladder", ["defects", "mobilenets"])
@pytest.mark.parametrize("name", standard.NAMES)
def test_no_static_rung_is_worth_more(name: str, ladder: str) -> None:
    trace = standard.standard(name, ladder, profiles.STAND_INS[ladder], 11, minutes=20)
    best = score(run(trace, policy("oracle", trace), "oracle"))
    for still in statics(trace):
        other = score(run(trace, policy(still, trace), still))
        assert best.worth >= other.worth - 1e-3, still


def test_it_is_worth_more_than_any_static_rung_where_things_change() -> None:
    differences = []
    for seed in range(6):
        trace = standard.standard("cpu-bursts", "defects", profiles.STAND_INS["defects"], seed, minutes=10)
        best = score(run(trace, policy("oracle", trace), "oracle"))
        others = [score(run(trace, policy(still, trace), still)) for still in statics(trace)]
        differences.append((best.worth, max(other.worth for other in others)))
    gained = paired(*zip(*differences, strict=True))
    assert gained.mean > 0.0
    assert gained.sure


def test_it_leaves_a_rung_that_breaks_a_cap_and_comes_back() -> None:
    cap_w = BOARD.idle_w + 0.4  # 20 a second of `big` are 0.6 W
    rows = [{"power_cap_w": cap_w if 10 <= i < 20 else None, "rate_per_s": 20.0} for i in range(30)]
    path = oracle.choose(made(rows))
    assert path == ["big"] * 10 + ["middle"] * 10 + ["big"] * 10


def test_it_takes_what_misses_least_where_nothing_holds_the_deadline() -> None:
    rows = [{"rate_per_s": 20.0, "contention": 4.0}] * 10
    path = oracle.choose(made(rows, rungs=LADDER[:2], limits=Limits(deadline_s=0.002)))
    assert path[-1] == "big", "both miss everything"
    path = oracle.choose(made(rows, rungs=LADDER[:2], limits=Limits(deadline_s=0.0145)))
    assert path[-1] == "middle"


def test_with_a_price_every_late_answer_counts_and_not_only_those_too_many() -> None:
    rows = [{"rate_per_s": 20.0}] * 50
    limits = Limits(deadline_s=0.02)
    trace = made(rows, rungs=LADDER[:2], limits=limits)
    late = [missed(rung, 0.0, 20.0, 0.02) for rung in LADDER[:2]]
    assert late[1] < late[0] <= 0.05, "few enough on both"
    even = (LADDER[0].accuracy - LADDER[1].accuracy) / (late[0] - late[1])
    assert oracle.choose(trace)[-1] == "big"
    assert oracle.choose(trace, oracle.Aim(late_price=0.8 * even))[-1] == "big"
    assert oracle.choose(trace, oracle.Aim(late_price=1.5 * even))[-1] == "middle"


def test_it_does_not_change_for_less_than_a_change_costs() -> None:
    rows = [{"contention": 4.0 if i == 10 else 0.0, "rate_per_s": 20.0, "arrivals": 0 if i == 10 else 20}
            for i in range(20)]  # fmt: skip
    assert set(oracle.choose(made(rows))) == {"big"}


def test_with_heat_it_stays_below_the_limit() -> None:
    trace = standard.standard("heat-ramp", "defects", profiles.STAND_INS["defects"], 1)
    found = score(run(trace, policy("oracle", trace), "oracle"))
    still = score(run(trace, policy("static:r224-fp32", trace), "static:r224-fp32"))
    assert (found.throttled_s, found.over_limit_s) == (0.0, 0.0)
    assert still.throttled_s > 60.0
    assert (found.accuracy or 0.0) > 0.9920, "it does not stay on the second rung"


def test_rates_are_the_traces_own_or_means_about_each_period() -> None:
    trace = made([{"arrivals": 10}] * 5 + [{"arrivals": 30, "rate_per_s": 25.0}])
    assert oracle.rates_of(trace)[5] == 25.0
    assert oracle.rates_of(trace)[0] == pytest.approx((5 * 10 + 30) / 6)


# --------------------------------------------------------------------------------------------------------- scores


def period(i: int, **more: Any) -> Period:
    fields: dict[str, Any] = {
        "t_s": float(i), "rung": "big", "arrivals": 20, "answered": 20, "late": 0, "refused": 0, "accuracy": 18.0,
        "accuracy_on_time": 18.0, "joules": 0.6, "power_w": 6.6, "temp_c": 50.0, "throttled": False,
        "available_bytes": 500 * MIB, **more,
    }  # fmt: skip
    return Period(**fields)


def ran(trace: Trace, periods: Sequence[Period], **more: Any) -> Run:
    nothing: tuple[float | None, ...] = (None,) * len(periods)
    fields: dict[str, Any] = {
        "policy": "made", "trace": trace, "periods": tuple(periods), "p95_s": nothing, "predicted_s": nothing,
        "changes": (), "switches": 0, "decide_s": 0.0, **more,
    }  # fmt: skip
    return Run(**fields)


def test_figures_add_up() -> None:
    trace = made([{}] * 10, rungs=(BIG,), limits=Limits(deadline_s=0.025, temperature_c=60.0))
    periods = [period(i) for i in range(8)]
    periods += [period(8, answered=15, refused=5, late=5, accuracy=13.5, accuracy_on_time=9.0, temp_c=61.0)]
    periods += [period(9, throttled=True, answered=0, refused=20, accuracy=0.0, accuracy_on_time=0.0, joules=0.0,
                       power_w=6.0)]  # fmt: skip
    found = score(ran(trace, periods, switches=2, changes=(Change(t_s=1.0, source="a", target="b", reason=""),)))
    assert (found.requests, found.answered, found.late, found.refused) == (200, 175, 5, 25)
    assert found.violations == pytest.approx(30 / 200)
    assert found.accuracy == pytest.approx(0.9)
    assert found.on_time_accuracy == pytest.approx((8 * 18.0 + 9.0) / 200)
    assert found.joules_per_answer == pytest.approx(9 * 0.6 / 175)
    assert found.gross_joules_per_answer == pytest.approx((9 * 6.6 + 6.0) / 175)
    assert found.switches_per_h == pytest.approx(2 / 10 * 3600)
    assert (found.throttled_s, found.over_limit_s, found.regret) == (1.0, 1.0, None)


def test_nothing_to_judge_by_is_not_zero() -> None:
    trace = made([{"arrivals": 0}] * 3)
    empty = [period(i, arrivals=0, answered=0, accuracy=0.0, accuracy_on_time=0.0) for i in range(3)]
    found = score(ran(trace, empty))
    assert (found.violations, found.violations_interval, found.accuracy, found.on_time_accuracy) == (None,) * 4
    assert (found.joules_per_answer, found.recovery_s, found.prediction_error) == (None, None, None)


def test_a_cap_is_on_the_mean_of_ten_seconds() -> None:
    trace = made([{"power_cap_w": 8.0}] * 40)
    peaks = [period(i, power_w=12.0 if i % 10 == 0 else 7.0) for i in range(40)]
    assert over_cap_s(ran(trace, peaks)) == 0.0
    above = [period(i, power_w=9.0 if i >= 20 else 7.0) for i in range(40)]
    assert over_cap_s(ran(trace, above)) == pytest.approx(15.0)  # the mean passes 8.0 after more than five
    assert over_cap_s(ran(made([{}] * 40), above)) == 0.0


def test_recovery_is_the_time_until_the_quantile_holds_again() -> None:
    rows = [{"contention": 3.0 if 5 <= i < 15 or i >= 20 else 0.0} for i in range(30)]
    bad = {5, 6, 7, 8, 20, 21}
    periods = [period(i, late=15 if i in bad else 0) for i in range(30)]
    assert recovery_s(ran(made(rows), periods)) == pytest.approx((4 + 2) / 2)
    never = [period(i, late=15) for i in range(30)]
    assert recovery_s(ran(made(rows), never)) == pytest.approx((10 + 10) / 2)


def test_a_prediction_is_compared_with_what_came_of_the_same_rung() -> None:
    trace = made([{}] * 20)
    rungs = ["big"] * 10 + ["small"] * 10
    periods = [period(i, rung=rung) for i, rung in enumerate(rungs)]
    p95s = tuple([0.010] * 10 + [0.002] * 10)
    foretold = tuple([0.012] * 9 + [0.002] * 11)
    found = prediction_error(ran(trace, periods, p95_s=p95s, predicted_s=foretold))
    assert found == pytest.approx(0.0)
    big_only = prediction_error(ran(trace, periods, p95_s=p95s, predicted_s=tuple([0.012] * 10 + [None] * 10)))
    assert big_only == pytest.approx(0.2)


def test_wilsons_interval_holds_the_share() -> None:
    low, high = wilson(50, 1000)
    assert (low, high) == (pytest.approx(0.0381, abs=1e-3), pytest.approx(0.0653, abs=1e-3))
    assert wilson(0, 100)[0] == 0.0
    assert 0.03 < wilson(0, 100)[1] < 0.05


def test_pairs_find_a_difference_that_chance_hides_otherwise() -> None:
    hard = [0.1, 0.5, 0.3, 0.9, 0.2]
    found = paired([h + 0.01 + 0.001 * (i % 2) for i, h in enumerate(hard)], hard)
    assert found.mean == pytest.approx(0.0104)
    assert found.sure
    none = paired([0.1, 0.2, 0.3], [0.2, 0.1, 0.3])
    assert not none.sure
    assert paired([1.0], [0.5]).interval is None
    # Student's t for 4 degrees of freedom: 2.776.
    low, high = found.interval or (0.0, 0.0)
    deviation = math.sqrt(sum(((0.01 + 0.001 * (i % 2)) - 0.0104) ** 2 for i in range(5)) / 4)
    assert high - low == pytest.approx(2 * 2.776 * deviation / math.sqrt(5))


def test_a_lost_accelerator_is_foreseen() -> None:
    rungs = (model("top", accelerator="npu", accuracy=0.95), *LADDER)
    rows = [{"lost": ("npu",) if 5 <= i < 10 else (), "rate_per_s": 20.0} for i in range(15)]
    path = oracle.choose(made(rows, rungs=rungs))
    assert path == ["top"] * 5 + ["big"] * 5 + ["top"] * 5
