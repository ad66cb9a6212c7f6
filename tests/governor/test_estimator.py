"""How much slower a rung runs: learnt level by level, followed through jumps, never an odd number."""

import math
import random
import statistics

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.governor.estimator import (
    LARGEST,
    LEVELS,
    QUICKEST,
    STEEPEST,
    WIDEST,
    Sample,
    SlowDown,
    observe,
    predict,
    spread,
    unseen,
    with_less,
)
from flyball.governor.state import LadderState, State

WORK_S = 0.011


def answers(factor: float) -> Sample:
    """Of ten that hardly scatter."""
    return Sample(factor, 0.05 * factor, 10)


def taught(factor: float, contention: float, samples: int, slow: SlowDown | None = None, at_s: float = 0.0) -> SlowDown:
    slow = slow or SlowDown()
    for second in range(samples):
        slow = observe(slow, WORK_S, contention, answers(factor), at_s + second)
    return slow


def mean(slow: SlowDown | None, contention: float, now_s: float = 30.0, work_s: float = WORK_S) -> float:
    return (unseen(work_s, contention) if slow is None else predict(slow, work_s, contention, now_s))[0]


@pytest.mark.parametrize("contention", LEVELS)
def test_it_learns_what_a_level_costs(contention: float) -> None:
    assert mean(taught(1.7, contention, 30), contention) == pytest.approx(1.7, rel=0.02)


def test_between_two_levels_it_interpolates() -> None:
    slow = taught(3.0, 4.0, 30, taught(2.0, 2.0, 30))
    assert mean(slow, 3.0) == pytest.approx(2.5, rel=0.05)
    assert mean(slow, 2.5) == pytest.approx(2.25, rel=0.05)


def test_a_sample_between_two_levels_teaches_both() -> None:
    slow = taught(4.0, 3.0, 60)
    assert mean(slow, 3.0, 60.0) == pytest.approx(4.0, rel=0.03)
    assert slow.levels[3] is not None
    assert slow.levels[4] is not None
    assert [slow.levels[i] for i in (0, 1, 2, 5)] == [None] * 4


@pytest.mark.parametrize("contention", [0.0, 2.0])
def test_what_was_learnt_are_seconds_whatever_work_is_profiled_later(contention: float) -> None:
    """An opening beside burners may have measured thrice the work that the next one does."""
    slow = taught(3.0, 2.0, 30, taught(1.2, 0.0, 30))
    factor, variance = predict(slow, WORK_S, contention, 30.0)
    again, its_variance = predict(slow, WORK_S / 3.0, contention, 30.0)
    assert again == pytest.approx(3.0 * factor)
    assert its_variance == pytest.approx(9.0 * variance, rel=0.2)  # but for the time that has passed
    taught_again = observe(slow, WORK_S / 3.0, 2.0, answers(9.0), 30.0)
    assert mean(taught_again, 2.0, 31.0, WORK_S / 3.0) == pytest.approx(9.0, rel=0.02)
    assert mean(taught_again, 2.0, 31.0) == pytest.approx(3.0, rel=0.02)
    assert mean(taught_again, 0.0, 31.0) == pytest.approx(1.2, rel=0.02)


def test_what_was_learnt_before_the_work_was_kept_beside_it_is_taken_as_it_is() -> None:
    """Of a recording that an older Flyball made: its factors are times of whatever is profiled."""
    slow = taught(3.0, 2.0, 30)
    plain = msgspec.to_builtins(slow)
    del plain["work_s"]
    old = msgspec.convert(plain, SlowDown)
    assert predict(old, WORK_S / 3.0, 2.0, 30.0) == predict(slow, WORK_S, 2.0, 30.0)


@pytest.mark.parametrize("odd", [-1.0, 1e-300, 1e300])
def test_a_work_that_cannot_be_teaches_nothing_and_breaks_nothing(odd: float) -> None:
    slow = msgspec.structs.replace(taught(3.0, 2.0, 30), work_s=odd)
    assert predict(slow, WORK_S, 2.0, 30.0) == predict(SlowDown(), WORK_S, 2.0, 30.0)
    assert mean(observe(slow, WORK_S, 2.0, answers(2.0), 30.0), 2.0, 31.0) > 1.0


