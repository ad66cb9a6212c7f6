import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball_kernels.top_k import top_k

# Few different values, so that ties are common.
SCORES = st.one_of(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, np.inf, -np.inf])),
    hnp.arrays(np.uint8, st.integers(1, 40)),
    hnp.arrays(np.int8, st.integers(1, 40), elements=st.integers(-3, 3)),
)


@given(scores=SCORES, data=st.data())
def test_as_a_sort_would(scores, data):
    k = data.draw(st.integers(1, scores.size))
    indices, values = top_k(scores, k)
    expected = sorted(range(scores.size), key=lambda i: (-float(scores[i]), i))[:k]
    assert indices.tolist() == expected
    assert indices.dtype == np.int64
    assert values.dtype == scores.dtype
    np.testing.assert_array_equal(values, scores[expected])


@pytest.mark.parametrize(
    ("scores", "k", "words"),
    [
        (np.zeros(3, np.float32), 4, "1 to 3"),
        (np.zeros(3, np.float32), 0, "found 0"),
        (np.zeros(0, np.float32), 1, "1 to 0"),
        (np.zeros((1, 3), np.float32), 1, "[1, 3]"),
        (np.array([1, np.nan], np.float32), 1, "1 of 2 scores are NaN"),
    ],
)
def test_what_it_refuses(scores, k, words):
    with pytest.raises(ValueError, match="top_k: ") as caught:
        top_k(scores, k)
    assert words in str(caught.value)
