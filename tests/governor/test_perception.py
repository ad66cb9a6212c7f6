"""What a look teaches while a load comes or goes: answers feel it before the tasks of a second tell of it."""

import msgspec
import pytest

from flyball.config import Governor as Rules
from flyball.governor import estimator
from flyball.governor.policy import decide
from flyball.governor.state import LadderState, Left, State
from flyball.governor.values import LadderView, Limits, Machine, Rung, Seen, View
from flyball.ports import Decision

WORK_S = 0.012
RUNGS = (Rung(name="large", work_s=WORK_S, spread=0.05), Rung(name="small", work_s=0.002, spread=0.05))
RULES = Rules(mode="observe")

# Others' tasks per processor, and the work in times of the profiled one; None while the rung is being changed.
Look = tuple[float, float | None]


def after(
    *looks: Look, overhead_s: float = 0.0, rate: float = 20.0, old_p50s: int = 0, period_s: float = 1.0
) -> tuple[LadderState, State]:
    """One a period, at the large rung."""
    state, rules = State(), msgspec.structs.replace(RULES, period_s=period_s)
    for number, (contention, factor) in enumerate(looks):
        now_s, machine = 1000.0 + number * period_s, Machine(cpus=2, contention=contention)
        if factor is None:
            _, state = decide(View(now_s=now_s, wall_s=0.0, machine=machine, ladders=()), rules, state)
            continue
        work_s = WORK_S * factor
        earlier = (looks[max(0, number - old_p50s)][1] or factor) * WORK_S  # the window's answers are older
        seen = Seen(
            arrivals_per_s=rate,
            answers=20,
            work_mean_s=work_s,
            work_std_s=0.05 * work_s,
            p50_s=max(work_s, earlier) + overhead_s,
        )
        ladder = LadderView(name="x", active="large", rungs=RUNGS, seen=seen, limits=Limits(deadline_s=0.03))
        _, state = decide(View(now_s=now_s, wall_s=0.0, machine=machine, ladders=(ladder,)), rules, state)
    return state.of("x"), state


def factor(own: LadderState, contention: float) -> float:
    return estimator.predict(own.slow["large@cpu"], WORK_S, contention, 1060.0)[0]


CALM: list[Look] = [(0.0, 1.0)] * 20
LOADED: list[Look] = [(4.0, 4.0)] * 20


def test_what_a_load_did_before_it_was_counted_is_not_how_the_rung_runs_at_rest() -> None:
    own, _ = after(*CALM, (0.0, 3.0), (4.0, 4.0))
    assert factor(own, 0.0) == pytest.approx(1.0, abs=0.05)
    own, _ = after(*CALM, (0.0, 3.0), *LOADED)
    assert factor(own, 0.0) == pytest.approx(1.0, abs=0.05)
    assert factor(own, 4.0) == pytest.approx(4.0, rel=0.1)


def test_what_a_load_did_is_also_taken_back_after_the_step_down_that_it_led_to() -> None:
    """The rung is being changed while the load is counted: nobody looks at the ladder meanwhile."""
    own, state = after(*CALM, (0.0, 3.0), (0.0, 3.0))
    assert factor(own, 0.0) > 1.5
    for second, contention in enumerate((2.8, 4.0, 4.0, 4.0)):
        machine = Machine(cpus=2, contention=contention)
        _, state = decide(View(now_s=1022.0 + second, wall_s=0.0, machine=machine, ladders=()), RULES, state)
    small = LadderView(name="x", active="small", rungs=RUNGS, limits=Limits(deadline_s=0.03))
    machine = Machine(cpus=2, contention=4.0)
    _, state = decide(View(now_s=1026.0, wall_s=0.0, machine=machine, ladders=(small,)), RULES, state)
    assert factor(state.of("x"), 0.0) == pytest.approx(1.0, abs=0.1)


def test_several_looks_that_felt_a_load_before_it_was_counted_are_all_taken_back() -> None:
    """As recorded beside six burners on two processors, at two looks a second: the first answered in part before."""
    onset: list[Look] = [(0.0, 2.1), (0.63, 4.5), (1.62, None), (3.93, None)]
    felt, _ = after(*CALM, *onset[:2], period_s=0.5)
    assert factor(felt, 0.0) > 1.3
    own, _ = after(*CALM, *onset, period_s=0.5)
    assert factor(own, 0.0) == pytest.approx(1.0, abs=0.05)
    own, _ = after(*CALM, (0.0, 2.1), (0.0, 4.5), (0.0, 1.1), (3.93, 4.0), period_s=0.5)
    assert factor(own, 0.0) == pytest.approx(1.0, abs=0.05), "a few answers that no burner interrupted say nothing"


def test_a_count_that_wavers_while_nobody_looks_at_the_ladder_takes_it_back_all_the_same() -> None:
    own, _ = after(*CALM, (0.0, 3.0), (0.2, 3.0), (1.1, None), (3.84, None), (2.71, None), (2.7, None), period_s=0.5)
    assert factor(own, 0.0) == pytest.approx(1.0, abs=0.05)


