"""Payloads: what is encoded is decoded again; what is not ours is refused with its place."""

import random
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import MessageError
from flyball.uplink.messages import (
    DEFLATE_ABOVE,
    MAX_INFLATED,
    MAX_PAYLOAD,
    Batch,
    Gap,
    Request,
    Status,
    decode,
    encode,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
CELLS = st.none() | FLOATS | st.integers(-(2**53), 2**53) | st.text(max_size=20)


@given(
    st.dictionaries(st.text(min_size=1, max_size=20), st.lists(CELLS, max_size=60).map(tuple), max_size=12),
    st.integers(0, 2**53),
    st.booleans(),
)
def test_a_batch_comes_back(columns: dict[str, tuple[object, ...]], first: int, hist: bool) -> None:
    batch = Batch(epoch="e", first_seq=first, count=3, boot="b", clk="synced", hist=hist, columns=columns)
    encoded = encode(batch)
    assert decode(encoded.payload, Batch, deflated=encoded.deflated) == batch
    assert encoded.deflated == (len(encoded.payload) < len(msgspec.json.encode(batch)))


def test_only_large_messages_are_deflated() -> None:
    small = encode(Status(state="ready", session=1, epoch="e", ts=1.0))
    large = encode(Gap(epoch="e", stream="s", ranges=((1, 2),), reason="x" * DEFLATE_ABOVE, ts=1.0))
    assert not small.deflated
    assert large.deflated
    assert len(large.payload) < 200


def test_what_was_not_measured_is_null() -> None:
    batch = Batch(epoch="e", first_seq=0, count=2, boot="b", clk="unsynced", columns={"power_w": (None, 1.5)})
    assert b'"power_w":[null,1.5]' in encode(batch).payload


def test_a_message_that_no_bridge_carries_is_refused() -> None:
    noise = random.Random(1).randbytes(MAX_PAYLOAD).hex()  # does not deflate below half
    with pytest.raises(MessageError, match=f"expected at most {MAX_PAYLOAD}"):
        encode(Gap(epoch="e", stream="s", ranges=(), reason=noise, ts=1.0))


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    for deflated in (False, True):
        try:
            decode(payload, Request, deflated=deflated)
        except MessageError as error:
            assert str(error)  # noqa: PT017  # any other exception fails the test


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[]", "Expected `object`"),
        (b'{"args": {}, "ttl_s": "soon"}', r"\$\.ttl_s"),
        (b'{"args": {}, "ttl_s": 0}', r"\$\.ttl_s"),
        (b'{"args": {}, "ttl_s": 1e9}', r"\$\.ttl_s"),
        (b'{"schema": 2}', r"\$\.schema"),
        (b'{"args": ' + b"[" * 100_000, "nested"),
    ],
)
def test_bad_requests_say_where(payload: bytes, complaint: str) -> None:
    with pytest.raises(MessageError, match=complaint):
        decode(payload, Request)


def test_an_inflation_bomb_is_refused() -> None:
    bomb = zlib.compress(b" " * (MAX_INFLATED + 1))
    with pytest.raises(MessageError, match="inflated"):
        decode(bomb, Request, deflated=True)


def test_what_a_newer_fleet_adds_is_let_pass() -> None:
    assert decode(b'{"args": {}, "priority": 7}', Request).ttl_s is None
