"""Slots: what one side writes the other reads, and nothing leads outside a slot."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.engine.slots import (
    BAD_REQUEST,
    DATATYPES,
    FAILED,
    KEEP_BYTES,
    OK,
    SlotOverflow,
    SlotPool,
)

TENSORS = st.lists(
    st.tuples(
        st.sampled_from(DATATYPES), st.lists(st.integers(-1, 2**40), max_size=8).map(tuple), st.binary(max_size=300)
    ),
    max_size=8,
)


def both_sides(input_bytes: int = 4096, output_bytes: int = 4096, count: int = 3) -> tuple[SlotPool, SlotPool]:
    daemon = SlotPool.create(count, input_bytes, output_bytes)
    worker = SlotPool(os.dup(daemon.fd), count, daemon.input_bytes, daemon.output_bytes)
    return daemon, worker


def plain(tensors: list) -> list:
    return [(datatype, shape, bytes(data)) for datatype, shape, data in tensors]


@given(TENSORS, TENSORS, st.integers(0, 2), st.integers(1, 2**63))
def test_requests_and_replies_arrive_whole(request_: list, reply: list, slot: int, generation: int) -> None:
    daemon, worker = both_sides()
    try:
        daemon.write_request(slot, generation, [(d, s, memoryview(b)) for d, s, b in request_], 12.5)
        found, deadline_s, inputs = worker.read_request(slot)
        assert (found, deadline_s, plain(inputs)) == (generation, 12.5, request_)
        worker.write_reply(slot, generation, [(d, s, memoryview(b)) for d, s, b in reply], (1, 2, 3))
        answer = daemon.read_reply(slot, generation)
        assert (answer.status, answer[1:4], plain(answer.outputs)) == (OK, (1, 2, 3), reply)
        assert plain(worker.read_request(slot)[2]) == request_, "the reply ran into the request"
        del inputs, answer
    finally:
        daemon.close()
        worker.close()


def test_a_reply_to_an_older_request_does_not_count() -> None:
    daemon, worker = both_sides()
    daemon.write_request(0, 7, [], 0.0)
    worker.write_reply(0, 7, [], (0, 0, 0))
    daemon.hand_over_again(0, 8, 0.0)
    assert daemon.read_reply(0, 8).status == FAILED
    assert daemon.read_reply(0, 7).status == OK


def test_a_refusal_carries_its_text_even_when_that_is_too_long() -> None:
    daemon, worker = both_sides(output_bytes=4096)
    worker.write_refusal(1, 3, BAD_REQUEST, "ä" * 5000)
    reply = daemon.read_reply(1, 3)
    assert reply.status == BAD_REQUEST
    assert reply.message.startswith("ääää")


@pytest.mark.parametrize(
    "tensors",
    [
        [("UINT8", (4097,), memoryview(bytes(4097)))],
        [("UINT8", (1,) * 9, memoryview(b"x"))],
        [("UINT8", (1,), memoryview(b"x"))] * 17,
        [("UINT8", (2048,), memoryview(bytes(2048))), ("UINT8", (2049,), memoryview(bytes(2049)))],
    ],
)
def test_what_does_not_fit_is_refused(tensors: list) -> None:
    daemon, _ = both_sides()
    with pytest.raises(SlotOverflow):
        daemon.write_request(0, 1, tensors, 0.0)


def test_a_damaged_entry_is_seen() -> None:
    daemon, worker = both_sides()
    daemon.write_request(0, 1, [("UINT8", (8,), memoryview(bytes(8)))], 0.0)
    os.pwrite(daemon.fd, (2**40).to_bytes(8, "little"), 128 + 8)
    with pytest.raises(ValueError, match="damaged"):
        worker.read_request(0)


def test_a_large_request_leaves_no_memory_behind() -> None:
    daemon, _ = both_sides(input_bytes=16 << 20)
    daemon.write_request(0, 1, [("UINT8", (16 << 20,), memoryview(bytes(b"\1" * (16 << 20))))], 0.0)
    assert os.fstat(daemon.fd).st_blocks * 512 >= 16 << 20
    daemon.give_back_pages(0)
    assert os.fstat(daemon.fd).st_blocks * 512 <= KEEP_BYTES + (64 << 10)
