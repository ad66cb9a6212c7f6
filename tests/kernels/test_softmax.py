import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball_kernels.softmax import softmax

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=12)
SCORES = hnp.arrays(np.float32, SHAPES, elements=st.floats(allow_nan=False, allow_infinity=False, width=32))


@given(scores=SCORES)
def test_probabilities_sum_to_one_and_keep_the_order(scores):
    found = softmax(scores)
    assert found.dtype == np.float32
    assert found.shape == scores.shape
    assert np.all((found >= 0) & (found <= 1))
    n = scores.shape[-1]
    assert np.all(np.abs(found.astype(np.float64).sum(axis=-1) - 1) <= n * 2.0**-24)
    order = np.argsort(scores, axis=-1)
    assert np.all(np.diff(np.take_along_axis(found, order, axis=-1), axis=-1) >= 0)


@given(scores=hnp.arrays(np.float64, 8, elements=st.floats(-300, 300)))
def test_within_a_rounding_of_the_plain_formula(scores):
    plain = np.exp(scores) / np.exp(scores).sum()
    assert np.all(np.abs(softmax(scores) - plain) <= 2.0**-24 + 1e-13)


@given(scores=hnp.arrays(np.float32, 8, elements=st.floats(-50, 50, width=32)), shift=st.integers(-1000, 1000))
def test_a_shift_changes_nothing(scores, shift):
    shifted = scores.astype(np.float64) + shift
    np.testing.assert_allclose(softmax(shifted), softmax(scores), rtol=1e-6)


def test_the_largest_float_does_not_overflow():
    assert softmax(np.array([3e38, 3e38, -3e38], np.float32)).tolist() == [0.5, 0.5, 0]


def test_minus_infinity_is_impossible():
    assert softmax(np.array([[0, -np.inf], [-np.inf, 5]], np.float32)).tolist() == [[1, 0], [0, 1]]


def test_integers_are_scores_too():
    assert softmax(np.array([7, 7], np.uint8)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "scores",
    [
        np.array([0, np.nan], np.float32),
        np.array([0, np.inf], np.float32),
        np.array([[0, 1], [-np.inf, -np.inf]], np.float32),
        np.zeros((3, 0), np.float32),
        np.float32(1),
        np.array(["1"]),
    ],
)
def test_what_it_refuses(scores):
    with pytest.raises(ValueError, match="softmax: expected"):
        softmax(scores)


def test_no_rows_are_no_rows():
    assert softmax(np.zeros((0, 3), np.float32)).shape == (0, 3)
