"""Real numbers to the integers of a quantized tensor, and back.

real = scale * (q - zero_point), one scale and zero point per tensor

Never wraps round: what does not fit saturates. Never invents a value: NaN is an error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = ("uint8", "int8", "int16")


def quantize(x: NDArray[Any], scale: float, zero_point: int, dtype: str) -> NDArray[Any]:
    """`x`, any shape and real dtype, as `dtype` ("uint8", "int8" or "int16") of the same shape.

    q = round(x / scale) + zero_point, halves to even, saturated to the dtype's range; infinities saturate too.
    The quotient is the float64 one, correctly rounded. So `dequantize(quantize(x))` is within scale / 2 (and one
    float32 rounding) of every x that did not saturate. Raises ValueError for NaN, for a scale that is not a finite
    number above 0, and for a zero point outside the dtype's range.
    """
    _check_scale("quantize", scale)
    if dtype not in DTYPES:
        raise ValueError("quantize: expected a dtype of {}, found {!r}".format(", ".join(DTYPES), dtype))
    bounds = np.iinfo(dtype)
    if not bounds.min <= zero_point <= bounds.max:
        raise ValueError(
            "quantize: expected a zero point of {} to {} for {}, found {}".format(
                bounds.min, bounds.max, dtype, zero_point
            )
        )
    if x.dtype.kind not in "biuf":
        raise ValueError("quantize: expected real numbers, found {}".format(x.dtype))
    values = x.astype(np.float64)
    with np.errstate(over="ignore"):  # beyond float64 is beyond the dtype: it saturates below
        values /= scale
    np.rint(values, out=values)
    values += zero_point
    if np.isnan(values).any():
        raise ValueError("quantize: {} of {} values are NaN".format(int(np.isnan(values).sum()), values.size))
    np.clip(values, bounds.min, bounds.max, out=values)
    return values.astype(dtype)


def dequantize(q: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.float32]:
    """`q`, any shape and integer dtype up to 32 bits, as float32 of the same shape: scale * (q - zero_point).

    Computed in float64 and rounded once: off by at most half a float32 step. Raises ValueError for a scale that is
    not a finite number above 0 and for anything but integers.
    """
    _check_scale("dequantize", scale)
    if q.dtype.kind not in "iu" or q.dtype.itemsize > 4:
        raise ValueError("dequantize: expected integers of at most 32 bits, found {}".format(q.dtype))
    values = q.astype(np.float64)
    values -= zero_point
    values *= scale
    return values.astype(np.float32)


def _check_scale(function: str, scale: float) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError("{}: expected a finite scale above 0, found {}".format(function, scale))
