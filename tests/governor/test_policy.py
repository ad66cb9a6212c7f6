"""The law in scenarios: what it does, when, and what it says."""

import itertools
from dataclasses import replace

import msgspec
import pytest
from simulated_plant import LADDER, NAME, Model, Plant

from flyball import config
from flyball.config import Config
from flyball.config import Governor as Rules
from flyball.governor.constraints import check
from flyball.governor.policy import decide
from flyball.governor.state import CLIMBS_PER_HOUR, State
from flyball.governor.values import MIB, LadderView, Limits, Machine, Rung, Seen, View, limits_of

TWO = (LADDER[0], LADDER[2])


def contended(models: tuple[Model, ...] = LADDER, seconds: float = 30, **changes: object) -> Plant:
    """After half a minute of calm and that long of burners."""
    plant = Plant(models=models, **changes)  # type: ignore[arg-type]
    plant.run(30)
    plant.contended = True
    plant.run(seconds)
    return plant


# ------------------------------------------------------------------------------------------------ down


def test_stays_at_the_best_rung_while_the_limits_hold() -> None:
    plant = Plant()
    assert plant.moves(300) == []
    assert (plant.log[-1].reason, plant.log[-1].binding) == ("the limits hold at the best rung", "")


def test_what_is_certain_is_not_waited_for() -> None:
    plant = Plant()
    plant.run(30)
    plant.contended = True
    (change,) = plant.run(5)
    assert change.t_s == 31  # before a single late answer was measured for a whole window
    assert (change.action, change.source, change.target, change.binding) == ("down", "a", "c", "latency")
    assert change.reason.startswith("latency: 100% predicted later than 18.0 ms, 5% allowed; c is predicted to take ")
    by_name = {c.rung: c for c in change.candidates}
    assert by_name["a"].ruled_out_by == "latency: 100% predicted later than 18.0 ms, 5% allowed"
    assert by_name["b"].ruled_out_by.startswith("latency: ")  # it never ran beside others: a guess is a wide one
    assert change.inputs["limit_deadline_s"] == 0.018


def test_a_breach_that_no_reading_foretells_is_seen_in_two_of_three_periods() -> None:
    plant = Plant()
    plant.run(30)
    plant.stretch = 5.0
    (change, *_) = plant.run(5)
    assert change.t_s == 32
    assert (change.source, change.target, change.binding) == ("a", "b", "latency")
    assert change.reason.startswith(
        "latency p95 66.0 ms, 100.0% of 25 later than 18.0 ms, 5.0% allowed in 2 of the last 3 periods; b is predicted"
    )


def test_one_broken_period_of_three_is_not_enough() -> None:
    plant = Plant()
    plant.run(30)
    plant.stretch = 2.0
    assert "in 1 of the last 3 periods; 2 make it step down" in plant.step().reason
    plant.stretch = 1.0
    assert plant.moves(30) == []


def test_it_jumps_to_the_best_rung_that_is_predicted_to_fit() -> None:
    plant = Plant(limits=Limits(deadline_s=0.008))
    plant.contended = True
    assert plant.moves(5) == [("a", "c")]  # b would take 11 ms


def test_a_rung_that_is_slower_here_is_passed_over() -> None:
    slow_int8 = (LADDER[0], replace(LADDER[1], calm_s=0.020), LADDER[2])
    plant = contended(slow_int8)
    assert plant.active == "c"
    plant.contended = False
    assert plant.moves(60) == [("c", "a")]


def test_without_a_profile_the_next_rung_is_tried_and_the_one_that_failed_left_alone() -> None:
    plant = Plant(profiled=False, contended=True, limits=Limits(deadline_s=0.014))
    (change, *_) = plant.run(10)
    assert (change.source, change.target) == ("a", "b")
    assert change.reason.endswith("b, whose latency here is not known yet")
    assert change.unforeseen
    assert plant.moves(20) == []
    assert "a is next: latency: left" in plant.log[-1].reason
    ups = [d for d in plant.run(3600) if d.action == "up"]
    assert 0 < len(ups) <= 10  # it is tried again, less and less often


def test_where_nothing_fits_it_goes_to_the_quickest_and_says_so() -> None:
    plant = Plant(limits=Limits(deadline_s=0.001))
    plant.run(60)
    assert plant.active == "c"
    assert plant.moves(3600) == []
    assert plant.log[-1].reason.endswith("no other rung that is allowed would ease that")
    assert plant.log[-1].binding == "latency"


def test_where_nothing_fits_the_least_of_the_evils_is_taken() -> None:
    plant = Plant(limits=Limits(deadline_s=0.00155))  # c misses it now and then, the others always
    (change,) = plant.run(60)
    assert (change.target, change.binding) == ("c", "latency")
    assert change.reason.endswith("the least of the evils")
    assert plant.moves(600) == []