def test_one_odd_look_long_before_a_load_does_not_keep_what_the_load_did() -> None:
    own, _ = after(*CALM, (0.0, 1.4), (0.0, 1.0), (0.0, 1.0), (0.0, 3.0), (0.0, 3.0), (3.9, 4.0), period_s=0.5)
    assert factor(own, 0.0) == pytest.approx(1.05, abs=0.1)


@pytest.mark.parametrize(
    ("period_s", "looks"), [(0.1, 21), (0.5, 4), (1.0, 2), (1.5, 2), (5.0, 1), (10.0, 1), (60.0, 0)]
)
def test_a_load_explains_what_was_felt_from_when_it_may_have_come(period_s: float, looks: int) -> None:
    """At so many looks before the one at which it is counted."""

    def learnt(age: int) -> float:
        absent: list[Look] = [(0.0, None)] * (age - 1)
        return factor(after(*CALM, (0.0, 3.0), *absent, (4.0, None), period_s=period_s)[0], 0.0)

    calm, felt = (factor(after(*CALM, *more, period_s=period_s)[0], 0.0) for more in ([], [(0.0, 3.0)]))
    assert felt > calm + 0.04
    assert [learnt(age) for age in range(1, looks + 2)] == [calm] * looks + [felt]


@pytest.mark.parametrize("period_s", [0.1, 0.5, 1.0, 5.0])
def test_a_rung_that_has_been_slower_for_long_stays_so_when_a_load_comes(period_s: float) -> None:
    slow: list[Look] = [(0.0, 3.0)] * (3 + int(2.1 / period_s))
    felt, _ = after(*CALM, *slow, period_s=period_s)
    own, _ = after(*CALM, *slow, (4.0, None), period_s=period_s)
    assert factor(own, 0.0) == factor(felt, 0.0) > 2.0


def test_so_does_one_that_answers_seldom() -> None:
    seldom: list[Look] = [(0.0, 3.0), (0.0, None), (0.0, None)] * 2
    felt, _ = after(*CALM, *seldom)
    own, _ = after(*CALM, *seldom[:-2], (4.0, None))
    assert factor(own, 0.0) == factor(felt, 0.0) > 1.5


def test_of_two_rungs_each_gets_back_its_own() -> None:
    own, state = after(*CALM, (0.0, 3.0))
    (large,) = own.lessons[-1:]
    small = estimator.SlowDown(work_s=0.002, levels=(estimator.Level(1.2, 0.01), *[None] * 5))
    felt = msgspec.structs.replace(large, rung="small@cpu", before=small, work_s=0.002, factor=5.0, at_s=1019.5)
    slow = {**own.slow, "small@cpu": estimator.SlowDown(work_s=0.002, levels=(estimator.Level(4.0, 0.01), *[None] * 5))}
    state = state.having("x", msgspec.structs.replace(own, lessons=(*own.lessons[:-1], felt, large), slow=slow))
    view = View(now_s=1021.0, wall_s=0.0, machine=Machine(cpus=2, contention=4.0), ladders=())
    then = decide(view, RULES, state)[1].of("x")
    assert then.slow == {"large@cpu": large.before, "small@cpu": small}
    assert then.lessons == ()


def test_what_is_a_third_more_is_off() -> None:
    calm, felt, own = (after(*CALM, *more)[0] for more in ([], [(0.0, 1.33)], [(0.0, 1.33), (4.0, None)]))
    assert factor(own, 0.0) == factor(calm, 0.0) < factor(felt, 0.0)


def test_a_breach_before_the_load_was_counted_does_not_keep_the_rung_shut() -> None:
    own, state = after(*CALM, (0.0, 3.0))
    broke = Left(cause="latency", at_s=1020.1, wait_s=60.0, failures=1)
    kept = {
        "heat": msgspec.structs.replace(broke, cause="temperature"),
        "small": broke,  # of which nothing was learnt that has to be taken back
    }
    was = {"large": broke, **kept}
    state = state.having("x", msgspec.structs.replace(own, left=was))
    for contention, left in ((0.0, was), (4.0, kept)):
        view = View(now_s=1021.0, wall_s=0.0, machine=Machine(cpus=2, contention=contention), ladders=())
        assert decide(view, RULES, state)[1].of("x").left == left


@pytest.mark.parametrize(
    ("slow_s", "left"),
    [
        (1, Left(cause="latency", at_s=1010.0, wait_s=60.0)),  # long before
        (1, Left(cause="memory", at_s=1020.1, wait_s=60.0)),
        (4, Left(cause="latency", at_s=1023.1, wait_s=60.0)),  # the rung was slow already
    ],
)
def test_a_breach_that_no_load_explains_keeps_the_rung_shut(slow_s: int, left: Left) -> None:
    own, state = after(*CALM, *[(0.0, 3.0)] * slow_s)
    state = state.having("x", msgspec.structs.replace(own, left={"large": left}))
    view = View(now_s=1020.0 + slow_s, wall_s=0.0, machine=Machine(cpus=2, contention=4.0), ladders=())
    assert decide(view, RULES, state)[1].of("x").left == {"large": left}


