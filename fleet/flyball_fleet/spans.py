"""Ranges of sequence numbers, both ends included.

ranges -> merge, missing, count -> ranges. Pure; the result is sorted and no two touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Overlapping and adjoining ranges become one."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def count(merged: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in merged)


def subtract(ranges: Iterable[Range], taken: Sequence[Range]) -> list[Range]:
    """What of `ranges` lies in none of `taken`; `taken` is merged."""
    left: list[Range] = []
    for first, last in merge(ranges):
        at = first
        for begin, end in taken:
            if end < at or begin > last:
                continue
            if begin > at:
                left.append((at, begin - 1))
            at = max(at, end + 1)
        if at <= last:
            left.append((at, last))
    return left


def shown(ranges: Sequence[Range], most: int = 3) -> str:
    """ "4-7, 9, 12-20 and 2 more"."""
    parts = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    more = f" and {len(ranges) - most} more" if len(ranges) > most else ""
    return ", ".join(parts) + more