def test_one_model_alone_has_nowhere_to_go() -> None:
    plant = Plant(models=(Model(name="a", calm_s=0.5),))
    assert plant.moves(60) == []
    assert plant.log[-1].reason.endswith("no other rung that is allowed would ease that")


# ------------------------------------------------------------------------------------------------ up


def test_climbs_soon_after_the_load_has_gone() -> None:
    plant = contended(TWO)
    plant.contended = False
    ended_s = plant.now_s
    (back,) = plant.run(60)
    assert (back.action, back.target, back.binding) == ("up", "a", "headroom")
    assert back.t_s - ended_s <= 25  # the count of tasks is smoothed, and what is left of it must fit with headroom
    assert "safe in the last 3 periods" in back.reason
    assert plant.moves(600) == []


def test_up_takes_three_safe_periods_and_a_dwell() -> None:
    plant = Plant(active="c")
    assert plant.moves(5) == []
    assert "safe in 1 of 3 periods" in plant.log[0].reason
    assert plant.log[3].binding == "dwell"
    assert plant.moves(1) == [("c", "a")]  # at once to the best, not by way of b


def test_a_hidden_load_that_ends_is_found_out() -> None:
    plant = Plant(models=TWO, contention_known=False)
    plant.run(30)
    plant.contended = True
    assert plant.moves(60) == [("a", "c")]
    plant.contended = False
    (back,) = plant.run(900)  # nothing but time speaks for it
    assert back.target == "a"
    assert plant.moves(600) == []


def test_tries_under_a_hidden_load_become_fewer() -> None:
    plant = Plant(models=TWO, contention_known=False)
    plant.contended = True
    ups = [d.t_s for d in plant.run(4 * 3600) if d.action == "up"]
    waits = [b - a for a, b in itertools.pairwise(ups)]
    assert 3 <= len(ups) <= 40
    assert waits[-1] >= plant.rules.climb_backoff_max_s > waits[0]


@pytest.mark.parametrize(
    ("rate", "late", "stretch", "expected"),
    [
        (45.0, 0.0, 1.0, []),  # half of its time busy: a camera's pictures do not wait for each other, visitors do
        (80.0, 0.02, 1.0, []),
        (45.0, 0.15, 1.0, [("a", "b")]),  # they do
        (95.0, 0.0, 1.0, [("a", "b")]),  # more than can be answered
        (45.0, 0.0, 1.7, [("a", "b")]),  # late without a wait
    ],
)
def test_that_requests_will_wait_for_each_other_is_believed_when_answers_say_so(
    rate: float, late: float, stretch: float, expected: list[tuple[str, str]]
) -> None:
    plant = Plant(rate=rate, late=late, stretch=stretch)
    assert plant.moves(5) == expected
    if not expected:
        assert "predicted late as requests wait for each other; no answer tells yet" in plant.log[0].reason
        assert plant.log[0].binding == "latency"


def test_a_breach_that_answers_prove_after_it_was_predicted_is_no_surprise() -> None:
    plant = Plant(rate=80.0, late=0.063)
    first, second = plant.run(20)[:2]
    assert [(d.source, d.target, d.unforeseen) for d in (first, second)] == [("a", "b", False), ("b", "c", True)]
    assert all(d.reason.startswith("6.3% of the last 320 answers were late") for d in (first, second))


def test_contention_that_is_not_counted_for_a_while_has_not_gone() -> None:
    plant = contended(TWO)
    assert plant.active == "c"
    plant.contention_known = False
    assert plant.moves(55) == []
    plant.contention_known = True
    assert plant.moves(300) == []


def test_an_opening_that_costs_more_than_it_brings_is_not_worth_it() -> None:
    equals = (replace(LADDER[0], accuracy=0.81), LADDER[2])
    plant = Plant(models=equals, active="c", load_s={"a": 6.0})
    assert plant.moves(120) == []
    assert plant.log[-1].binding == "cost"
    assert plant.moves(3600) == [("c", "a")]  # in the long run it is


@pytest.mark.parametrize(("mode", "best"), [("energy-first", "c"), ("throughput-first", "c"), ("accuracy-first", "a")])
def test_the_mode_says_what_is_best(mode: str, best: str) -> None:
    plant = Plant(active="b", rules=Rules(mode=mode))  # type: ignore[arg-type]
    assert plant.moves(120) == [("b", best)]
    assert plant.log[-1].reason == "the limits hold at the best rung"


