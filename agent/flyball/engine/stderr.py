"""What a worker writes to standard error, in the log under the worker's name.

pipe -> lines -> log;  the last few are kept for the message when the worker dies

Never lets one worker hold up the others: a turn of the loop reads a bounded piece, and lines beyond a rate are counted
and dropped. Never blocks the worker either: what is dropped has been read.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from typing import IO

log = logging.getLogger(__name__)

LINES_PER_S = 200  # in the log; a runtime that loads a model writes some dozens
_READ_BYTES = 4096  # in one turn of the loop: its lines take the log about a millisecond
_DROP_BYTES = 65536  # the same where lines are only counted
_LINE_BYTES = 4096  # a longer line is cut: a worker must not fill the daemon's memory
_KEPT_LINES = 6
_LAST_READS = 32  # of a pipe whose worker has ended; a child of its own may still write to it


class StderrLog:
    """Owns the pipe, reads it from its making until `close`."""

    def __init__(self, label: str, pipe: IO[bytes]) -> None:
        self._label = label
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._kept: deque[bytes] = deque(maxlen=_KEPT_LINES)
        self._second_s = 0.0  # when the present second began, of which these are the figures
        self._logged = 0
        self._dropped = 0
        self._teller: asyncio.TimerHandle | None = None
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self._read)

    def said(self) -> str:
        """The last lines, for a message."""
        lines = [text for text in map(_text, self._kept) if text]
        return f"; it wrote: {' | '.join(lines)}" if lines else ""

    def close(self) -> None:
        """Reads what is left in the pipe."""
        for _ in range(_LAST_READS):
            if not self._read():
                break
        self._take([self._rest] if self._rest else [])
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()
        if self._teller is not None:
            self._teller.cancel()
            self._tell()

    def _read(self) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(self._pipe.fileno(), _READ_BYTES if self._logged < LINES_PER_S else _DROP_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._pipe.fileno())
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        self._take(lines)
        return True

    def _take(self, lines: list[bytes]) -> None:
        now_s = self._loop.time()
        if now_s - self._second_s >= 1.0:
            self._second_s, self._logged = now_s, 0
        room = LINES_PER_S - self._logged
        for line in lines[:room]:
            text = _text(line)
            if text:
                log.log(_level(text), "[%s] %s", self._label, text)
                self._logged += 1
        self._kept.extend(line for line in lines[-_KEPT_LINES:] if line)
        self._dropped += len(lines[room:])
        if self._dropped and self._teller is None:
            self._teller = self._loop.call_later(1.0, self._tell)

    def _tell(self) -> None:
        self._teller = None
        if self._dropped:
            log.warning("[%s] %d lines dropped: more than %d in a second", self._label, self._dropped, LINES_PER_S)
            self._dropped = 0


def _text(line: bytes) -> str:
    return line[:_LINE_BYTES].decode("utf-8", "replace").rstrip()


def _level(line: str) -> int:
    """Runtimes chat on standard error; what calls itself information is kept as that."""
    return logging.INFO if line.startswith(("INFO:", "I0", "I1")) else logging.WARNING