def test_a_jump_is_followed_within_three_samples() -> None:
    slow = taught(1.0, 2.0, 60)
    before = mean(slow, 2.0, 60.0)
    slow = taught(4.7, 2.0, 1, slow, 60.0)
    assert mean(slow, 2.0, 61.0) - before < 1.0  # one odd sample is not believed at once
    slow = taught(4.7, 2.0, 2, slow, 61.0)
    assert mean(slow, 2.0, 63.0) == pytest.approx(4.7, rel=0.15)
    slow = taught(1.0, 2.0, 3, slow, 63.0)
    assert mean(slow, 2.0, 66.0) == pytest.approx(1.0, abs=0.3)  # and back


def test_noise_is_averaged_while_nothing_jumps() -> None:
    draw, slow, seen = random.Random(7), SlowDown(), []
    for second in range(600):
        slow = observe(slow, WORK_S, 2.0, Sample(2.0 + draw.gauss(0, 0.1), 0.316, 10), float(second))
        seen.append(mean(slow, 2.0, second))
    later = seen[100:]
    off = math.sqrt(sum((x - 2.0) ** 2 for x in later) / len(later))
    assert off < 0.04  # the samples' own is 0.1


@pytest.mark.parametrize(("share", "long_ms"), [(0.1, 35.0), (0.4, 30.0), (0.03, 40.0)])
def test_work_that_is_interrupted_now_and_then_is_neither_under_nor_overrated(share: float, long_ms: float) -> None:
    """As beside burners: most answers take 2.4 ms, some wait for a processor. The ten that came in a period tell by
    how much they scatter whether one of those is among them, so that must not tell how much they are worth."""
    draw, slow, seen, scatter = random.Random(3), SlowDown(), [], []
    for period in range(400):
        took_s = [2.4e-3 if draw.random() > share else draw.uniform(0.5, 1.5) * long_ms / 1e3 for _ in range(10)]
        sample = Sample(statistics.fmean(took_s) / 2.2e-3, statistics.stdev(took_s) / 2.2e-3, 10)
        slow = observe(slow, 2.2e-3, 2.0, sample, period / 2)
        seen.append(mean(slow, 2.0, period / 2, 2.2e-3) * 2.2e-3)
        scatter.append(spread(slow, 2.0, 0.1, period / 2) or 0.0)
    truth_s = (1 - share) * 2.4e-3 + share * long_ms / 1e3
    later = seen[50:]
    assert statistics.fmean(later) == pytest.approx(truth_s, rel=0.15)
    assert statistics.stdev(later) < 0.25 * truth_s  # of single periods: 0.6 and more
    single_s = math.sqrt(share * (1 - share)) * long_ms / 1e3
    assert math.sqrt(statistics.fmean(x * x for x in scatter[50:])) * truth_s == pytest.approx(single_s, rel=0.35)


def test_what_nobody_measured_is_guessed_by_how_long_the_work_is() -> None:
    assert mean(None, 4.0, work_s=0.0015) == pytest.approx(1.0, abs=0.01)  # fits a slice
    assert mean(None, 4.0, work_s=0.020) > 4.0  # shares its processor
    assert 1.0 < mean(None, 4.0, work_s=0.005) < mean(None, 4.0, work_s=0.020)
    assert unseen(WORK_S, 4.0)[1] > unseen(WORK_S, 0.0)[1]  # and less sure of


def test_more_contention_is_never_guessed_to_be_better() -> None:
    slow = taught(2.5, 1.0, 30)
    factors = [mean(slow, c / 10) for c in range(10, 80)]
    assert factors == sorted(factors)


def test_one_rungs_slow_down_is_not_another_ones() -> None:
    own = LadderState(slow={"a@cpu": taught(4.0, 2.0, 20), "a@gpu": taught(1.1, 2.0, 20)})
    assert mean(own.slow["a@cpu"], 2.0) > 3.5
    assert mean(own.slow["a@gpu"], 2.0) < 1.3


def test_certainty_fades_while_a_level_is_not_seen() -> None:
    slow = taught(2.0, 2.0, 30)
    soon, late, ages = (predict(slow, WORK_S, 2.0, t)[1] for t in (30.0, 3600.0, 1e9))
    assert soon < late <= ages <= 0.1