def test_the_thriftiest_rung_that_is_late_is_left_and_not_taken_again_and_again() -> None:
    slow_but_thrifty = (
        Model(name="quick", calm_s=0.005, accuracy=0.9, joules=1.0),
        Model(name="thrifty", calm_s=0.012, accuracy=0.8, joules=0.1),
    )
    plant = Plant(models=slow_but_thrifty, active="quick", rules=Rules(mode="energy-first"))
    plant.stretch = 1.6  # what no count of tasks tells: thrifty takes 19 ms
    changes = plant.run(3600)
    taken = [d for d in changes if d.target == "thrifty"]
    assert 1 <= len(taken) <= CLIMBS_PER_HOUR / 2
    assert len(plant.own.climbs_s) == len(taken)
    assert "thrifty" in plant.own.left


def test_mode_pinned_leaves_every_rung_where_it_is() -> None:
    plant = Plant(active="b", rules=Rules(mode="pinned"))
    plant.contended = True
    assert plant.moves(60) == []
    assert plant.log[-1].binding in ("pin", "latency")


# ------------------------------------------------------------------------------------------------ what may be chosen


def test_never_below_the_accuracy_floor() -> None:
    plant = Plant()
    plant.floor(0.85)
    plant.contended = True
    assert plant.moves(60) == [("a", "b")]
    plant.limits = Limits(deadline_s=0.006, accuracy=0.85)
    assert plant.moves(60) == []
    stuck = plant.log[-1]
    assert stuck.reason.endswith("no other rung that is allowed would ease that")
    assert stuck.candidates[2].ruled_out_by == "accuracy: 0.8 is below the floor 0.85"


def test_leaves_a_rung_below_the_floor_that_it_finds_active() -> None:
    plant = Plant(active="c")
    plant.floor(0.85)
    (first, *_) = plant.run(30)
    assert (first.action, first.target, first.binding) == ("up", "a", "accuracy")


def test_unusable_rungs_are_passed_over() -> None:
    plant = Plant(unusable=frozenset("b"))
    plant.contended = True
    (change,) = plant.run(30)
    assert change.target == "c"
    assert change.candidates[1].ruled_out_by == "it broke"


def test_a_failed_rung_is_tried_again_after_a_while() -> None:
    plant = Plant(active="c", failed=frozenset("b"), unusable=frozenset("a"))
    assert plant.moves(plant.rules.climb_backoff_s - 1) == []
    assert "it failed (it broke); tried again in" in plant.log[-1].candidates[1].ruled_out_by
    assert plant.moves(30) == [("c", "b")]


def test_a_refused_switch_is_left_alone_for_longer_every_time() -> None:
    plant = Plant(active="c", unusable=frozenset("a"), refusing=frozenset("b"))
    tries = [d.t_s for d in plant.run(2000) if d.action == "up"]
    waits = [b - a for a, b in itertools.pairwise(tries)]
    assert len(tries) > 3
    assert waits == sorted(waits)
    assert waits[1] > waits[0] * 1.5


def test_when_the_way_down_is_refused_the_next_rung_is_taken() -> None:
    plant = Plant(refusing=frozenset("c"))
    plant.run(30)
    plant.contended = True
    assert plant.moves(10) == [("a", "c"), ("a", "b")]


def test_a_rung_that_the_engine_asks_to_leave_alone_is_passed_over() -> None:
    plant = Plant(active="c", unusable=frozenset("a"), leave_alone_s={"b": 40.0})
    assert plant.moves(60) == []
    assert plant.log[-1].candidates[1].ruled_out_by == (
        "it failed (no reason given); the engine asks to leave it alone for another 40 s"
    )
    plant.leave_alone_s.clear()
    assert plant.moves(60) == [("c", "b")]


def test_no_active_rung_is_explained() -> None:
    plant = Plant()
    view = plant.view()
    bare = msgspec.structs.replace(view.ladders[0], active=None, error="no rung could be opened")
    (decision,), state = decide(msgspec.structs.replace(view, ladders=(bare,)), plant.rules, plant.state)
    assert decision.reason == "no rung is active: no rung could be opened"
    assert (decision.source, decision.target, state.of(NAME).active) == ("", "", "")


# ------------------------------------------------------------------------------------------------ heat and memory


@pytest.mark.parametrize("power_known", [True, False])
def test_heat_is_met_before_the_limit_and_climbs_come_to_rest(power_known: bool) -> None:
    plant = Plant(limits=Limits(temperature_c=80.0), temp_c=70.0, power_known=power_known)  # a settles at 85 C
    down, *_ = plant.run(120)
    assert (down.source, down.binding) == ("a", "temperature")
    assert "°C predicted (x/cpu), limit 80 °C" in down.reason
    hour = plant.run(3600)
    assert len(hour) <= 20
    late = plant.run(3600)
    assert len([d for d in late if d.action == "up"]) <= 5  # 15 minutes apart at last
    assert max(d.inputs["temperature_c"] for d in plant.log) < 80


