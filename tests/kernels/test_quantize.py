import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball_kernels.quantize import DTYPES, dequantize, quantize

SCALES = st.floats(1e-6, 1e3)


@st.composite
def grids(draw):
    """(dtype, scale, zero point)"""
    dtype = draw(st.sampled_from(DTYPES))
    bounds = np.iinfo(dtype)
    return dtype, draw(SCALES), draw(st.integers(int(bounds.min), int(bounds.max)))


@given(grid=grids(), data=st.data())
def test_every_integer_survives_the_round_trip(grid, data):
    dtype, scale, zero_point = grid
    q = data.draw(hnp.arrays(dtype, 20))
    np.testing.assert_array_equal(quantize(dequantize(q, scale, zero_point), scale, zero_point, dtype), q)


@given(grid=grids(), x=hnp.arrays(np.float32, 20, elements=st.floats(-1e5, 1e5, width=32)))
def test_off_by_half_a_step_or_saturated(grid, x):
    dtype, scale, zero_point = grid
    q = quantize(x, scale, zero_point, dtype)
    assert q.dtype == dtype
    bounds = np.iinfo(dtype)
    low, high = scale * (int(bounds.min) - zero_point), scale * (int(bounds.max) - zero_point)
    inside = np.clip(x.astype(np.float64), low, high)
    error = np.abs(dequantize(q, scale, zero_point) - inside)
    assert np.all(error <= scale / 2 * (1 + 1e-9) + np.abs(inside) * 2.0**-23)


@given(grid=grids(), x=hnp.arrays(np.float32, 20, elements=st.floats(allow_nan=False, width=32)))
def test_larger_values_never_become_smaller(grid, x):
    dtype, scale, zero_point = grid
    assert np.all(np.diff(quantize(np.sort(x), scale, zero_point, dtype).astype(int)) >= 0)


def test_halves_go_to_the_even_neighbour_before_the_zero_point():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    assert quantize(x, 1.0, 3, "int8").tolist() == [3, 5, 5, 3, 1]


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("int8", -128, 127), ("int16", -32768, 32767)])
def test_what_does_not_fit_saturates(dtype, low, high):
    x = np.array([-np.inf, -3e38, 3e38, np.inf], np.float32)
    assert quantize(x, 1e-300, 0, dtype).tolist() == [low, low, high, high]


def test_pixels_are_real_numbers_too():
    assert quantize(np.array([0, 128, 255], np.uint8), 1.0, -128, "int8").tolist() == [-128, 0, 127]


@given(q=hnp.arrays(st.sampled_from([np.uint8, np.int8, np.int16, np.int32]), 10), scale=SCALES)
def test_dequantized_values_are_rounded_once(q, scale):
    exact = (q.astype(np.float64) - 7) * scale
    np.testing.assert_array_equal(dequantize(q, scale, 7), exact.astype(np.float32))


@pytest.mark.parametrize(
    ("x", "scale", "zero_point", "dtype", "words"),
    [
        (np.array([1, np.nan, np.nan], np.float32), 1.0, 0, "int8", "2 of 3 values are NaN"),
        (np.zeros(3, np.float32), 0.0, 0, "int8", "scale"),
        (np.zeros(3, np.float32), float("nan"), 0, "int8", "scale"),
        (np.zeros(3, np.float32), float("inf"), 0, "int8", "scale"),
        (np.zeros(3, np.float32), 1.0, 128, "int8", "-128 to 127"),
        (np.zeros(3, np.float32), 1.0, -1, "uint8", "0 to 255"),
        (np.zeros(3, np.float32), 1.0, 0, "int64", "'int64'"),
        (np.zeros(3, np.complex64), 1.0, 0, "int8", "complex64"),
        (np.array(["a"]), 1.0, 0, "int8", "<U1"),
    ],
)
def test_what_quantize_refuses(x, scale, zero_point, dtype, words):
    with pytest.raises(ValueError, match="quantize: ") as caught:
        quantize(x, scale, zero_point, dtype)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("q", "scale"), [(np.zeros(3, np.float32), 1.0), (np.zeros(3, np.int64), 1.0), (np.zeros(3, np.int8), -1.0)]
)
def test_what_dequantize_refuses(q, scale):
    with pytest.raises(ValueError, match="dequantize: expected"):
        dequantize(q, scale, 0)
