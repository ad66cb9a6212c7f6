"""The kernel's small text files.

path -> one read -> text | integer

Raises what went wrong (OSError, ValueError) and returns no stand-in: an empty file is not zero. Never writes.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

# A sensor that is powered down answers so; it is neither broken nor gone (HARDWARE: the cv* zones of Orin).
GATED = (errno.EAGAIN, errno.ENODATA)

_LIMIT = 4096  # a sysfs attribute is at most one page
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")  # 20 digits hold every 64-bit number

Reader: TypeAlias = Callable[[Path], str]


def read_text(path: Path) -> str:
    """The file's text without the newline and NUL at its end. One system call reads it, so that it is of one moment.

    Raises OSError; UnicodeDecodeError (a ValueError) for bytes that are not UTF-8.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LIMIT).decode().rstrip("\n\0 ")
    finally:
        os.close(descriptor)


def optional_text(path: Path, read: Reader = read_text) -> str:
    """The text of a file that may be missing or unreadable, such as a label; then ""."""
    try:
        return read(path)
    except (OSError, ValueError):
        return ""


def parse_integer(text: str) -> int:
    """A decimal integer and nothing else. Raises ValueError, which tells what was found."""
    stripped = text.strip()
    if not _INTEGER.fullmatch(stripped):
        raise ValueError(f"expected a decimal integer, found {stripped[:40]!r}")
    return int(stripped)


def describe(error: Exception) -> str:
    """An error of this module in a few words; the caller names the place."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        return "not text"
    return str(error)