def test_where_the_power_is_known_heat_is_not_tried_out_twice() -> None:
    plant = Plant(active="c", limits=Limits(temperature_c=80.0), temp_c=45.0)
    plant.run(1800)
    assert plant.active == "b"
    assert plant.moves(3600) == []
    candidate = plant.log[-1].candidates[0]
    assert candidate.predicted_temperature_c == pytest.approx(85.0, abs=4.0)


def test_it_climbs_again_when_the_surroundings_have_cooled() -> None:
    plant = Plant(active="c", limits=Limits(temperature_c=80.0), temp_c=45.0)
    plant.run(1800)
    plant.ambient_c = 5.0
    assert plant.moves(1800) == [("b", "a")]


def test_short_memory_steps_down_to_a_smaller_rung_at_once() -> None:
    bigger_b = (LADDER[0], replace(LADDER[1], rss_mib=200.0), LADDER[2])
    plant = Plant(models=bigger_b, limits=Limits(memory_available_bytes=64 * MIB), memory_mib=400.0)
    plant.run(20)
    plant.memory_mib = 50.0
    (change,) = plant.run(5)
    assert (change.target, change.binding) == ("c", "memory")
    assert change.t_s == 22
    assert change.reason.startswith("available memory 50 MiB under the limit 64 MiB in 2 of the last 3 periods")
    plant.memory_mib = 100.0
    assert plant.moves(200) == []
    assert plant.log[-1].candidates[0].ruled_out_by == "memory: needs 120 MiB of 100 MiB that are available"
    plant.memory_mib = 400.0
    assert plant.moves(200) == [("c", "a")]


def test_a_rung_on_standby_takes_no_more_memory() -> None:
    plant = Plant(models=LADDER[:2], active="b", limits=Limits(memory_available_bytes=64 * MIB), memory_mib=100.0)
    assert plant.moves(60) == []
    plant.standby = frozenset("a")
    assert plant.moves(60) == [("b", "a")]


# ------------------------------------------------------------------------------------------------ power and energy


@pytest.mark.parametrize(
    "limits", [Limits(power_w=4.5), Limits(energy_j_per_h=4.5 * 3600), Limits(power_w=4.5, energy_j_per_h=1e9)]
)
def test_a_power_cap_chooses_the_best_rung_under_it(limits: Limits) -> None:
    plant = Plant(limits=limits)  # 6, 4 and 2 W
    (change,) = plant.run(60)
    assert (change.target, change.binding) == ("b", "power" if limits.power_w else "energy")
    assert change.candidates[0].predicted_power_w == pytest.approx(6.0, rel=0.1)
    assert plant.moves(600) == []
    plant.limits = Limits()
    assert plant.moves(60) == [("b", "a")]


def test_a_power_cap_without_any_figure_of_energy_is_kept_by_trying() -> None:
    frugal = tuple(replace(m, joules=m.joules) for m in LADDER)
    plant = Plant(models=frugal, limits=Limits(power_w=4.5), profiled=False)
    plant.run(120)
    assert plant.active in ("b", "c")
    assert all(d.binding == "power" for d in plant.log if d.action == "down")


def test_what_is_refused_takes_no_energy() -> None:
    plant = Plant(models=(LADDER[0],), limits=Limits(power_w=20.0))
    plant.run(60)
    view = plant.view()
    ladder = view.ladders[0]
    flooded = msgspec.structs.replace(ladder.seen, arrivals_per_s=500.0, answers_per_s=5.0)
    state = plant.state
    for second in range(60):
        machine = view.machine
        late = msgspec.structs.replace(
            view, now_s=view.now_s + second, machine=machine,
            ladders=(msgspec.structs.replace(ladder, seen=flooded),),
        )  # fmt: skip
        _, state = decide(late, plant.rules, state)
    assert state.base_w == pytest.approx(1.0, abs=0.2)


# ------------------------------------------------------------------------------------------------ calm


def test_never_up_twice_within_the_dwell_time() -> None:
    plant = Plant(models=TWO, rules=Rules(dwell_s=40))
    times = []
    for minute in range(30):
        plant.contended = minute % 2 == 0
        times += [d.t_s for d in plant.run(60)]
    ups = [d.t_s for d in plant.log if d.action == "up"]
    assert len(ups) > 5
    assert all(min((up - t for t in times if t < up), default=40) >= 40 for up in ups)


