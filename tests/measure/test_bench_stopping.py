"""The early-stopping bound against sums of exact fractions, and against its own promise."""

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.measure.stopping import at_most, estimate, overlatency_allowed, queries_needed


def exact(n: int, t: int, share: Fraction) -> Fraction:
    """P(X <= t), every term enumerated."""
    return sum((math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(t + 1)), Fraction(0))


@pytest.mark.parametrize(("n", "t"), [(1, 0), (5, 2), (63, 1), (64, 1), (103, 3), (662, 1), (662, 40), (1000, 99)])
@pytest.mark.parametrize("share", [Fraction(1, 10), Fraction(1, 100), Fraction(3, 7)])
def test_the_binomial_sum(n: int, t: int, share: Fraction) -> None:
    assert at_most(n, t, float(share)) == pytest.approx(float(exact(n, t, share)), rel=1e-9, abs=1e-300)


def test_all_of_them_are_certain() -> None:
    assert at_most(7, 7, 0.3) == 1.0


@pytest.mark.parametrize(("percentile", "needed"), [(Fraction(90, 100), 64), (Fraction(99, 100), 662)])
def test_the_fewest_queries_are_the_first_for_which_the_exact_sum_allows_one(percentile: Fraction, needed: int) -> None:
    limit = Fraction(1, 100)
    assert exact(needed - 1, 1, 1 - percentile) > limit >= exact(needed, 1, 1 - percentile)
    assert queries_needed(float(percentile)) == needed


@pytest.mark.parametrize("n", [64, 65, 102, 180, 400, 1000])
def test_the_most_overlatency_queries_by_the_exact_sum(n: int) -> None:
    t = overlatency_allowed(n, 0.9)
    assert exact(n, t, Fraction(1, 10)) <= Fraction(1, 100) < exact(n, t + 1, Fraction(1, 10))


def test_a_higher_confidence_allows_fewer() -> None:
    assert (
        overlatency_allowed(1000, 0.9, 0.999)
        < overlatency_allowed(1000, 0.9, 0.99)
        < overlatency_allowed(1000, 0.9, 0.9)
    )


@pytest.mark.parametrize(("n", "found"), [(0, None), (1, None), (63, None), (64, 64), (103, 101)])
def test_the_estimate_is_the_t_th_largest(n: int, found: float | None) -> None:
    latencies = list(range(1, n + 1))
    random.Random(5).shuffle(latencies)
    assert estimate(latencies, 0.9) == found


@given(st.integers(64, 3000))
def test_the_estimate_lies_above_the_percentile_and_nears_it(n: int) -> None:
    found = estimate([i / n for i in range(1, n + 1)], 0.9)
    assert found is not None
    assert 0.9 < found <= 0.9 + 3.5 * math.sqrt(0.09 / n)  # a normal law would give 2.33 standard errors


def test_it_bounds_the_true_percentile_in_99_of_100_runs() -> None:
    dice = random.Random(11)
    true = -math.log(0.1)  # of the exponential law
    missed = 0
    for _ in range(1000):
        found = estimate([dice.expovariate(1) for _ in range(200)], 0.9)
        assert found is not None
        missed += found < true
    assert missed <= 20, "1 % is allowed: 20 of 1000 would be three standard errors more"
    # The estimate is one rank above the tightest bound; much higher, and it would never be missed.
    assert missed > 0
