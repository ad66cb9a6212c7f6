"""Control messages survive any cutting; nonsense is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.engine.wire import Decoder, WireError, encode

MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20)), max_size=5)


@given(MESSAGES, st.integers(1, 50))
def test_messages_survive_any_cutting(messages: list, piece: int) -> None:
    stream = b"".join(encode(m) for m in messages)
    decoder, found = Decoder(), []
    for start in range(0, len(stream), piece):
        found += decoder.feed(stream[start : start + piece])
    assert found == messages


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"\xff\xff\xff\xff", "at most"), (b"\2\0\0\0{]", "not JSON"), (b"\2\0\0\0[]", "expected an object")],
)
def test_nonsense_is_refused(data: bytes, expected: str) -> None:
    with pytest.raises(WireError, match=expected):
        Decoder().feed(data)
