"""The threshold of a cascade, from labelled answers of both its rungs.

confidences, cheap right?, strong right? -> the cheapest threshold that keeps the accuracy -> Calibration

Pure; bench/cascade.py and examples use it, the daemon takes the threshold from its configuration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Calibration(NamedTuple):
    """What a threshold did on the answers it was found on; `accuracy` and `escalated` are shares, cost as given."""

    threshold: float
    escalated: float
    accuracy: float
    cost: float


def threshold_for(
    confidences: Sequence[float],
    cheap_right: Sequence[bool],
    strong_right: Sequence[bool],
    cheap_cost: float,
    strong_cost: float,
    drop_points: float,
) -> Calibration:
    """The cheapest threshold whose accuracy is at least the strong rung's less `drop_points` percent points.

    There always is one: escalating everything. A `cost` above `strong_cost` says that this cascade is not worth it.
    Raises ValueError for sequences that are empty or of different lengths."""
    ordered = sorted(zip(confidences, cheap_right, strong_right, strict=True))
    n = len(ordered)
    if not n:
        raise ValueError("calibration needs labelled answers of both rungs, found none")
    right = sum(map(bool, cheap_right))
    enough = sum(map(bool, strong_right)) - n * drop_points / 100 - 1e-9
    escalated = 0  # those below the threshold, so equal confidences go together
    for index, (_, cheap, strong) in enumerate(ordered):
        if right >= enough and (index == 0 or ordered[index - 1][0] < ordered[index][0]):
            break
        right += bool(strong) - bool(cheap)
        escalated = index + 1
    threshold = ordered[escalated][0] if escalated < n else math.nextafter(ordered[-1][0], math.inf)
    return Calibration(threshold, escalated / n, right / n, cheap_cost + strong_cost * escalated / n)
