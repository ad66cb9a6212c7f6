import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball_kernels.crop import center_crop, letterbox
from flyball_kernels.resize import resize

SIZES = st.integers(1, 40)


def numbered(height, width, channels=3, dtype=np.uint8):
    values = np.arange(height * width * channels) % 251 + 1  # never 0, which is the frame's colour
    return values.astype(dtype).reshape(height, width, channels)


@given(height=SIZES, width=SIZES, data=st.data())
def test_the_crop_is_the_middle(height, width, data):
    image = numbered(height, width)
    tall, wide = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    cut = center_crop(image, tall, wide)
    assert cut.shape == (tall, wide, 3)
    above, left = (height - tall) // 2, (width - wide) // 2
    below = height - tall - above
    assert 0 <= below - above <= 1
    np.testing.assert_array_equal(cut, image[above : height - below, left : left + wide])


@pytest.mark.parametrize(("height", "width"), [(5, 4), (4, 7), (0, 3), (3, -1)])
def test_a_cut_that_does_not_fit_names_both_sizes(height, width):
    with pytest.raises(ValueError, match=rf"at most 4 x 6 .* found {height} x {width}"):
        center_crop(numbered(4, 6), height, width)


def test_a_crop_wants_an_image():
    with pytest.raises(ValueError, match=r"\[4, 4\]"):
        center_crop(np.zeros((4, 4), np.uint8), 2, 2)


@given(height=SIZES, width=SIZES, tall=SIZES, wide=SIZES, dtype=st.sampled_from([np.uint8, np.float32]))
def test_a_letterbox_holds_the_whole_image_and_the_frame(height, width, tall, wide, dtype):
    image = numbered(height, width, dtype=dtype)
    framed = letterbox(image, tall, wide, 0, "nearest")
    assert framed.shape == (tall, wide, 3)
    assert framed.dtype == dtype
    inside = framed.all(axis=2)  # the image has no zero, the frame has nothing else
    rows, columns = inside.any(axis=1), inside.any(axis=0)
    top, left = int(rows.argmax()), int(columns.argmax())
    inner_tall, inner_wide = int(rows.sum()), int(columns.sum())
    assert (top, left) == ((tall - inner_tall) // 2, (wide - inner_wide) // 2)
    # One side is filled; the other keeps the aspect ratio, rounded to a pixel (one is the least there can be).
    fills_height = inner_tall == tall and (inner_wide == 1 or abs(inner_wide - width * tall / height) <= 0.5)
    fills_width = inner_wide == wide and (inner_tall == 1 or abs(inner_tall - height * wide / width) <= 0.5)
    assert fills_height or fills_width
    expected = resize(image, inner_tall, inner_wide, "nearest")
    np.testing.assert_array_equal(framed[top : top + inner_tall, left : left + inner_wide], expected)


def test_a_letterbox_of_the_same_size_is_the_same_image():
    image = numbered(8, 9)
    assert letterbox(image, 8, 9, 114, "bilinear") is image


def test_the_fill_is_the_colour_of_the_frame():
    framed = letterbox(numbered(2, 4), 4, 4, 114, "area")
    assert np.unique(framed[[0, 3]]).tolist() == [114]
    np.testing.assert_array_equal(framed[1:3], numbered(2, 4))


@pytest.mark.parametrize("fill", [-1, 256, 0.5])
def test_a_fill_that_bytes_cannot_hold(fill):
    with pytest.raises(ValueError, match="fill of 0 to 255"):
        letterbox(numbered(2, 2), 4, 4, fill, "nearest")


@pytest.mark.parametrize(
    ("image", "height", "method"),
    [
        (np.zeros((4, 4), np.uint8), 2, "area"),
        (np.zeros((0, 4, 3), np.uint8), 2, "area"),
        (np.zeros((4, 4, 3), np.int32), 2, "area"),
        (np.zeros((4, 4, 3), np.uint8), 0, "area"),
        (np.zeros((4, 4, 3), np.uint8), 2, "lanczos"),
    ],
)
def test_what_a_letterbox_refuses(image, height, method):
    with pytest.raises(ValueError, match="expected"):
        letterbox(image, height, 2, 0, method)
