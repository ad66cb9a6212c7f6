"""Columns of a batch, packed: what changes little from record to record takes few digits.

cells -> pack -> Column or the cells as they are -> unpack -> the same cells

Pure and exact: a number comes back as it went in, so its resolution is whatever the record rounded it to (record.py).
What is not finite was not measured, and becomes null. Never trusts a column from outside: its length, its numbers and
its words are checked before anything is made of them.
"""

from __future__ import annotations

import itertools
import math
import statistics
import zlib
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from flyball.errors import MessageError

Cell = float | int | str | None
Cells = Sequence[Cell]
C = TypeVar("C")

MAX_INT = 2**53  # beyond it JSON readers lose digits
MAX_DIGITS = 9  # decimals that are looked for: a nanosecond, a microwatt
_Int = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One of four forms:

    - `c`: the same cell in every record;
    - `b`, `s`, `d`: record i holds b + s*i + d[0] + ... + d[i] (a null has no value, and changes nothing);
    - `b`, `o`: record i holds b + o[i];
    - `w`, `i`: record i holds the word w[i[i]].

    Numbers are integers, times 10^z; with a `k` they are divided by 10^k and are floats.
    """

    c: Cell | UnsetType = UNSET
    k: Annotated[int, Meta(ge=0, le=MAX_DIGITS)] | UnsetType = UNSET
    z: Annotated[int, Meta(ge=0, le=15)] = 0
    b: _Int = 0
    s: _Int = 0
    d: tuple[_Int | None, ...] | UnsetType = UNSET
    o: tuple[_Int | None, ...] | UnsetType = UNSET
    w: tuple[str, ...] | UnsetType = UNSET
    i: tuple[int | None, ...] | UnsetType = UNSET


Packed = Column | tuple[Cell, ...]


def pack(cells: Cells) -> Packed:
    """The shortest form that gives the same cells back."""
    cells = [None if isinstance(c, float) and not math.isfinite(c) else c for c in cells]
    first = cells[0] if cells else None
    if all(type(c) is type(first) and c == first for c in cells):
        return Column(c=first)
    present = [c for c in cells if c is not None]
    if all(isinstance(c, str) for c in present):
        return _pack_words(cells)
    if all(type(c) is float for c in present):
        return _pack_floats(cells)
    if all(type(c) is int and abs(c) <= MAX_INT for c in present):
        return _pack_ints(cells)
    return tuple(cells)


def unpack(column: Packed, count: int) -> tuple[Cell, ...]:
    """Raises MessageError for a column that does not have `count` cells or is none of the forms."""
    if isinstance(column, tuple):
        return _counted(column, count)
    forms = [f for f in (column.c, column.d, column.o, column.i) if f is not UNSET]
    if len(forms) != 1:
        raise MessageError(f"expected one of c, d, o, i, found {len(forms)} of them")
    if column.c is not UNSET:
        return (column.c,) * count
    if column.i is not UNSET:
        words = () if column.w is UNSET else column.w
        return tuple(_word(words, index) for index in _counted(column.i, count))
    if column.o is not UNSET:
        offsets = _counted(column.o, count)
        return tuple(None if n is None else _number(column, column.b + n) for n in offsets)
    if column.d is not UNSET:
        deltas = _counted(column.d, count)
        cells: list[Cell] = []
        at = column.b
        for index, delta in enumerate(deltas):
            at += delta or 0
            cells.append(None if delta is None else _number(column, at + column.s * index))
        return tuple(cells)
    raise AssertionError("unreachable")


# --------------------------------------------------------------------------------------------------------- packing


def _pack_words(cells: Cells) -> Packed:
    words = sorted({c for c in cells if isinstance(c, str)})
    if 2 * len(words) > len(cells):
        return tuple(cells)
    place = {word: index for index, word in enumerate(words)}
    return Column(w=tuple(words), i=tuple(place[c] if isinstance(c, str) else None for c in cells))


def _pack_floats(cells: Cells) -> Packed:
    values = [c if isinstance(c, float) else None for c in cells]
    digits = max(map(_decimals, filter(None, values)), default=0)
    if digits > MAX_DIGITS:
        return tuple(cells)
    scale = 10**digits
    if any(v is not None and abs(v) * scale > MAX_INT for v in values):
        return tuple(cells)
    numbers = [None if v is None else round(v * scale) for v in values]
    if any(n is not None and n / scale != v for n, v in zip(numbers, values, strict=True)):
        return tuple(cells)
    column = _shortest(numbers)
    return tuple(cells) if column is None else msgspec.structs.replace(column, k=digits)


def _pack_ints(cells: Cells) -> Packed:
    column = _shortest([c if isinstance(c, int) else None for c in cells])
    return tuple(cells) if column is None else column


def _shortest(numbers: Sequence[int | None]) -> Column | None:
    """Of deltas and offsets what deflates to less; None when neither stays within MAX_INT."""
    zeros = min((_zeros(n) for n in numbers if n), default=0)
    numbers = [None if n is None else n // 10**zeros for n in numbers]
    present = [n for n in numbers if n is not None]
    base = statistics.median_low(present)
    offsets = tuple(None if n is None else n - base for n in numbers)
    candidates = [Column(b=base, o=offsets), _deltas(numbers, 0), _deltas(numbers, _step(numbers))]
    fitting = [c for c in candidates if _fits(c)]
    best = min(fitting, key=lambda c: len(zlib.compress(msgspec.json.encode(c))), default=None)
    return None if best is None else msgspec.structs.replace(best, z=zeros)


def _deltas(numbers: Sequence[int | None], step: int) -> Column:
    base = next(n - step * i for i, n in enumerate(numbers) if n is not None)
    deltas: list[int | None] = []
    at = base
    for index, n in enumerate(numbers):
        deltas.append(None if n is None else n - step * index - at)
        at = at if n is None else n - step * index
    return Column(b=base, s=step, d=tuple(deltas))


def _step(numbers: Sequence[int | None]) -> int:
    """The usual change from one record to the next."""
    changes = [b - a for a, b in itertools.pairwise(numbers) if a is not None and b is not None]
    return statistics.median_low(changes) if changes else 0


def _fits(column: Column) -> bool:
    listed = column.o if column.o is not UNSET else column.d
    numbers = [column.b, column.s, *(n for n in listed or () if n is not None)]
    return all(abs(n) <= MAX_INT for n in numbers)


def _decimals(value: float) -> int:
    whole, _, fraction = repr(value).partition(".")
    if "e" in whole or "e" in fraction:
        return 0 if value.is_integer() else MAX_DIGITS + 1
    return 0 if fraction == "0" else len(fraction)


def _zeros(number: int) -> int:
    text = str(number)
    return len(text) - len(text.rstrip("0"))


# ------------------------------------------------------------------------------------------------------- unpacking


def _counted(cells: tuple[C, ...], count: int) -> tuple[C, ...]:
    if len(cells) != count:
        raise MessageError(f"expected {count} cells, found {len(cells)}")
    return cells


def _number(column: Column, n: int) -> float | int:
    n *= int(10**column.z)
    return n if column.k is UNSET else n / float(10**column.k)


def _word(words: Sequence[str], index: int | None) -> str | None:
    if index is None:
        return None
    if not 0 <= index < len(words):
        raise MessageError(f"word {index}: expected 0 to {len(words) - 1}")
    return words[index]
