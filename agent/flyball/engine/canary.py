"""Whether a rung answers its canary as it should.

sample of the worker's canary answer + the manifest's `canary` (or this rung's first answer here) -> what is wrong

A sample holds up to 32 evenly spaced values of every output; outputs of text have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Sample = Sequence[Sequence[float]]

# Relative to the output's largest value. The same artifact gives other last bits on another processor, and INT8
# rounds whole steps the other way: what a canary is to catch (lost weights, a wrong file, a broken accelerator) is
# far beyond these.
TOLERANCE = {"fp32": 0.01, "fp16": 0.05, "bf16": 0.05}
TOLERANCE_OTHER = 0.25


def wrong(found: Sample, expected: Sample, precision: str, finite: bool) -> str:
    """Why `found` is no right answer; empty when it is. `finite`: of a task whose answers are always finite; a tensor
    may rightly hold the logarithm of 0, and then must hold it again."""
    if finite and not all(math.isfinite(value) for values in found for value in values):
        return "the answer to the canary has values that are not finite"
    if not expected:
        return ""
    if [len(values) for values in found] != [len(values) for values in expected]:
        return f"the answer to the canary has {_sizes(found)} values, expected {_sizes(expected)}"
    tolerance = TOLERANCE.get(precision, TOLERANCE_OTHER)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        allowed = tolerance * max((abs(value) for value in theirs if math.isfinite(value)), default=0.0)
        worst = max((_apart(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)
        if worst > allowed:
            return (
                f"the answer to the canary is wrong: output {number} is off by {worst:.3g}, "
                f"allowed for {precision or 'this precision'}: {allowed:.3g}"
            )
    return ""


def _apart(one: float, other: float) -> float:
    if math.isfinite(one) and math.isfinite(other):
        return abs(one - other)
    return 0.0 if one == other or (math.isnan(one) and math.isnan(other)) else math.inf


def _sizes(sample: Sample) -> str:
    return ", ".join(str(len(values)) for values in sample)