def test_climbs_are_rationed_by_the_hour() -> None:
    eager = Rules(dwell_s=0, climb_backoff_s=0, climb_backoff_max_s=0, up_windows=1, down_windows=1, of_windows=1)
    plant = Plant(models=TWO, rules=eager)
    for _ in range(1800):
        plant.stretch = 1.0 if plant.active == "c" else 5.0
        plant.contended = False
        plant.state = msgspec.structs.replace(  # a law that learns nothing
            plant.state, ladders={NAME: msgspec.structs.replace(plant.own, slow={}, left={})}
        )
        plant.step()
    assert len([d for d in plant.log if d.action == "up"]) == CLIMBS_PER_HOUR
    assert plant.log[-1].binding == "climbs"


def test_the_boundary_is_no_swing() -> None:
    plant = Plant(models=(LADDER[0], LADDER[1]), limits=Limits(deadline_s=0.0135))  # a: a p95 of 13.2 ms
    assert len(plant.run(3600)) <= 6


# ------------------------------------------------------------------------------------------------ limits


def look(late: float | None, window_late: float | None, answers: int = 100) -> LadderView:
    seen = Seen(late=late, window_late=window_late, window_answers=answers)
    return LadderView(name="x", active=None, rungs=(), seen=seen, limits=Limits(deadline_s=0.018))


def test_a_late_answer_that_still_stands_in_the_window_breaks_nothing() -> None:
    def broken(ladder: LadderView) -> bool | None:
        (found,) = check(Machine(), ladder, Rules(), None)
        return found.broken

    assert broken(look(late=0.0, window_late=0.5)) is False
    assert broken(look(late=0.5, window_late=0.5)) is True
    assert broken(look(late=None, window_late=0.5)) is None
    assert broken(look(late=0.5, window_late=None)) is None


def test_few_answers_must_be_later_than_many_before_that_is_no_chance() -> None:
    def broken(answers: int) -> bool | None:
        (found,) = check(Machine(), look(late=0.1, window_late=0.1, answers=answers), Rules(), None)
        return found.broken

    assert broken(10) is False  # one late answer of ten
    assert broken(1000) is True


def test_limits_of_a_ladder_win_key_by_key() -> None:
    settings = Config(
        governor=Rules(limits=config.Limits(temperature_c=70, latency_p95_ms=100, power_w=7, energy_wh_per_h=2)),
        ladder={
            "x": config.LadderSettings(limits=config.LadderLimits(latency_p95_ms=20, accuracy=0.7)),
            "q": config.LadderSettings(limits=config.LadderLimits(quantile=0.5)),
            "d": config.LadderSettings(limits=config.LadderLimits(deadline_ms=30, quantile=0.99)),
        },
    )
    machine = Limits(temperature_c=70, memory_available_bytes=64 * MIB, power_w=7, energy_j_per_h=7200)
    assert limits_of(settings, "x", 0.8) == msgspec.structs.replace(machine, deadline_s=0.02, accuracy=0.8)
    assert limits_of(settings, "x", 0.6).accuracy == 0.7
    assert limits_of(settings, "y") == msgspec.structs.replace(machine, deadline_s=0.1)
    assert limits_of(settings, "d") == msgspec.structs.replace(machine, deadline_s=0.03, quantile=0.99)
    assert limits_of(settings, "q").quantile == 0.95  # latency_p95_ms says 95 %
    assert State().of("x").active == ""


def test_nothing_climbs_on_a_breach_of_which_nothing_is_known_now() -> None:
    rules = Rules(down_windows=3, of_windows=3, up_windows=1, dwell_s=0.0)
    rungs = (Rung(name="a"), Rung(name="b"))
    late = Seen(arrivals_per_s=5.0, answers=5, late=0.5, window_answers=25, window_late=0.5, p95_s=0.03)
    silent = Seen(arrivals_per_s=0.0, answers=0)
    state, decided = State(), []
    for second, seen in enumerate((late, silent, *(silent,) * 90)):
        ladder = LadderView(name="x", active="b", rungs=rungs, seen=seen, limits=Limits(deadline_s=0.018))
        view = View(now_s=1000.0 + second, wall_s=0.0, machine=Machine(cpus=2), ladders=(ladder,))
        (decision,), state = decide(view, rules, state)
        decided.append(decision)
    assert decided[1].action == "stay"
    assert decided[1].binding == "latency"
    assert "nothing is known of it now" in decided[1].reason
    climbs = [d.t_s for d in decided if d.action == "up"]
    assert climbs, "what was seen is forgotten in the end"
    assert climbs[0] - 1000.0 > 10.0
