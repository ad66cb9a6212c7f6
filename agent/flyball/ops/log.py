"""Where log lines go and what they look like: plain text for people and journald, JSON for log collectors.

logging record -> formatter -> one line (a traceback: several) on standard error

No other module configures logging.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Literal


class TextFormatter(logging.Formatter):
    """Time and level, for terminals and files."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")


class JsonFormatter(logging.Formatter):
    """One object a line: ts (Unix time), level, logger, message, and exception when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class JournalFormatter(logging.Formatter):
    """Another formatter's lines with the priority that journald reads off the start of each (sd-daemon(3)), and then
    takes away."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{priority(record.levelno)}>"
        return "\n".join(prefix + line for line in self._inner.format(record).splitlines() or [""])


def configure(
    form: Literal["text", "json"], level: int = logging.INFO, environment: Mapping[str, str] = os.environ
) -> None:
    """Sends everything from `level` up to standard error, in place of what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form, stderr_is_journal(environment)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _formatter(form: Literal["text", "json"], journal: bool) -> logging.Formatter:
    if not journal:
        return JsonFormatter() if form == "json" else TextFormatter()
    # journald has the time and the level itself.
    return JournalFormatter(JsonFormatter() if form == "json" else logging.Formatter("%(message)s"))


def priority(levelno: int) -> int:
    """As syslog(3) counts: 2 critical, 3 error, 4 warning, 6 informational, 7 debug."""
    steps = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((number for least, number in steps if levelno >= least), 7)


def stderr_is_journal(environment: Mapping[str, str]) -> bool:
    """JOURNAL_STREAM holds device:inode of the stream that systemd connected (systemd.exec(5)); a redirected standard
    error is not that stream."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
