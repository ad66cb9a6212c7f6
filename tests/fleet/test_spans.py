"""Ranges against the plain sets that they stand for."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from flyball_fleet.spans import count, merge, shown, subtract

range_ = st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda r: (r[0], r[0] + r[1]))
ranges = st.lists(range_, max_size=12)


def numbers(of: list[tuple[int, int]]) -> set[int]:
    return {n for first, last in of for n in range(first, last + 1)}


@given(ranges)
def test_merging_keeps_every_number_and_leaves_nothing_that_touches(some: list[tuple[int, int]]) -> None:
    merged = merge(some)
    assert numbers(merged) == numbers(some)
    assert count(merged) == len(numbers(some))
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(merged))


@given(ranges, ranges)
def test_subtracting_is_the_difference_of_the_sets(some: list[tuple[int, int]], taken: list[tuple[int, int]]) -> None:
    assert numbers(subtract(some, merge(taken))) == numbers(some) - numbers(taken)


def test_ranges_are_shown_short() -> None:
    assert shown([(4, 7), (9, 9), (12, 20), (30, 31), (40, 41)]) == "4-7, 9, 12-20 and 2 more"
