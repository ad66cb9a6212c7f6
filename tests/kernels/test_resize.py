import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from flyball_kernels.resize import METHODS, resize

SIZES = st.integers(1, 9)


def images(dtype):
    values = st.integers(0, 255) if dtype == np.uint8 else st.floats(-1e6, 1e6, width=32)
    shapes = st.tuples(SIZES, SIZES, st.integers(1, 4))
    return shapes.flatmap(lambda shape: hnp.arrays(dtype, shape, elements=values))


def rounded(value: Fraction) -> int:
    return round(value)  # of a Fraction: exact, half to even


def area_weights(count, size):
    """weights[i][j]: the part of output i's box that lies in input j, exactly."""
    step = Fraction(count, size)
    return [
        [max(Fraction(0), min((i + 1) * step, Fraction(j + 1)) - max(i * step, Fraction(j))) / step
         for j in range(count)]
        for i in range(size)
    ]  # fmt: skip


def bilinear_weights(count, size):
    rows = []
    for i in range(size):
        place = (i + Fraction(1, 2)) * Fraction(count, size) - Fraction(1, 2)
        place = min(max(place, Fraction(0)), Fraction(count - 1))
        row = [Fraction(0)] * count
        low = int(place)
        row[low] += 1 - (place - low)
        row[min(low + 1, count - 1)] += place - low
        rows.append(row)
    return rows


def reference(image, height, width, weights):
    """Slow and obvious, in fractions."""
    down, along = weights(image.shape[0], height), weights(image.shape[1], width)
    exact = [[[Fraction(float(v)) for v in pixel] for pixel in row] for row in image.tolist()]
    result = []
    for wy in down:
        line = []
        for wx in along:
            pixel = [Fraction(0)] * image.shape[2]
            for y, a in enumerate(wy):
                for x, b in enumerate(wx):
                    if a and b:
                        pixel = [p + a * b * v for p, v in zip(pixel, exact[y][x], strict=True)]
            line.append(pixel)
        result.append(line)
    return result


@pytest.mark.parametrize(("method", "weights"), [("area", area_weights), ("bilinear", bilinear_weights)])
class TestAgainstFractions:
    @settings(max_examples=60, deadline=None)
    @given(image=images(np.uint8), height=SIZES, width=SIZES)
    def test_uint8_is_the_exact_result_rounded_half_to_even(self, method, weights, image, height, width):
        expected = np.array(
            [[[rounded(v) for v in p] for p in row] for row in reference(image, height, width, weights)], np.uint8
        )
        np.testing.assert_array_equal(resize(image, height, width, method), expected)

    @settings(max_examples=40, deadline=None)
    @given(image=images(np.float32), height=SIZES, width=SIZES)
    def test_float32_is_within_one_step_of_the_exact_result(self, method, weights, image, height, width):
        expected = np.array(
            [[[float(v) for v in p] for p in row] for row in reference(image, height, width, weights)], np.float64
        )
        found = resize(image, height, width, method)
        step = np.spacing(np.abs(expected).astype(np.float32))
        cancelled = (image.size + 4) * 2.0**-53 * np.abs(image).max()
        assert np.all(np.abs(found - expected) <= step + cancelled)


@settings(max_examples=60, deadline=None)
@given(
    image=st.one_of(images(np.uint8), images(np.float32)), height=SIZES, width=SIZES, method=st.sampled_from(METHODS)
)
def test_shape_dtype_layout_and_range(image, height, width, method):
    before = image.copy()
    result = resize(image, height, width, method)
    assert result.shape == (height, width, image.shape[2])
    assert result.dtype == image.dtype
    assert result.flags.c_contiguous
    assert image.min() <= result.min()
    assert result.max() <= image.max()
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_size_is_the_same_image(method):
    image = np.zeros((4, 5, 3), np.uint8)
    assert resize(image, 4, 5, method) is image


@pytest.mark.parametrize("method", ["area", "bilinear"])  # nearest breaks ties to one side
@settings(max_examples=25, deadline=None)
@given(image=images(np.uint8), height=SIZES, width=SIZES)
def test_a_mirrored_image_gives_the_mirrored_result(method, image, height, width):
    found = resize(image[::-1, ::-1], height, width, method)[::-1, ::-1]
    np.testing.assert_array_equal(found, resize(image, height, width, method))


def test_a_view_with_strides_is_read_as_the_same_image():
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    view = image[::2, ::-3, :3]
    for method in METHODS:
        np.testing.assert_array_equal(resize(view, 7, 4, method), resize(view.copy(), 7, 4, method))