def test_a_load_that_goes_excuses_no_breach() -> None:
    own, state = after(*LOADED, (4.0, 1.0))
    left = {"large": Left(cause="latency", at_s=1020.1, wait_s=60.0)}
    state = state.having("x", msgspec.structs.replace(own, left=left))
    view = View(now_s=1021.0, wall_s=0.0, machine=Machine(cpus=2, contention=0.0), ladders=())
    then = decide(view, RULES, state)[1].of("x")
    assert factor(then, 4.0) > factor(own, 4.0), "that it was quick is taken back"
    assert then.left == left


def test_a_mark_that_the_breach_took_the_place_of_is_back() -> None:
    """The whole way: a climb is taken back for what a load does that nobody has counted yet."""
    own, state = after(*CALM, (0.0, 3.0))
    former = Left(cause="memory", at_s=900.0, wait_s=600.0, failures=5)
    climbed = msgspec.structs.replace(own, entered=True, since_s=1015.0, left={"large": former})
    down = Decision(ladder="x", t_s=1020.0, wall_s=0.0, action="down", source="large", target="small", reason="",
                    binding="latency")  # fmt: skip
    state = state.having("x", climbed).moved(down, 1020.2, RULES)
    mark = state.of("x").left["large"]
    assert (mark.cause, mark.failures, mark.before) == ("latency", 6, former)
    view = View(now_s=1021.0, wall_s=0.0, machine=Machine(cpus=2, contention=4.0), ladders=())
    assert decide(view, RULES, state)[1].of("x").left == {"large": former}


def test_what_was_learnt_before_a_load_went_is_not_taken_back_when_another_comes() -> None:
    """Nobody looked at the ladder when it went."""
    felt, _ = after(*LOADED, (4.0, 8.0))
    own, _ = after(*LOADED, (4.0, 8.0), (0.0, None), (4.0, None))
    assert factor(own, 4.0) == factor(felt, 4.0) > 4.1


def test_a_rung_of_which_nothing_was_known_is_unknown_again() -> None:
    own, _ = after((0.0, None), (0.0, 3.0), (4.0, None))
    assert own.slow == {}


def test_what_ran_at_rest_before_that_was_counted_is_not_how_the_rung_runs_beside_a_load() -> None:
    own, _ = after(*LOADED, (4.0, 1.0), (0.0, 1.0))
    assert factor(own, 4.0) == pytest.approx(4.0, rel=0.1)


def test_a_rung_that_got_slower_while_nothing_was_counted_is_slower() -> None:
    own, _ = after(*CALM, (0.0, 3.0), (0.0, 3.0), (0.0, 3.0), (4.0, 4.0))
    assert factor(own, 0.0) > 1.8, "for longer than a load takes to be counted"


def test_a_load_that_would_have_made_it_slower_does_not_void_what_was_quick() -> None:
    own, _ = after(*[(0.0, 2.0)] * 20, (0.0, 1.0), (0.0, 1.0), (4.0, 4.0))
    assert factor(own, 0.0) < 1.5


def test_handing_over_beside_a_load_is_not_how_it_is_handed_over_at_rest() -> None:
    _, state = after(*[(4.0, 1.0)] * 40, (0.0, 1.0), (0.0, 1.0), overhead_s=0.006)
    own = state.of("x")
    assert own.overhead_s(4.0) > 0.005
    assert own.overhead_s(0.0) < 0.0015, "two looks of it, and not the forty before"


def test_answers_from_beside_a_load_that_are_still_in_the_window_are_no_handing_over() -> None:
    own, _ = after(*LOADED, *CALM[:8], old_p50s=5)
    assert own.overhead_s(0.0) < 0.001


def test_handing_over_beside_a_load_takes_no_less_than_at_rest() -> None:
    own, _ = after(*[(0.0, 1.0)] * 40, overhead_s=0.008)
    assert own.overhead_s(4.0) >= own.overhead_s(0.0) > 0.005


def test_beside_a_load_that_comes_and_goes_from_look_to_look_every_lesson_counts() -> None:
    own, _ = after(*[(0.0, 1.0), (4.0, 4.0)] * 20, *[(0.0, 2.0), (4.0, 4.0)] * 20)
    assert factor(own, 0.0) == pytest.approx(2.0, rel=0.25)


def test_a_rung_that_is_a_little_slower_is_not_excused_by_a_load_that_comes() -> None:
    own, _ = after(*CALM, (0.0, 1.15), (4.0, 4.0))
    before, _ = after(*CALM, (0.0, 1.15))
    assert factor(own, 0.0) == pytest.approx(factor(before, 0.0), abs=1e-3)
