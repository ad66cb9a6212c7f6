"""Numbers of a stream."""

from hypothesis import given
from hypothesis import strategies as st

from flyball.uplink.sequence import Counter


@given(st.lists(st.integers(1, 600), max_size=50), st.integers(2, 1000))
def test_no_number_is_given_out_that_was_not_asked_to_be_reserved(takes: list[int], block: int) -> None:
    asked = [100 + block]
    counter = Counter("s", 100, block, lambda _stream, next: asked.append(next))
    expected = 100
    for count in takes:
        assert counter.take(count) == expected
        expected += count
        assert counter.next == expected <= asked[-1] == counter.reserved


def test_counting_writes_once_per_half_block() -> None:
    asked: list[int] = []
    counter = Counter("s", 0, 1000, lambda _stream, next: asked.append(next))
    for _ in range(5000):
        counter.take(1)
    assert len(asked) == 9  # after 501, then every 501