def test_integer_ratios_are_plain_means():
    image = np.random.default_rng(2).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    means = image.reshape(4, 3, 5, 4, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(resize(image, 4, 5, "area"), np.rint(means).astype(np.uint8))


def test_halves_go_to_the_even_neighbour():
    image = np.array([[[0], [1]], [[2], [3]]], np.uint8)
    assert resize(image, 2, 1, "area").ravel().tolist() == [0, 2]  # 0.5 and 2.5
    assert resize(image, 1, 1, "bilinear").item() == 2  # 1.5


def test_nearest_takes_the_pixel_under_the_centre():
    row = np.arange(4, dtype=np.uint8).reshape(1, 4, 1)
    assert resize(row, 1, 2, "nearest").ravel().tolist() == [1, 3]
    assert resize(row, 1, 8, "nearest").ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


class TestAgainstPillow:
    image = np.random.default_rng(3).integers(0, 256, (37, 53, 3), dtype=np.uint8)

    @pytest.mark.parametrize(("height", "width"), [(74, 106), (50, 90), (37, 200), (20, 20), (7, 60)])
    def test_nearest_is_the_same(self, height, width):
        theirs = np.asarray(Image.fromarray(self.image).resize((width, height), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(resize(self.image, height, width, "nearest"), theirs)

    @pytest.mark.parametrize(("height", "width"), [(74, 106), (50, 90), (37, 200)])
    def test_bilinear_upwards_is_the_same(self, height, width):
        """Pillow antialiases downwards only. In "F" it computes without rounding in between; in uint8 it rounds
        after each axis, which may differ by one."""
        for c in range(3):
            plane = self.image[:, :, c].astype(np.float32)
            theirs = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
            ours = resize(plane[:, :, None], height, width, "bilinear")[:, :, 0]
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-4)
        theirs = np.asarray(Image.fromarray(self.image).resize((width, height), Image.Resampling.BILINEAR))
        ours = resize(self.image, height, width, "bilinear")
        assert np.abs(ours.astype(int) - theirs).max() <= 1

    @pytest.mark.parametrize("factor", [2, 3, 5])
    def test_area_by_an_integer_is_reduce(self, factor):
        cut = self.image[: 37 // factor * factor, : 53 // factor * factor]
        theirs = np.asarray(Image.fromarray(cut).reduce(factor))
        ours = resize(cut, cut.shape[0] // factor, cut.shape[1] // factor, "area")
        assert np.abs(ours.astype(int) - theirs).max() <= 1  # Pillow rounds halves up


def test_sums_beyond_32_bits_stay_exact():
    """12 million pixels of 255 in coprime proportions need weights far beyond 2**32."""
    image = np.full((4099, 8111, 1), 255, np.uint8)
    assert np.all(resize(image, 7, 5, "area") == 255)
    tall = np.full((3, 2, 1), 255, np.uint8)
    assert np.all(resize(tall, 2500, 2501, "bilinear") == 255)


def test_infinities_do_not_spread_to_boxes_beside_them():
    image = np.zeros((4, 4, 1), np.float32)
    image[0, 0] = np.inf
    assert resize(image, 2, 2, "area").ravel().tolist() == [np.inf, 0, 0, 0]


@pytest.mark.parametrize("method", ["area", "bilinear"])
def test_a_camera_frame_is_quick(method):
    image = np.zeros((3000, 4000, 3), np.uint8)
    start = time.perf_counter()
    resize(image, 224, 224, method)
    assert time.perf_counter() - start < 2  # about 0.03 s; a loop over pixels would take minutes


@pytest.mark.parametrize(
    ("image", "height", "width", "method", "words"),
    [
        (np.zeros((4, 4), np.uint8), 2, 2, "area", "[4, 4]"),
        (np.zeros((0, 4, 3), np.uint8), 2, 2, "area", "[0, 4, 3]"),
        (np.zeros((4, 4, 3), np.float64), 2, 2, "area", "float64"),
        (np.zeros((4, 4, 3), np.int8), 2, 2, "area", "int8"),
        (np.zeros((4, 4, 3), np.uint8), 0, 2, "area", "0 x 2"),
        (np.zeros((4, 4, 3), np.uint8), 4, 4, "cubic", "'cubic'"),
    ],
)
def test_what_it_refuses(image, height, width, method, words):
    with pytest.raises(ValueError, match="resize: expected") as caught:
        resize(image, height, width, method)
    assert words in str(caught.value)
