"""Two old batches become one of a lower rate, when there is no room for both.

Batch, Batch -> merge -> Batch with as many records as the larger had, and the numbers that are gone

Pure. Never invents: a null among numbers is left out of their mean, and only nulls make a null.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flyball.uplink.batch import MAX_COLUMNS
from flyball.uplink.columns import Cell, Cells
from flyball.uplink.messages import Batch

MAX_THINNED = 64  # at 1 Hz a record a minute; beyond it the oldest go


@dataclass(frozen=True, kw_only=True)
class Thinned:
    batch: Batch
    gone: tuple[int, int]  # both ends included


def merge(first: Batch, second: Batch) -> Thinned | None:
    """None where they cannot stand as one: of two boots, two states of the clock, or thinned enough."""
    alike = all(getattr(first, f) == getattr(second, f) for f in ("epoch", "boot", "clk", "hist"))
    thinned = first.thinned + second.thinned
    names = list(dict.fromkeys([*first.columns, *second.columns]))
    if not alike or thinned > MAX_THINNED or len(names) > MAX_COLUMNS:
        return None
    kept, gone = (first, second) if first.count >= second.count else (second, first)
    total = first.count + second.count
    edges = [round(i * total / kept.count) for i in range(kept.count + 1)]
    columns = {}
    for name in names:
        cells = [*_cells(first, name), *_cells(second, name)]
        reduce = REDUCE.get(name.rpartition("/")[2], _typical)
        columns[name] = tuple(reduce(cells[a:b]) for a, b in itertools.pairwise(edges))
    return Thinned(
        batch=msgspec.structs.replace(kept, thinned=thinned, columns=columns),
        gone=(gone.first_seq, gone.first_seq + gone.count - 1),
    )


def _cells(batch: Batch, name: str) -> Cells:
    return batch.columns.get(name) or (None,) * batch.count


# ------------------------------------------------------------------------------------- what several cells become one


def _numbers(cells: Cells) -> list[float | int]:
    return [c for c in cells if isinstance(c, (int, float))]


def _last(cells: Cells) -> Cell:
    return next((c for c in reversed(cells) if c is not None), None)


def _most(cells: Cells) -> Cell:
    return max(_numbers(cells), default=None)


def _sum(cells: Cells) -> Cell:
    numbers = _numbers(cells)
    return sum(numbers) if numbers else None


def _all_words(cells: Cells) -> Cell:
    words = [c for c in cells if isinstance(c, str)]
    return ",".join(sorted({w for cell in words for w in cell.split(",") if w})) if words else None


def _typical(cells: Cells) -> Cell:
    """The mean, with the digits that the numbers have; of words the last."""
    numbers = _numbers(cells)
    if not numbers or len(numbers) < sum(c is not None for c in cells):
        return _last(cells)
    mean = math.fsum(numbers) / len(numbers)
    if all(isinstance(n, int) for n in numbers):
        return round(mean)
    texts = [repr(float(n)) for n in numbers]
    return mean if any("e" in t for t in texts) else round(mean, max(len(t.partition(".")[2]) for t in texts))


REDUCE: Mapping[str, Callable[[Sequence[Cell]], Cell]] = {
    "ts": _last,
    "mono": _last,
    "energy_j": _last,
    "uptime_s": _last,
    "errors": _sum,
    "p99_s": _most,
    "temperature_c": _most,
    "throttled": _all_words,
}
