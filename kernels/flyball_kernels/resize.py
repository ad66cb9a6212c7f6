"""Change the size of an image: the exact box filter, bilinear, nearest.

HxWxC image -> one axis, then the other, in exact integers (uint8) or float64 (float32) -> image of the same dtype

Never changes its input. The filters are written down exactly because models are trained against them: a rung's
accuracy depends on this arithmetic to the last bit.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any, Tuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS = ("area", "bilinear", "nearest")


def resize(image: NDArray[Any], height: int, width: int, method: str) -> NDArray[Any]:
    """`image` [H, W, C], uint8 or float32, as [height, width, C] of the same dtype, C-contiguous.

    area: every output pixel is the mean of its box of H/height x W/width input pixels; pixels cut by the box's edge
    count by the part inside. bilinear: half-pixel centres, source = (i + 0.5) * in/out - 0.5, clamped at the edges,
    two taps per axis and no antialiasing (TensorFlow's half_pixel_centers, ONNX half_pixel). nearest: the pixel at
    floor((i + 0.5) * in/out).

    The same size gives back `image` itself, unchanged, whatever the method.

    Error bounds: uint8 is the exact rational result rounded once, half to even. float32 is computed in float64 and
    rounded once: within one float32 step of the exact result, and where pixels of both signs cancel within
    (n + 4) * 2**-53 of the largest, n being the pixels of a box (4 for bilinear). Infinities and NaN spread to every
    output pixel that weighs them. Raises ValueError for any other shape, dtype, size or method.
    """
    _check(image, height, width, method)
    if image.shape[:2] == (height, width):
        return image
    if method == "nearest":
        rows = _nearest(image.shape[0], height)
        columns = _nearest(image.shape[1], width)
        return np.ascontiguousarray(image.take(rows, axis=0).take(columns, axis=1))
    if method == "area":
        return _area(image, height, width)
    return _bilinear(image, height, width)


def _check(image: NDArray[Any], height: int, width: int, method: str) -> None:
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"resize: expected an image [H, W, C] with no empty axis, found shape {list(image.shape)}")
    if image.dtype not in (np.uint8, np.float32):
        raise ValueError(f"resize: expected uint8 or float32, found {image.dtype}; convert the image first")
    if height < 1 or width < 1:
        raise ValueError(f"resize: expected a height and width of at least 1, found {height} x {width}")
    if method not in METHODS:
        raise ValueError(f"resize: expected a method of {', '.join(METHODS)}, found {method!r}")


def _area(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    total_rows = image.shape[0] // gcd(image.shape[0], height)
    total_columns = image.shape[1] // gcd(image.shape[1], width)
    total = total_rows * total_columns
    accumulator = _accumulator(image.dtype, total)
    channels = image.shape[2]
    if height * image.shape[1] > image.shape[0] * width:
        # A flat and wide picture grows in its rows and shrinks in its columns: what shrinks goes first, or one of
        # 300,000 x 1 pixels would take gigabytes on its way to 224 x 224.
        turned = np.ascontiguousarray(image.swapaxes(0, 1))
        narrow = _box_sums(turned.reshape(image.shape[1], -1), width, accumulator)
        back = np.ascontiguousarray(narrow.reshape(width, image.shape[0], channels).swapaxes(0, 1))
        sums = _box_sums(back.reshape(image.shape[0], -1), height, accumulator).reshape(height, width, channels)
        return _divided(sums, total, image.dtype)
    # Rows first: whole rows add up at memory speed, and only the small result has to be turned for the columns.
    tall = _box_sums(image.reshape(image.shape[0], -1), height, accumulator)
    turned = np.ascontiguousarray(tall.reshape(height, image.shape[1], -1).swapaxes(0, 1))
    both = _box_sums(turned.reshape(image.shape[1], -1), width, accumulator)
    sums = both.reshape(width, height, channels).swapaxes(0, 1)
    return _divided(np.ascontiguousarray(sums), total, image.dtype)


def _box_sums(rows: NDArray[Any], size: int, dtype: Any) -> NDArray[Any]:
    """[n, m] -> [size, m]: weighted sums over boxes, whose weights are integers that add up to n / gcd(n, size).

    On a ruler where an input row is `unit` long and an output row `span` long, every edge is an integer.
    """
    count = rows.shape[0]
    if count == size:
        return rows.astype(dtype, copy=False)
    common = gcd(count, size)
    span, unit = count // common, size // common
    sums = np.empty((size, rows.shape[1]), dtype)
    weight = sums.dtype.type
    for i in range(size):
        start, stop = i * span, (i + 1) * span
        first, last = -(-start // unit), stop // unit  # the rows that lie wholly inside: first <= row < last
        out = sums[i]
        if first > last:  # the box lies inside one row
            # dtype: NumPy 1 would multiply bytes by a small number as bytes, and wrap round.
            np.multiply(rows[last], weight(span), out=out, dtype=dtype)
            continue
        np.add.reduce(rows[first:last], axis=0, dtype=dtype, out=out)
        if unit > 1:
            out *= weight(unit)
        if first * unit > start:
            out += np.multiply(rows[first - 1], weight(first * unit - start), dtype=dtype)
        if stop > last * unit:
            out += np.multiply(rows[last], weight(stop - last * unit), dtype=dtype)
    return sums


def _bilinear(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    total = 4 * height * width
    accumulator = _accumulator(image.dtype, total)
    upper, lower, below = _taps(image.shape[0], height)
    left, right, beside = _taps(image.shape[1], width)
    down = below.astype(accumulator)[:, None, None]
    along = beside.astype(accumulator)[None, :, None]
    up, back = accumulator.type(2 * height) - down, accumulator.type(2 * width) - along

    def blended(rows: NDArray[Any]) -> NDArray[Any]:
        line = image.take(rows, axis=0)
        sums: NDArray[Any] = line.take(left, axis=1) * back
        sums += line.take(right, axis=1) * along
        return sums

    sums = blended(upper)
    sums *= up
    second = blended(lower)
    second *= down
    sums += second
    return _divided(sums, total, image.dtype)


def _taps(count: int, size: int) -> Tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Of every output place: the two input places, and the second one's weight in 1/(2 * size)."""
    unit = 2 * size
    places = (2 * np.arange(size, dtype=np.int64) + 1) * count - size
    places = np.clip(places, 0, (count - 1) * unit)
    first, weight = np.divmod(places, unit)
    return first.astype(np.intp), np.minimum(first + 1, count - 1).astype(np.intp), weight


def _nearest(count: int, size: int) -> NDArray[np.intp]:
    return ((2 * np.arange(size, dtype=np.int64) + 1) * count // (2 * size)).astype(np.intp)


def _accumulator(dtype: np.dtype[Any], total: int) -> np.dtype[Any]:
    """What holds a weighted sum of pixels exactly when the weights add up to `total`."""
    if dtype == np.float32:
        return np.dtype(np.float64)
    return np.dtype(np.uint32 if 255 * total < 2**32 else np.uint64)


def _divided(sums: NDArray[Any], total: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == np.float32:
        averages: NDArray[Any] = sums / total
        return averages.astype(dtype)
    divisor = sums.dtype.type(total)
    quotient: NDArray[Any] = sums // divisor
    twice = (sums - quotient * divisor) * sums.dtype.type(2)
    quotient += (twice > divisor) | ((twice == divisor) & (quotient % sums.dtype.type(2) == 1))
    return quotient.astype(np.uint8)
