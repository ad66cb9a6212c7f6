"""The best of many scores.

scores -> stable sort -> indices and values, best first

Never leaves the order of equal scores to chance: the lower index comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Tuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def top_k(scores: NDArray[Any], k: int) -> Tuple[NDArray[np.int64], NDArray[Any]]:
    """Of `scores` [n], any real dtype: the indices (int64 [k]) and values (the scores' dtype, [k]) of the `k` highest.

    Descending, equal scores by their index. Exact. Raises ValueError for NaN, for another shape, and for a `k` that
    is not between 1 and n.
    """
    if scores.ndim != 1:
        raise ValueError("top_k: expected scores [n], found shape {}".format(list(scores.shape)))
    if not 1 <= k <= scores.size:
        raise ValueError("top_k: expected a k of 1 to {} (the number of scores), found {}".format(scores.size, k))
    if np.isnan(scores).any():
        raise ValueError("top_k: {} of {} scores are NaN".format(int(np.isnan(scores).sum()), scores.size))
    # Ascending over the reversed scores, then reversed: a stable sort so keeps equal scores in their own order.
    order = scores.size - 1 - np.argsort(scores[::-1], kind="stable")[::-1][:k]
    indices = order.astype(np.int64)
    return indices, scores[indices]
