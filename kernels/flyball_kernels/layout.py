"""An image in the axis order of a model's input.

HxWxC image -> batch of one, NHWC or NCHW, C-contiguous

Never changes values or dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_layout(image: NDArray[Any], order: str) -> NDArray[Any]:
    """`image` [H, W, C], any dtype, as [1, H, W, C] ("NHWC") or [1, C, H, W] ("NCHW"), C-contiguous. Exact.

    NHWC of an image that is contiguous already is a view. Raises ValueError for another order or shape.
    """
    if image.ndim != 3:
        raise ValueError("to_layout: expected an image [H, W, C], found shape {}".format(list(image.shape)))
    if order not in ("NHWC", "NCHW"):
        raise ValueError("to_layout: expected an order of NHWC, NCHW, found {!r}".format(order))
    ordered = image if order == "NHWC" else image.transpose(2, 0, 1)
    return np.ascontiguousarray(ordered)[np.newaxis]
