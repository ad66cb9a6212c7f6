"""The newest log lines of the daemon, in memory, for the commands `logs` and `diag`.

logging record -> redacted -> ring of MOST_LINES lines and MOST_BYTES characters -> newest()

Never keeps a secret: a line is redacted before it is kept. Called from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Collection, Sequence

import msgspec

from flyball.uplink.redaction import redact

MOST_LINES = 1000
MOST_CHARACTERS = 256 * 1024  # of all lines together
MOST_LINE = 4096


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    ts: float
    level: str
    logger: str
    text: str


class Logbook(logging.Handler):
    """To be added to the root logger. `known` are secrets of this machine."""

    def __init__(self, known: Collection[str] = ()) -> None:
        super().__init__(logging.INFO)
        self._known = tuple(known)
        self._lines: deque[LogLine] = deque()
        self._characters = 0
        self._guard = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        with self._guard:
            self._lines.append(line)
            self._characters += len(line.text)
            while len(self._lines) > MOST_LINES or self._characters > MOST_CHARACTERS:
                self._characters -= len(self._lines.popleft().text)

    def newest(self, count: int, level: int = logging.INFO) -> Sequence[LogLine]:
        """Of this level and above, the newest last."""
        with self._guard:
            lines = list(self._lines)
        levels = logging.getLevelNamesMapping() if hasattr(logging, "getLevelNamesMapping") else logging._nameToLevel
        found = [line for line in lines if levels.get(line.level.upper(), logging.INFO) >= level]
        return found[-count:] if count > 0 else []

    def _line(self, record: logging.LogRecord) -> LogLine:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        text = redact(text, self._known)  # whole: half a key would not be known for one
        return LogLine(
            ts=round(record.created, 3),
            level=record.levelname.lower(),
            logger=record.name,
            text=text if len(text) <= MOST_LINE else f"{text[: MOST_LINE - 3]}...",
        )
