"""Bodies read within their limits, from messages as the server gives them."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import QueueFullError, TooLargeError
from flyball.serving.body import ClientGone, Intake

Message = MutableMapping[str, Any]
GONE: Message = {"type": "http.disconnect"}


def parts(*chunks: bytes, complete: bool = True) -> list[Message]:
    last = len(chunks) - 1 if complete else len(chunks)
    return [{"type": "http.request", "body": c, "more_body": i != last} for i, c in enumerate(chunks)]


def read(intake: Intake, messages: list[Message], declared: int | None, limit: int = 1000) -> bytes | bytearray:
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting)

    return asyncio.run(intake.read(receive, declared, limit))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.booleans())
@settings(deadline=None, max_examples=50)
def test_the_pieces_make_the_body(chunks: list[bytes], chunked: bool) -> None:
    intake, whole = Intake(), b"".join(chunks)
    body = read(intake, parts(*chunks), None if chunked else len(whole))
    assert body == whole
    assert intake.held_bytes == len(whole)
    intake.release(body)
    assert intake.held_bytes == 0


def test_a_body_that_comes_at_once_is_not_copied() -> None:
    (message,) = parts(b"x" * 500)
    assert read(Intake(), [message], 500) is message["body"]


@pytest.mark.parametrize(
    ("messages", "declared", "error"),
    [
        ([], 1001, TooLargeError),  # before a byte of it is read
        (parts(bytes(1001)), None, TooLargeError),
        (parts(bytes(600), bytes(401)), None, TooLargeError),
        ([GONE], 10, ClientGone),
        ([*parts(b"abc", complete=False), GONE], 10, ClientGone),
        ([*parts(b"abc", complete=False), GONE], None, ClientGone),
        (parts(b"abc", b"d"), 10, ClientGone),
    ],
)
def test_refusals_hold_nothing(messages: list[Message], declared: int | None, error: type[Exception]) -> None:
    intake = Intake()
    with pytest.raises(error):
        read(intake, messages, declared)
    assert intake.held_bytes == 0


@pytest.mark.parametrize("declared", [None, 120])
@pytest.mark.parametrize("chunks", [(bytes(120),), (bytes(60), bytes(60))])
def test_all_bodies_share_one_allowance(chunks: tuple[bytes, ...], declared: int | None) -> None:
    intake = Intake(200)
    first = read(intake, parts(bytes(100)), 100)
    with pytest.raises(QueueFullError, match=r"requests of .* retry later"):
        read(intake, parts(*chunks), declared)
    assert intake.held_bytes == 100
    intake.release(first)
    assert len(read(intake, parts(*chunks), declared)) == 120


@pytest.mark.parametrize("declared", [None, 900])
def test_one_body_is_taken_however_large(declared: int | None) -> None:
    assert len(read(Intake(200), parts(bytes(300), bytes(300), bytes(300)), declared)) == 900
