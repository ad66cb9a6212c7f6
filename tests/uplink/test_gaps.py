"""Ranges of numbers that will not come."""

from hypothesis import given
from hypothesis import strategies as st

from flyball.uplink.gaps import MOST_RANGES, Gaps
from flyball.uplink.outbox import Span

RANGES = st.tuples(st.integers(0, 2000), st.integers(0, 20)).map(lambda r: (r[0], r[0] + r[1]))


@given(st.lists(RANGES, min_size=1, max_size=200))
def test_every_lost_number_is_reported_in_few_ranges(ranges: list[tuple[int, int]]) -> None:
    gaps = Gaps()
    for first, last in ranges:
        gaps.add(Span("s", first, last))
    told = gaps.take()["s"]
    lost = {n for first, last in ranges for n in range(first, last + 1)}
    reported = [n for first, last in told for n in range(first, last + 1)]
    assert lost <= set(reported)
    assert len(reported) == len(set(reported))
    assert len(told) <= MOST_RANGES
    assert not gaps


def test_neighbours_are_joined_and_streams_are_not() -> None:
    gaps = Gaps()
    for span in (Span("a", 5, 9), Span("b", 10, 11), Span("a", 10, 12), Span("a", 20, 20)):
        gaps.add(span)
    assert gaps.take() == {"a": [(5, 12), (20, 20)], "b": [(10, 11)]}
