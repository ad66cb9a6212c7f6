"""Numbers of a stream."""

from hypothesis import given
from hypothesis import strategies as st

from flyball.uplink.sequence import Counter


@given(st.integers(0, 2**40), st.lists(st.integers(1, 600), max_size=50))
def test_numbers_follow_each_other_without_a_gap(start: int, takes: list[int]) -> None:
    counter = Counter("s", start)
    numbers = [n for count in takes for first in [counter.take(count)] for n in range(first, first + count)]
    assert numbers == list(range(start, counter.next))
