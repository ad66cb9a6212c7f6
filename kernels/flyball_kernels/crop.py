"""Cut the middle out of an image, or pad it to a size without changing its aspect ratio.

HxWxC image -> slice, or resize and frame -> HxWxC image of the same dtype

Never stretches, and never changes its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Tuple

import numpy as np

from flyball_kernels.resize import resize

if TYPE_CHECKING:
    from numpy.typing import NDArray


def center_crop(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """The middle [height, width, C] of `image` [H, W, C], any dtype, as a view. Exact.

    What cannot be split evenly leaves one row or column more below and on the right. Raises ValueError when the
    image is smaller than the cut.
    """
    if image.ndim != 3:
        raise ValueError("center_crop: expected an image [H, W, C], found shape {}".format(list(image.shape)))
    tall, wide = image.shape[:2]
    if not (1 <= height <= tall and 1 <= width <= wide):
        raise ValueError(
            "center_crop: expected a cut of at most {} x {} (height x width of the image) and at least 1 x 1, "
            "found {} x {}; resize the image first".format(tall, wide, height, width)
        )
    top, left = (tall - height) // 2, (wide - width) // 2
    return image[top : top + height, left : left + width]


def letterbox(image: NDArray[Any], height: int, width: int, fill: float, method: str) -> NDArray[Any]:
    """`image` [H, W, C], uint8 or float32, as large as fits into [height, width, C], centred, `fill` around it.

    Error bounds are those of `resize` with the same `method`; the frame is exact. An odd rest leaves one row or
    column more below and on the right. Raises ValueError as `resize` does, and for a `fill` that the dtype cannot hold.
    """
    if image.dtype == np.uint8 and not (0 <= fill <= 255 and fill == int(fill)):
        raise ValueError("letterbox: expected a fill of 0 to 255 for a uint8 image, found {}".format(fill))
    if image.ndim != 3 or 0 in image.shape or height < 1 or width < 1:
        return resize(image, height, width, method)  # which says what is wrong
    tall, wide = _fitted(image.shape[0], image.shape[1], height, width)
    inner = resize(image, tall, wide, method)
    if (tall, wide) == (height, width):
        return inner
    framed = np.full((height, width, image.shape[2]), fill, image.dtype)
    top, left = (height - tall) // 2, (width - wide) // 2
    framed[top : top + tall, left : left + wide] = inner
    return framed


def _fitted(tall: int, wide: int, height: int, width: int) -> Tuple[int, int]:
    """The largest size of the same aspect ratio, rounded to whole pixels; at least one."""
    if height * wide <= width * tall:
        return height, max(1, (2 * wide * height + tall) // (2 * tall))
    return max(1, (2 * tall * width + wide) // (2 * wide)), width
