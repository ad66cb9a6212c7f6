"""Pixel values to the range a float model was trained on.

HxWxC image -> (v - mean[c]) / std[c] -> float32 HxWxC

Never changes its input, and never guesses a range: mean and std are in the image's own units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def normalize(image: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """`image` [H, W, C], uint8 or float32, as float32 [H, W, C]: (v - mean[c]) / std[c].

    Computed in float32, mean and std rounded to float32 first: off by at most 4 * 2**-24 * (|v| + |mean|) / std.
    Raises ValueError when mean or std do not have C finite numbers, or a std is not above 0.
    """
    if image.ndim != 3:
        raise ValueError("normalize: expected an image [H, W, C], found shape {}".format(list(image.shape)))
    if image.dtype not in (np.uint8, np.float32):
        raise ValueError("normalize: expected uint8 or float32, found {}".format(image.dtype))
    centre, spread = _per_channel("mean", mean, image.shape[2]), _per_channel("std", std, image.shape[2])
    if not np.all(spread > 0):
        raise ValueError("normalize: expected every std above 0, found {}".format(list(std)))
    result = image.astype(np.float32)
    result -= centre
    result /= spread
    return result


def _per_channel(name: str, values: Sequence[float], channels: int) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    if array.shape != (channels,) or not np.all(np.isfinite(array)):
        raise ValueError(
            "normalize: expected {} finite numbers as {} (one per channel), found {}".format(
                channels, name, list(values)
            )
        )
    return array
