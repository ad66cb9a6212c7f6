"""How sure an answer is of itself.

scores of the best labels -> max-softmax | margin | entropy -> 0..1

Pure. Scores that are no probabilities give no confidence, never an exception: they come from a model.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Literal

from flyball.ports import Answer

Measure = Literal["max-softmax", "margin", "entropy"]

_SUM_TOLERANCE = 0.05  # dequantized INT8 scores of n classes are off 1 by up to n/512


def confidence(scores: Sequence[float], measure: Measure, classes: int) -> float:
    """How sure an answer is, 0..1. `scores` are the probabilities of the best k of `classes` labels.

    max-softmax is the best score, margin its lead over the second, entropy 1 - H / log(classes) (Hendrycks & Gimpel
    2017 compare the first with others). What the k leave of 1 counts as spread evenly over the other labels. Scores
    that are no probabilities (a NaN, a negative, logits: a sum that is not about 1) tell nothing: 0.0, unsure."""
    ordered = sorted(scores, reverse=True)
    k, total = len(ordered), sum(ordered)
    if not 0 < k <= classes:
        return 0.0
    lowest = 1 - _SUM_TOLERANCE if k == classes else k / classes  # the best k hold at least their even share
    if not lowest <= total <= 1 + _SUM_TOLERANCE or ordered[-1] < 0:  # a NaN is in no interval
        return 0.0
    if k == classes or total > 1:
        ordered, total = [score / total for score in ordered], 1.0
    return min(1.0, max(0.0, _MEASURES[measure](ordered, 1 - total, classes)))


def _max_softmax(ordered: Sequence[float], rest: float, classes: int) -> float:
    return ordered[0]


def _margin(ordered: Sequence[float], rest: float, classes: int) -> float:
    if len(ordered) > 1:
        return ordered[0] - ordered[1]
    return ordered[0] - min(rest, ordered[0])  # with only the best known, the rest may all be the second's


def _entropy(ordered: Sequence[float], rest: float, classes: int) -> float:
    if classes == 1:
        return 1.0
    nats = -sum(p * math.log(p) for p in ordered if p > 0)
    if rest > 0:
        nats -= rest * math.log(rest / (classes - len(ordered)))
    return 1 - nats / math.log(classes)


_MEASURES = {"max-softmax": _max_softmax, "margin": _margin, "entropy": _entropy}


def scores_of(answer: Answer) -> tuple[float, ...]:
    """The output `scores`, FP32; empty, so of no confidence, when there is none or its bytes are not FP32's."""
    for tensor in answer.outputs:
        if tensor.name == "scores" and tensor.datatype == "FP32":
            data = memoryview(tensor.data).cast("B")
            return struct.unpack(f"<{len(data) // 4}f", data) if len(data) % 4 == 0 else ()
    return ()