def test_a_slow_down_at_rest_is_forgiven_in_time_and_one_beside_others_is_not() -> None:
    rest, beside = taught(4.0, 0.0, 30), taught(4.0, 4.0, 30)
    assert mean(rest, 0.0, 60.0) == pytest.approx(4.0, rel=0.05)
    assert 1.0 <= mean(rest, 0.0, 900.0) < 1.1
    assert mean(beside, 4.0, 9000.0) == pytest.approx(4.0, rel=0.05)
    fast = taught(0.8, 0.0, 30)
    assert mean(fast, 0.0, 9000.0) == pytest.approx(0.8, rel=0.05)


def test_a_slow_second_beside_hardly_anything_is_no_wall_before_every_load() -> None:
    """As recorded on a machine whose host kept back processor time: 3.8 times the work at 0.15 tasks beside it was
    laid at the door of the level at 0.5, and beside burners a factor of 57 was predicted, for good."""
    slow = taught(1.12, 0.0, 20)
    slow = observe(slow, WORK_S, 0.15, Sample(3.8, 3.6, 3), 20.0)
    assert mean(slow, 0.0, 21.0) == pytest.approx(1.12, rel=0.1)
    assert mean(slow, 0.15, 21.0) < 1.5, "one odd sample is not believed at once"
    assert mean(slow, 0.5, 21.0) <= 1.12 + 0.5 * STEEPEST + 0.01
    assert mean(slow, 3.0, 21.0) < 1.12 + 3.0 * STEEPEST + 0.01


@pytest.mark.parametrize("contention", [0.15, 0.3, 0.7])
@pytest.mark.parametrize("factor", [0.5, 1.4, 4.0, 9.0])
def test_whatever_lasts_is_believed_beside_whatever_it_lasts(contention: float, factor: float) -> None:
    slow = taught(factor, contention, 10, taught(1.0, 0.0, 20), 20.0)
    assert mean(slow, contention, 30.0) == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("beside", [0.7, 1.0])
def test_what_nobody_measured_is_not_guessed_steeper_than_loads_are(beside: float) -> None:
    slow = taught(9.0, beside, 20)
    assert mean(slow, 8.0, 20.0) < mean(slow, 1.0, 20.0) + 7.0 * STEEPEST + 0.01


def test_a_quick_second_beside_hardly_anything_does_not_make_a_load_harmless() -> None:
    slow = observe(taught(1.0, 0.0, 20), WORK_S, 0.15, Sample(0.6, 0.02, 30), 20.0)
    assert mean(slow, 0.5, 21.0) >= QUICKEST - 0.01
    assert mean(slow, 4.0, 21.0) > 3.0


def test_beside_a_load_only_what_it_does_not_explain_is_forgiven() -> None:
    slow = taught(20.0, 2.0, 30)
    assert mean(slow, 2.0, 60.0) == pytest.approx(20.0, rel=0.05)
    assert mean(slow, 2.0, 9000.0) == pytest.approx(1.0 + 2.0 * STEEPEST, rel=0.1)
    assert with_less(slow, WORK_S, 2.0, 9000.0) == pytest.approx(mean(slow, 2.0, 9000.0))


@pytest.mark.parametrize("contention", [0.0, 0.15, 0.3, 0.5])
def test_a_minute_of_slowness_that_nobody_counts_is_forgotten_down_to_what_was_usual(contention: float) -> None:
    calm = taught(1.3, contention, 600)
    slow = taught(3.9, contention, 60, calm, 600.0)
    assert mean(slow, contention, 660.0) == pytest.approx(3.9, rel=0.05)
    assert mean(slow, contention, 3600.0) == pytest.approx(1.3, rel=0.15)
    assert mean(slow, 4.0, 3600.0) < mean(calm, 4.0, 3600.0) + 1.5, "nor is it guessed from there"
    quick = taught(1.0, contention, 60, slow, 660.0)
    again = taught(3.9, contention, 60, quick, 720.0)
    assert mean(again, contention, 4000.0) == pytest.approx(1.0, rel=0.2), "it is usual to be quicker since then"


def test_what_a_rung_suffers_for_long_is_what_is_usual() -> None:
    slow = taught(1.6, 0.0, 4000)
    assert mean(slow, 0.0, 90000.0) == pytest.approx(1.6, rel=0.05)


def test_what_is_usual_are_seconds_too() -> None:
    slow = taught(3.9, 0.0, 60, taught(1.3, 0.0, 600), 600.0)
    assert mean(slow, 0.0, 4000.0, WORK_S / 2) == pytest.approx(2.0 * mean(slow, 0.0, 4000.0), rel=0.01)


