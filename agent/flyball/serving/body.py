"""A request's body, read whole into one buffer and never past its limit.

ASGI receive -> one buffer of the declared size -> bytes, or TooLargeError / QueueFullError before more is kept

All bodies held at once share one allowance, so that many large uploads cannot take the machine's memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from flyball.errors import QueueFullError, TooLargeError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientGone(Exception):
    """The client closed the connection before its request was complete: there is nobody to answer."""


class Intake:
    """Hands out bodies; each must be given back with `release` once its tensors are no longer used. One body is taken
    whatever the allowance is, or a ladder with a large limit could never be asked."""

    def __init__(self, allowance_bytes: int = 64 << 20) -> None:
        self._allowance = allowance_bytes
        self._held = 0

    @property
    def held_bytes(self) -> int:
        return self._held

    def release(self, body: bytes | bytearray) -> None:
        self._held -= len(body)

    async def read(self, receive: Receive, declared: int | None, limit: int) -> bytes | bytearray:
        """`declared` is Content-Length, which the HTTP parser enforces; None when the upload is chunked.

        Raises TooLargeError, QueueFullError, ClientGone; nothing is then held.
        """
        if declared is not None:
            _check(declared, limit)
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            whole: bytes = message.get("body", b"")
            _check(len(whole), limit)
            self._take(len(whole))
            return whole
        return await self._collect(receive, message, declared, limit)

    async def _collect(
        self, receive: Receive, message: MutableMapping[str, Any], declared: int | None, limit: int
    ) -> bytearray:
        # Only what has come counts: four who announce 16 MiB and send nothing must not keep everybody else out.
        body = bytearray(declared or 0)  # untouched pages of it take no memory yet
        filled = 0
        try:
            while True:
                if message["type"] != "http.request":
                    raise ClientGone
                chunk = message.get("body", b"")
                end = filled + len(chunk)
                if end > len(body):
                    _check(end, limit)
                self._take(len(chunk), filled)
                body[filled:end] = chunk
                filled = end
                if not message.get("more_body", False):
                    break
                message = await receive()
            if filled < len(body):
                raise ClientGone
        except BaseException:
            self._held -= filled
            raise
        return body

    def _take(self, size: int, already: int = 0) -> None:
        if self._held > already and self._held + size > self._allowance:
            raise QueueFullError(
                f"requests of {self._held} bytes are being answered already (at most {self._allowance} at once): "
                "send fewer at a time, or retry later"
            )
        self._held += size


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(
            f"the request's body is larger than the {limit} bytes taken here (max_input_bytes in the ladder's "
            "manifest; JSON counts more than binary tensors)"
        )
