import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball_kernels.normalize import normalize

IMAGES = st.one_of(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))),
    hnp.arrays(np.float32, (2, 3, 3), elements=st.floats(-1e4, 1e4, width=32)),
)
MEANS = st.lists(st.floats(-300, 300), min_size=3, max_size=3)
STDS = st.lists(st.floats(1e-3, 300), min_size=3, max_size=3)


@given(image=IMAGES, mean=MEANS, std=STDS)
def test_within_the_stated_bound_of_the_exact_value(image, mean, std):
    before = image.copy()
    found = normalize(image, mean, std)
    assert found.dtype == np.float32
    assert found.shape == image.shape
    values, centre, spread = image.astype(np.float64), np.array(mean), np.array(std)
    bound = 4 * 2.0**-24 * (np.abs(values) + np.abs(centre)) / spread + np.finfo(np.float32).tiny
    assert np.all(np.abs(found - (values - centre) / spread) <= bound)
    np.testing.assert_array_equal(image, before)


def test_the_common_range():
    image = np.array([[[0, 127, 255]]], np.uint8)
    assert normalize(image, (127.5,) * 3, (127.5,) * 3).ravel().tolist() == pytest.approx([-1, -0.5 / 127.5, 1])


@given(mean=MEANS, std=STDS)
def test_brighter_pixels_never_become_darker(mean, std):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.all(np.diff(normalize(ramp, mean, std), axis=1) >= 0)


@pytest.mark.parametrize(
    ("image", "mean", "std", "words"),
    [
        (np.zeros((2, 2), np.uint8), [0] * 3, [1] * 3, r"\[2, 2\]"),
        (np.zeros((2, 2, 3), np.float64), [0] * 3, [1] * 3, "float64"),
        (np.zeros((2, 2, 3), np.uint8), [0], [1] * 3, "3 finite numbers as mean"),
        (np.zeros((2, 2, 3), np.uint8), [0] * 3, [1, 1, float("inf")], "3 finite numbers as std"),
        (np.zeros((2, 2, 3), np.uint8), [0] * 3, [1, 0, 1], "above 0"),
        (np.zeros((2, 2, 3), np.uint8), [0] * 3, [1, 1, 1e-60], "above 0"),
    ],
)
def test_what_it_refuses(image, mean, std, words):
    with pytest.raises(ValueError, match=words):
        normalize(image, mean, std)