def test_the_next_level_up_is_forgiven_too() -> None:
    """Seen at 0.5 and asked at 0.2, nearer to rest."""
    slow = taught(6.0, 0.5, 30, taught(1.0, 0.0, 60), 60.0)
    assert mean(slow, 0.2, 90.0) == pytest.approx(3.0, rel=0.1)
    assert mean(slow, 0.2, 4000.0) < 1.4


def test_a_bounded_level_moves_no_further_however_long_it_is_slow_beside_hardly_anything() -> None:
    slow = taught(5.0, 0.15, 300, taught(1.0, 0.0, 20), 20.0)
    assert mean(slow, 0.15, 320.0) == pytest.approx(5.0, rel=0.02)
    (rest, next_up), factors = slow.levels[:2], slow.levels
    assert rest is not None
    assert next_up is not None
    assert rest.mean > 4.0, "the near level has the rest of it"
    assert next_up.mean <= rest.mean + 0.5 * STEEPEST
    assert factors[2:] == (None,) * 4


def test_a_look_that_scatters_oddly_tells_little_of_the_mean() -> None:
    calm = scattered(SlowDown(), 0.1, 60, 0.0)
    odd, plain = (observe(calm, WORK_S, 0.0, Sample(1.8, std, 10), 60.0) for std in (2.5, 0.1))
    assert mean(odd, 0.0, 61.0) - 1.0 < 0.2 * (mean(plain, 0.0, 61.0) - 1.0)


def test_a_profile_that_says_answers_never_scatter_is_corrected() -> None:
    slow = SlowDown()
    for look in range(200):
        slow = observe(slow, WORK_S, 0.0, Sample(1.0, 0.8, 10, usual=0.0), float(look))
    assert (spread(slow, 0.0, 0.0, 200.0) or 0.0) == pytest.approx(0.8, rel=0.05)


def scattered(slow: SlowDown, scatter: float, looks: int, at_s: float, contention: float = 0.0) -> SlowDown:
    for look in range(looks):
        slow = observe(slow, WORK_S, contention, Sample(1.0, scatter, 10), at_s + look)
    return slow


def test_one_look_that_scatters_is_not_how_answers_scatter() -> None:
    calm = scattered(SlowDown(), 0.1, 60, 0.0)
    odd = scattered(calm, 2.5, 1, 60.0)
    assert (spread(calm, 0.0, 0.1, 60.0) or 0.0) == pytest.approx(0.1, rel=0.05)
    assert (spread(odd, 0.0, 0.1, 61.0) or 0.0) < 0.13
    assert (spread(scattered(calm, 2.5, 60, 60.0), 0.0, 0.1, 120.0) or 0.0) > 1.5, "what lasts is"


@pytest.mark.parametrize("contention", [0.0, 0.2, 0.5])
def test_how_answers_scattered_beside_hardly_anything_is_forgotten_slowly(contention: float) -> None:
    slow = scattered(SlowDown(), 1.0, 60, 0.0, contention)
    was = spread(slow, contention, 0.1, 60.0) or 0.0
    assert was > 0.7
    assert spread(slow, contention, 0.1, 600.0) == was, "not at once"
    assert 0.3 < (spread(slow, contention, 0.1, 1800.0) or 0.0) < 0.6
    assert 0.1 <= (spread(slow, contention, 0.1, 7200.0) or 0.0) < 0.11
    assert spread(slow, contention, 2.0, 9000.0) == was, "it is not wider than usual"


def test_how_answers_scattered_beside_a_load_is_not_forgotten() -> None:
    slow = scattered(scattered(SlowDown(), 1.0, 60, 0.0, 2.0), 0.1, 9, 60.0)
    assert (spread(slow, 2.0, 0.1, 9000.0) or 0.0) > 0.7
    assert spread(slow, 4.0, 0.1, 60.0) is None, "it never ran there"


def test_beside_a_load_answers_scatter_between_two_levels_as_lies_between() -> None:
    slow = scattered(scattered(SlowDown(), 0.9, 60, 0.0, 2.0), 0.3, 60, 60.0, 4.0)
    at_2, below, at_3, above, at_4 = (spread(slow, at, 0.1, 120.0) or 0.0 for at in (2.0, 2.999, 3.0, 3.001, 4.0))
    assert at_2 > 0.8
    assert at_4 < 0.4
    assert at_3 == pytest.approx(math.sqrt((at_2**2 + at_4**2) / 2))
    assert below == pytest.approx(above, rel=0.01), "contention wavers around it every second"


