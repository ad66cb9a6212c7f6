"""What memory there is and what a process takes, from procfs. None where it cannot be read: unknown is not zero."""

from __future__ import annotations

import resource
from pathlib import Path

PROC = Path("/proc")
PAGE = resource.getpagesize()


def available_bytes(proc: Path = PROC) -> int | None:
    """MemAvailable: what could be used without swapping."""
    return _kib(proc / "meminfo", "MemAvailable:")


def process_bytes(pid: int, proc: Path = PROC) -> int | None:
    """The proportional share (PSS) of a process, which counts shared libraries once over all that map them."""
    return _kib(proc / str(pid) / "smaps_rollup", "Pss:")


def resident_bytes(pid: int, proc: Path = PROC) -> int | None:
    """The resident set (RSS): quick to read, counts shared pages in full."""
    try:
        return int((proc / str(pid) / "statm").read_text().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return None


def _kib(path: Path, key: str) -> int | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None
