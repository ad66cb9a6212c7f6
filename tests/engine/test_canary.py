"""When an answer to the canary is wrong."""

import math

import pytest

from flyball.engine.canary import wrong

RIGHT = ((0.5, 0.25, 0.125), ())


@pytest.mark.parametrize(("precision", "factor"), [("fp32", 1.009), ("fp16", 1.04), ("int8", 1.2), ("", 1.2)])
def test_small_deviations_are_right(precision: str, factor: float) -> None:
    assert wrong([[v * factor for v in RIGHT[0]], []], RIGHT, precision, finite=True) == ""


@pytest.mark.parametrize(("precision", "factor"), [("fp32", 1.02), ("fp16", 1.06), ("int8", 1.3), ("", 1.3)])
def test_larger_ones_are_wrong_and_say_by_how_much(precision: str, factor: float) -> None:
    problem = wrong([[v * factor for v in RIGHT[0]], []], RIGHT, precision, finite=True)
    assert "output 0 is off by" in problem


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_wrong_even_without_an_expectation(bad: float) -> None:
    assert "not finite" in wrong([[bad]], (), "fp32", finite=True)


def test_another_number_of_values_is_wrong() -> None:
    assert "has 2, 0 values, expected 3, 0" in wrong([[0.5, 0.25], []], RIGHT, "fp32", finite=True)


def test_without_an_expectation_whatever_is_finite_is_right() -> None:
    assert wrong([[1.0, -1.0]], (), "int8", finite=True) == ""


def test_an_expectation_of_zeros_allows_nothing_else() -> None:
    assert wrong([[0.0]], [[0.0]], "fp32", finite=True) == ""
    assert wrong([[0.1]], [[0.0]], "fp32", finite=True) != ""


def test_a_tensor_may_hold_what_is_not_finite_and_must_then_hold_it_again() -> None:
    expected = [[1.0, -math.inf, math.nan]]
    assert wrong(expected, (), "fp32", finite=False) == ""
    assert wrong([[1.001, -math.inf, math.nan]], expected, "fp32", finite=False) == ""
    for other in ([1.0, math.inf, math.nan], [1.0, -math.inf, 0.0], [math.nan, -math.inf, math.nan]):
        assert "off by" in wrong([other], expected, "fp32", finite=False)
