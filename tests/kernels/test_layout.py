import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball_kernels.layout import to_layout

IMAGES = hnp.arrays(
    st.sampled_from([np.uint8, np.float32, np.int8]),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)),
)


@given(image=IMAGES, mirrored=st.booleans())
def test_there_and_back(image, mirrored):
    if mirrored:
        image = image[:, ::-1]
    for order, back in (("NHWC", (0, 1, 2)), ("NCHW", (1, 2, 0))):
        batch = to_layout(image, order)
        assert batch.flags.c_contiguous
        assert batch.dtype == image.dtype
        assert batch.shape[0] == 1
        np.testing.assert_array_equal(batch[0].transpose(back), image)


@pytest.mark.parametrize(("shape", "order"), [((2, 2), "NHWC"), ((2, 2, 3), "CHW"), ((1, 2, 2, 3), "NCHW")])
def test_what_it_refuses(shape, order):
    with pytest.raises(ValueError, match="to_layout: expected"):
        to_layout(np.zeros(shape, np.uint8), order)
