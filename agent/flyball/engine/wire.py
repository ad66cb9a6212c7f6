"""Control messages between daemon and worker: a 4-byte little-endian length, then that many bytes of JSON.

Small and rare (open, warm, close and their answers): requests travel in slots. Runs on Python 3.8.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, List

Message = Dict[str, Any]  # a codec's output; both ends take it apart at once

_LENGTH = struct.Struct("<I")
LIMIT = 4 << 20


class WireError(Exception):
    """The other end sent something that is not a message."""


def encode(message: Message) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Bytes in as they come, messages out as they are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Message]:
        """Raises WireError."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size > LIMIT:
                raise WireError("a message of {} bytes; at most {}".format(size, LIMIT))
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                break
            try:
                message = json.loads(bytes(self._buffer[_LENGTH.size : end]))
            except ValueError as error:
                raise WireError("not JSON: {}".format(error)) from error
            if not isinstance(message, dict):
                raise WireError("expected an object, found {!r}".format(message))
            messages.append(message)
            del self._buffer[:end]
        return messages