@pytest.mark.parametrize(("contention", "nearer"), [(2.5, (3, 4)), (3.5, (4, 3))])
def test_a_look_between_two_levels_tells_the_nearer_one_more(contention: float, nearer: tuple[int, int]) -> None:
    slow = scattered(scattered(SlowDown(), 0.9, 60, 0.0, 2.0), 0.3, 60, 60.0, 4.0)
    before = [wide or 0.0 for wide in slow.spreads]
    wide = spread(slow, contention, 0.1, 120.0) or 0.0
    after = [wide or 0.0 for wide in scattered(slow, 1.2, 1, 120.0, contention).spreads]
    near, far = (after[at] ** 2 - before[at] ** 2 for at in nearer)
    assert near == pytest.approx(0.05 * (1.2**2 - wide**2), rel=0.1)
    assert far == pytest.approx(near / 3)


def test_how_answers_scatter_at_two_levels_stays_apart_while_contention_wanders_between_them() -> None:
    draw, slow, off = random.Random(1), SlowDown(), []
    for look in range(600):
        contention = draw.uniform(2.0, 4.0)
        truth = math.sqrt(0.3**2 + (contention - 2.0) / 2.0 * (0.9**2 - 0.3**2))
        if look > 100:
            off.append((spread(slow, contention, 0.1, float(look)) or 0.0) - truth)
        logs = [draw.gauss(0.0, math.sqrt(math.log1p(truth**2))) for _ in range(20)]
        took = [math.exp(log - math.log1p(truth**2) / 2) for log in logs]
        sample = Sample(statistics.fmean(took), statistics.stdev(took), 20)
        slow = observe(slow, WORK_S, contention, sample, float(look))
    assert math.sqrt(statistics.fmean(error**2 for error in off)) < 0.07  # 0.1 by the nearest level alone


@pytest.mark.parametrize(("known", "at", "expected"), [(2.0, 2.9, True), (2.0, 3.1, False), (4.0, 3.1, True)])
def test_where_one_level_is_known_it_tells_of_what_is_nearest_to_it(known: float, at: float, expected: bool) -> None:
    slow = scattered(SlowDown(), 0.9, 60, 0.0, known)
    assert spread(slow, at, 0.1, 60.0) == (spread(slow, known, 0.1, 60.0) if expected else None)


def test_at_rest_nothing_is_told_of_how_answers_scatter_beside_half_a_task() -> None:
    slow = scattered(scattered(SlowDown(), 0.1, 60, 0.0), 0.5, 60, 60.0, 0.5)
    rested = scattered(slow, 0.1, 300, 120.0, 0.15)
    assert rested.spreads[1] == slow.spreads[1]
    assert (spread(rested, 0.15, 0.1, 420.0) or 0.0) == pytest.approx(0.1, rel=0.1)
    loaded = scattered(rested, 1.0, 60, 420.0, 1.0)
    assert spread(loaded, 0.6, 0.5, 480.0) == spread(loaded, 0.5, 0.5, 480.0)


samples = st.lists(
    st.tuples(
        st.floats(1e-9, 1e15),
        st.floats(0, 1e15),
        st.builds(
            Sample,
            st.floats(0, 1e15),
            st.none() | st.floats(0, 1e30),
            st.integers(1, 10**9),
            st.floats(0, 1e30),
        ),
        st.floats(0, 1e5),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(samples, st.floats(0, 1e15))
def test_never_negative_and_never_odd(row: list[tuple[float, float, Sample, float]], contention: float) -> None:
    slow, now_s = SlowDown(), 0.0
    for work_s, beside, sample, later_s in row:
        now_s += later_s
        slow = observe(slow, work_s, beside, sample, now_s)
        assert all(wide is None or 0 <= wide <= WIDEST for wide in slow.spreads)
        for level in slow.levels:
            assert level is None or (0 < level.mean <= 2 * LARGEST and 0 <= level.var < math.inf)
        for at in (0.0, contention, *LEVELS):
            factor_then, variance = predict(slow, work_s, at, now_s)
            assert 0 < factor_then < math.inf
            assert 0 <= variance < math.inf
    state = State(ladders={"x": LadderState(slow={"a@cpu": slow})})
    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state
