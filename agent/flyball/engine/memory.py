"""What memory there is and what a process takes, from procfs. None where it cannot be read: unknown is not zero."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def available_bytes(proc: Path = PROC) -> int | None:
    """MemAvailable: what could be used without swapping."""
    return _kib(proc / "meminfo", "MemAvailable:")


def process_bytes(pid: int, proc: Path = PROC) -> int | None:
    """The proportional share (PSS) of a process, which counts shared libraries once over all that map them."""
    return _kib(proc / str(pid) / "smaps_rollup", "Pss:")


def _kib(path: Path, key: str) -> int | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None
