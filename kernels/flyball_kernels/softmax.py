"""Scores to probabilities.

scores -> minus the largest -> exp -> divided by the sum -> float32

Never overflows, and never answers for scores that have no answer (NaN, +inf, nothing but -inf).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def softmax(scores: NDArray[Any]) -> NDArray[np.float32]:
    """`scores` [..., n], any real dtype, as float32 [..., n] that sum to 1 along the last axis.

    Computed in float64 and rounded once: each value is within 2**-24 of the exact one, their sum within n * 2**-24
    of 1. -inf gives 0. Raises ValueError for NaN, +inf, a row of nothing but -inf, and for n = 0.
    """
    if scores.ndim < 1 or scores.shape[-1] < 1 or scores.dtype.kind not in "iuf":
        raise ValueError(
            "softmax: expected real numbers [..., n] with n at least 1, found {} {}".format(
                scores.dtype, list(scores.shape)
            )
        )
    values = scores.astype(np.float64)
    largest = values.max(axis=-1, keepdims=True, initial=-np.inf)
    if not np.all(np.isfinite(largest)):  # max() hands NaN on
        raise ValueError("softmax: expected finite scores (or some -inf), found NaN, +inf or a row of only -inf")
    values -= largest
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values.astype(np.float32)
