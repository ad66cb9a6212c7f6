"""What a look teaches while a load comes or goes: answers feel it before the tasks of a second tell of it."""

import pytest

from flyball.config import Governor as Rules
from flyball.governor import estimator
from flyball.governor.policy import decide
from flyball.governor.state import LadderState, State
from flyball.governor.values import LadderView, Limits, Machine, Rung, Seen, View

WORK_S = 0.012
RUNGS = (Rung(name="large", work_s=WORK_S, spread=0.05), Rung(name="small", work_s=0.002, spread=0.05))
RULES = Rules(mode="observe")

Look = tuple[float, float]  # others' tasks per processor, and the work in times of the profiled one


def after(*looks: Look, overhead_s: float = 0.0, rate: float = 20.0, old_p50s: int = 0) -> tuple[LadderState, State]:
    """One a second, at the large rung."""
    state = State()
    for second, (contention, factor) in enumerate(looks):
        work_s = WORK_S * factor
        earlier = looks[max(0, second - old_p50s)][1] * WORK_S  # the window's answers are older than the newest
        seen = Seen(
            arrivals_per_s=rate,
            answers=20,
            work_mean_s=work_s,
            work_std_s=0.05 * work_s,
            p50_s=max(work_s, earlier) + overhead_s,
        )
        ladder = LadderView(name="x", active="large", rungs=RUNGS, seen=seen, limits=Limits(deadline_s=0.03))
        view = View(
            now_s=1000.0 + second, wall_s=0.0, machine=Machine(cpus=2, contention=contention), ladders=(ladder,)
        )
        _, state = decide(view, RULES, state)
    return state.of("x"), state


def factor(own: LadderState, contention: float) -> float:
    return estimator.predict(own.slow["large@cpu"], WORK_S, contention, 1060.0)[0]


CALM, LOADED = [(0.0, 1.0)] * 20, [(4.0, 4.0)] * 20


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


def test_what_ran_at_rest_before_that_was_counted_is_not_how_the_rung_runs_beside_a_load() -> None:
    own, _ = after(*LOADED, (4.0, 1.0), (0.0, 1.0))
    assert factor(own, 4.0) == pytest.approx(4.0, rel=0.1)


def test_a_rung_that_got_slower_while_nothing_was_counted_is_slower() -> None:
    own, _ = after(*CALM, (0.0, 3.0), (0.0, 3.0), (0.0, 3.0), (4.0, 4.0))
    assert factor(own, 0.0) > 1.8, "one look of three is taken back, not what two have taught"


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
