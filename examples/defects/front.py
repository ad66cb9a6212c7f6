"""Which measured rungs make the ladder's default order.

Measured (accuracy and two latencies) of every CPU rung -> no rung that another beats -> steps worth taking -> names

A step down is worth taking when it gives at least 1.25 times the artifact's speed and a faster whole answer too (`pre`
counts: at 88 pixels resizing in NumPy takes longer than the net), and a rung is kept apart from its neighbour by at
least 0.4 points of accuracy: closer ones would make the governor restless and gain nothing that can be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEAD_HEAT = 0.001  # of accuracy: below this a rung that is a speedup faster is simply the better one
LEAST_STEP = 0.004  # of accuracy
LEAST_SPEEDUP = 1.25
GPU_PRECISION = "-fp16"  # not counted: for GPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`p50_ms` is the artifact alone, `answer_p50_ms` with `pre` and `post`; one thread."""

    name: str
    accuracy: float
    p50_ms: float
    answer_p50_ms: float


def front(measured: Sequence[Measured]) -> list[str]:
    """Strongest first: the longest row of worthwhile steps down from the strongest rung; of equally long ones the one
    that stays more accurate."""
    fp32_ms = {r.name.removesuffix("-fp32"): r.p50_ms for r in measured}
    counted = [
        r
        for r in measured
        if not r.name.endswith(GPU_PRECISION)
        # INT8 that is slower than its own fp32 has no use here: what accuracy it gains is chance.
        and r.p50_ms <= fp32_ms.get(r.name.removesuffix("-int8"), r.p50_ms)
    ]
    contenders = sorted((r for r in counted if not _beaten(r, counted)), key=lambda r: -r.accuracy)
    return [rung.name for rung in _row(contenders[0], contenders[1:])] if contenders else []


def _beaten(rung: Measured, measured: Sequence[Measured]) -> bool:
    return any(
        (r.p50_ms < rung.p50_ms and r.accuracy >= rung.accuracy)
        or (r.p50_ms * LEAST_SPEEDUP <= rung.p50_ms and r.accuracy >= rung.accuracy - DEAD_HEAT)
        for r in measured
    )


def _row(rung: Measured, weaker: Sequence[Measured]) -> list[Measured]:
    rows = [_row(r, weaker[at + 1 :]) for at, r in enumerate(weaker) if _worthwhile(rung, r)]
    return [rung, *max(rows, key=lambda row: (len(row), sum(r.accuracy for r in row)), default=[])]


def _worthwhile(rung: Measured, down: Measured) -> bool:
    return (
        down.accuracy <= rung.accuracy - LEAST_STEP
        and down.p50_ms * LEAST_SPEEDUP <= rung.p50_ms
        and down.answer_p50_ms < rung.answer_p50_ms
    )


def read(rungs: Sequence[dict[str, float | str]]) -> list[Measured]:
    """The rungs of evaluation.json."""
    return [
        Measured(
            name=str(r["name"]),
            accuracy=float(r["accuracy"]),
            p50_ms=float(r["p50_ms"]),
            answer_p50_ms=float(r["answer_p50_ms"]),
        )
        for r in rungs
    ]
