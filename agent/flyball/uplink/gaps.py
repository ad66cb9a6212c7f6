"""Sequence numbers that were given out and will not be delivered.

add(Span) -> merged ranges per stream -> take -> what one gap message says

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flyball.uplink.outbox import Span

MOST_RANGES = 64  # beyond it neighbours are joined: a gap message says "may be missing", so too wide is allowed


class Gaps:
    def __init__(self) -> None:
        self._ranges: dict[str, list[tuple[int, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def add(self, span: Span) -> None:
        ranges = sorted([*self._ranges.get(span.stream, []), (span.first, span.last)])
        merged = [ranges[0]]
        for first, last in ranges[1:]:
            if first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        while len(merged) > MOST_RANGES:
            merged[:2] = [(merged[0][0], merged[1][1])]
        self._ranges[span.stream] = merged

    def take(self) -> dict[str, Sequence[tuple[int, int]]]:
        ranges, self._ranges = self._ranges, {}
        return dict(ranges)

    def spans(self) -> Iterator[Span]:
        for stream, ranges in self._ranges.items():
            for first, last in ranges:
                yield Span(stream, first, last)
