"""The simulated machine: what must hold of any machine, and what queueing theory says of this one."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traces import BIG, BOARD, LADDER, MIB, SMALL, made, model

from flyball.governor.replay.misses import missed
from flyball.governor.replay.period import Period
from flyball.governor.replay.plant import Plant
from flyball.governor.replay.sample import draw
from flyball.governor.replay.trace import Board, Trace
from flyball.governor.values import Limits, View


def board(**more: Any) -> Board:
    return Board(**{name: getattr(BOARD, name) for name in BOARD.__struct_fields__} | more)


def played(trace: Trace, orders: dict[int, str] | None = None) -> tuple[list[Period], list[View], list[str]]:
    """Orders by the period after which they are given; and what was answered to them."""
    plant = Plant(trace, draw(trace))
    periods, views, answers = [], [], []
    for i in range(len(trace.steps)):
        periods.append(plant.advance(i))
        views.append(plant.view())
        if orders and i in orders:
            answers.append(plant.switch(orders[i]))
    return periods, views, answers


SENSORS = ("temperature", "power", "memory", "contention")
rows = st.fixed_dictionaries(
    {
        "arrivals": st.integers(0, 120),
        "contention": st.floats(0, 9),
        "ambient_c": st.floats(-10, 60),
        "memory_taken_bytes": st.floats(0, 2048 * MIB),
        "unreadable": st.lists(st.sampled_from(SENSORS), unique=True).map(tuple),
        "lost": st.sampled_from([(), (), ("npu",), ("npu", "cpu")]),
    }
)  # fmt: skip
MIXED = (model("top", accelerator="npu"), *LADDER)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(rows, min_size=1, max_size=12),
    orders=st.dictionaries(st.integers(0, 11), st.sampled_from(["top", "big", "middle", "small", "none"])),
    deadline_s=st.none() | st.floats(0.001, 1.0),
)
def test_every_request_is_answered_or_refused_once(
    steps: list[dict[str, Any]], orders: dict[int, str], deadline_s: float | None
) -> None:
    trace = made(steps, rungs=MIXED, limits=Limits(deadline_s=deadline_s))
    periods, views, _ = played(trace, orders)
    for period, step, view in zip(periods, trace.steps, views, strict=True):
        assert period.answered + period.refused == period.arrivals == step.arrivals
        assert 0 <= period.late <= period.answered
        assert 0 <= period.accuracy_on_time <= period.accuracy <= period.answered
        assert BOARD.idle_w <= period.power_w < 50.0
        (ladder,) = view.ladders
        active = next((rung for rung in ladder.rungs if rung.name == ladder.active), None)
        assert active is None or active.usable, "an accelerator that is lost answers nothing"
        assert active is None or active.resident
        assert (view.machine.power_w is None) == ("power" in step.unreadable)
        assert (view.machine.zones == {}) == ("temperature" in step.unreadable)
        assert (view.machine.memory_available_bytes is None) == ("memory" in step.unreadable)
        assert (view.machine.contention is None) == ("contention" in step.unreadable)


def test_the_same_trace_gives_the_same() -> None:
    trace = made([{"contention": i % 5 * 1.0, "arrivals": 30} for i in range(40)])
    orders = {5: "small", 20: "big"}
    assert played(trace, orders) == played(trace, orders)


def test_energy_is_mean_power_times_time() -> None:
    trace = made([{"arrivals": 10 + i} for i in range(30)])
    periods, _, _ = played(trace, {4: "small", 15: "middle"})
    machine_j = sum(period.power_w for period in periods) * trace.header.period_s
    assert machine_j == pytest.approx(BOARD.idle_w * trace.seconds + sum(period.joules for period in periods))
    answered = dict.fromkeys(("big", "middle", "small"), 0)
    for period in periods:
        answered[period.rung or ""] += period.answered
    loads_j = 2 * 0.3 * BOARD.core_w
    least = sum(count * {r.name: r.joules for r in LADDER}[name] for name, count in answered.items()) + loads_j
    assert sum(period.joules for period in periods) == pytest.approx(least, rel=0.02)  # the old rung answers on


@pytest.mark.parametrize("rate", [10, 20, 30])
def test_a_queue_without_a_deadline_waits_as_pollaczek_and_khinchine_say(rate: int) -> None:
    work_s = 0.020
    trace = made([{"arrivals": rate * 20, "rate_per_s": float(rate)}] * 60, period_s=20.0,
                 rungs=(model(work_s=work_s),), limits=Limits())  # fmt: skip
    plant = Plant(trace, draw(trace))
    latencies: list[float] = []
    for i in range(len(trace.steps)):
        plant.advance(i)
        latencies += plant._latencies[-1]
    load = rate * work_s
    expected_s = work_s + load * work_s / (2 * (1 - load))
    assert sum(latencies) / len(latencies) == pytest.approx(expected_s, rel=0.04)


@pytest.mark.parametrize("share", [1.3, 1.6, 1.9])
def test_a_steady_queue_misses_as_many_as_queueing_theory_says(share: float) -> None:
    """M/D/1 whose customers leave when they would wait longer than deadline less work, with that less than the work:
    P(wait <= t) = P(idle) exp(rate t) up to there, P(idle) = 1 - rate x work x P(accepted)."""
    work_s, rate = 0.020, 15.0
    deadline_s = share * work_s
    grown = math.exp(rate * (deadline_s - work_s))
    theory = 1.0 - grown / (1.0 + rate * work_s * grown)
    trace = made([{"arrivals": int(rate * 20)}] * 150, period_s=20.0, rungs=(model(work_s=work_s),),
                 limits=Limits(deadline_s=deadline_s))  # fmt: skip
    periods, _, _ = played(trace)
    share_missed = sum(p.missed for p in periods) / sum(p.arrivals for p in periods)
    assert share_missed == pytest.approx(theory, abs=0.01)
    assert missed(model(work_s=work_s), 0.0, rate, deadline_s) == pytest.approx(theory, abs=0.02)


def test_contention_slows_down_by_the_measured_factor() -> None:
    trace = made([{"contention": 2.0, "arrivals": 5}] * 200, limits=Limits())
    _, views, _ = played(trace)
    works = [view.ladders[0].seen.work_mean_s or 0.0 for view in views]
    assert sum(works) / len(works) == pytest.approx(3.0 * BIG.work_s, rel=0.02)


def test_heat_follows_the_first_order_model() -> None:
    trace = made([{"ambient_c": 40.0, "arrivals": 0}] * 60, board=board(tau_s=30.0))
    warm, _, _ = played(made([{"ambient_c": 40.0, "arrivals": 20}] * 60, board=board(tau_s=30.0)))
    cold, _, _ = played(trace)
    assert cold[-1].temp_c == pytest.approx(55.0)
    settles_c = 55.0 + BOARD.r_kw * 20 * BIG.joules
    assert warm[29].temp_c == pytest.approx(settles_c - (settles_c - 55.0) * math.exp(-1.0), abs=0.01)


def test_above_the_limit_the_clock_falls_until_it_is_cooler() -> None:
    hot = [{"ambient_c": 90.0 if i < 60 else 20.0, "arrivals": 5} for i in range(200)]
    periods, views, _ = played(made(hot, limits=Limits(), board=board(tau_s=20.0)))
    flags = [period.throttled for period in periods]
    assert flags.count(True) > 20
    assert not flags[0]
    assert not flags[-1]
    first, last = flags.index(True), len(flags) - 1 - flags[::-1].index(True)
    assert all(flags[first : last + 1]), "no flutter at the limit"
    works = [view.ladders[0].seen.work_mean_s or 0.0 for view in views]
    assert works[first] == pytest.approx(BIG.work_s / 0.6, rel=0.1)
    assert views[first].machine.throttled == ("thermal",)
    assert views[first].machine.clock == pytest.approx(0.6)
    assert views[-1].machine.throttled == ()


def test_a_rung_that_is_open_takes_over_at_once_and_one_that_is_not_loads_first() -> None:
    slow = (model("slow", load_s=2.5), SMALL)
    periods, views, answers = played(made([{}] * 12, rungs=slow), {2: "small", 6: "slow"})
    assert answers == ["", ""]
    assert [p.rung for p in periods[:4]] == ["slow", "slow", "slow", "small"]
    assert periods[7].rung == "slow", "it was on standby"
    assert {r.name: r.resident for r in views[4].ladders[0].rungs} == {"slow": True, "small": True}
    long = (SMALL, model("slow", load_s=2.5))
    periods, views, _ = played(made([{}] * 8, rungs=long), {2: "slow"})
    assert [p.rung for p in periods] == ["small"] * 5 + ["slow"] * 3
    assert all(p.refused == 0 for p in periods), "the old one answers meanwhile"
    # From the third period on it is 15 % slower.
    assert (views[3].ladders[0].seen.work_mean_s or 0) == pytest.approx(1.15 * SMALL.work_s)
    assert periods[3].joules > periods[2].joules + 2.0, "loading takes a core"


def test_what_was_seen_is_the_active_rungs_alone() -> None:
    _, views, _ = played(made([{}] * 6, rungs=(BIG, SMALL)), {2: "small"})
    after = views[3].ladders[0].seen
    assert after.work_mean_s == pytest.approx(SMALL.work_s)
    assert after.p95_s is not None
    assert after.p95_s < BIG.work_s
    assert after.window_answers == after.answers < 20


def test_without_memory_for_both_nobody_answers_while_one_loads() -> None:
    taken = {"memory_taken_bytes": 2048 * MIB - BIG.rss_bytes - 50 * MIB}
    long = model("other", load_s=1.5, rss_bytes=60 * MIB)
    limits = Limits(deadline_s=0.025, memory_available_bytes=40 * MIB)
    periods, _, _ = played(made([taken] * 8, rungs=(BIG, long), limits=limits), {2: "other"})
    assert periods[3].refused == periods[3].arrivals
    assert periods[5].rung == "other"
    assert periods[5].refused == 0
    assert not any(p.refused == p.arrivals for p in periods[:3])


def test_standbys_go_before_the_reserve_is_touched() -> None:
    rows = [{"memory_taken_bytes": (300 if i < 6 else 1840) * MIB} for i in range(10)]
    limits = Limits(deadline_s=0.025, memory_available_bytes=100 * MIB)
    periods, views, _ = played(made(rows, limits=limits), {1: "small"})
    resident = [[r.name for r in view.ladders[0].rungs if r.resident] for view in views]
    assert resident[4] == ["big", "small"]
    assert resident[7] == ["small"]
    assert periods[7].available_bytes == (2048 - 1840 - 40) * MIB


def test_too_little_memory_makes_everything_slow() -> None:
    rows = [{"memory_taken_bytes": (300 if i < 5 else 1920) * MIB, "arrivals": 5} for i in range(10)]
    _, views, _ = played(made(rows, limits=Limits(memory_available_bytes=64 * MIB)))
    calm, short = (views[i].ladders[0].seen.work_mean_s or 0.0 for i in (3, 7))
    assert short == pytest.approx(3 * calm, rel=0.2)
    assert (views[3].machine.memory_pressure, views[7].machine.memory_pressure) == (0.0, 0.3)


def test_a_lost_accelerator_takes_its_rungs_with_it() -> None:
    rungs = (model("top", accelerator="npu", load_s=0.4), BIG, SMALL)
    rows = [{"lost": ("npu",) if 5 <= i < 10 else ()} for i in range(20)]
    periods, views, answers = played(made(rows, rungs=rungs), {7: "top", 12: "top"})
    assert answers[0] == "accelerator npu is not there"
    assert answers[1] == ""
    assert [p.rung for p in periods[5:13]] == ["big"] * 8
    assert periods[5].refused > 0, "until the next rung is open nobody answers"
    lost = views[6].ladders[0].rungs[0]
    assert not lost.usable
    assert "npu" in lost.error
    # Loading takes 3 x 0.4 s now.
    assert [p.rung for p in periods[13:16]] == ["big", "top", "top"]


def test_an_unknown_rung_and_a_second_switch_are_refused() -> None:
    trace = made([{}] * 4, rungs=(SMALL, model("slow", load_s=9.0)))
    plant = Plant(trace, draw(trace))
    plant.advance(0)
    assert "none" in plant.switch("none")
    assert plant.switch("slow") == ""
    assert "on its way" in plant.switch("small")
    assert plant.switches == 1


def test_a_periods_cap_is_the_views_limit() -> None:
    _, views, _ = played(made([{"power_cap_w": 7.5}, {}], limits=Limits(deadline_s=0.02, power_w=9.0)))
    assert [view.ladders[0].limits.power_w for view in views] == [7.5, 9.0]
    assert views[0].ladders[0].limits.deadline_s == 0.02


def test_idle_periods_have_no_figures_and_no_zeros() -> None:
    _, views, _ = played(made([{"arrivals": 0}] * 3))
    seen = views[-1].ladders[0].seen
    assert (seen.answers, seen.arrivals_per_s) == (0, 0.0)
    assert (seen.work_mean_s, seen.late, seen.p95_s) == (None, None, None)
