"""Arrivals that come one after the other, as a camera's do, hardly queue; those at random do."""

import random
from collections.abc import Sequence

import pytest

from flyball.config import Governor as Rules
from flyball.governor.policy import decide
from flyball.governor.state import State
from flyball.governor.values import LadderView, Limits, Rung, Seen, View

RUNGS = (
    Rung(name="large", accuracy=0.95, resident=True, work_s=0.015, spread=0.05),
    Rung(name="small", accuracy=0.90, resident=True, work_s=0.002, spread=0.05),
)
RATE = 40.0


def dispersion_after(counts: Sequence[float]) -> float:
    return looked_at(counts)[1].of("x").dispersion


def predicted_late(counts: Sequence[float]) -> float:
    return looked_at(counts)[0]


def looked_at(counts: Sequence[float]) -> tuple[float, State]:
    state, late = State(), 0.0
    for second, count in enumerate(counts):
        seen = Seen(arrivals_per_s=count, answers=int(count), work_mean_s=0.015, work_std_s=0.00075)
        view = LadderView(name="x", active="large", rungs=RUNGS, limits=Limits(deadline_s=0.04), seen=seen)
        (decision,), state = decide(
            View(now_s=float(second), wall_s=1e9, ladders=(view,)), Rules(mode="observe"), state
        )
        late = decision.candidates[0].predicted_late or 0.0
    return late, state


def test_even_arrivals_are_expected_to_queue_less_than_random_ones() -> None:
    dice = random.Random(1)
    at_random = [sum(dice.random() < RATE / 1000 for _ in range(1000)) for _ in range(60)]
    even = [RATE + (second % 3 == 0) - (second % 3 == 1) for second in range(60)]
    assert predicted_late(at_random) > 0.05
    assert predicted_late(even) < 0.01


def test_until_it_is_known_arrivals_are_taken_to_be_random() -> None:
    assert predicted_late([RATE]) > 0.05


def test_a_pace_that_is_over_is_forgotten() -> None:
    """A tenth of it would look like chance, and pass for a load for half a minute."""
    _, state = looked_at([300.0, 310.0, 305.0, 120.0, *[RATE] * 4])
    assert state.of("x").arrivals_per_s == pytest.approx(RATE, rel=0.05)


def test_one_odd_count_of_an_even_stream_does_not_make_it_a_random_one() -> None:
    """The sender was held up once, by whatever came beside it."""
    assert predicted_late([*[RATE] * 40, RATE - 16.0, *[RATE] * 3]) < 0.01


def test_a_stream_that_turns_from_even_to_random_is_found_out() -> None:
    dice = random.Random(2)
    at_random = [sum(dice.random() < RATE / 1000 for _ in range(1000)) for _ in range(120)]
    assert predicted_late([*[RATE] * 60, *at_random]) > 0.04


def test_batches_are_no_even_stream() -> None:
    """Two silent seconds after each are like one another, and no sign of evenness."""
    assert predicted_late([0.0, 0.0, 0.0, 2 * RATE] * 10 + [RATE]) > 0.03


def test_silence_says_nothing_of_what_comes_after_it() -> None:
    assert predicted_late([0.0] * 60 + [RATE]) > 0.05


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_a_few_requests_at_random_are_not_taken_for_even_ones(rate: float) -> None:
    dice = random.Random(3)
    own = dispersion_after([float(sum(dice.random() < rate / 1000 for _ in range(1000))) for _ in range(600)])
    assert own > 0.7
