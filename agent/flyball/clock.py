"""The three clocks, and whether the wall clock can be trusted. Nothing else in the agent calls `time.time()`.

monotonic_s: for durations and deadlines; stops while the machine is suspended. boot_s: like it, but goes on during
suspend (records carry it). wall_s: Unix time, may jump or be wrong until synchronized.
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    def monotonic_s(self) -> float: ...

    def boot_s(self) -> float: ...

    def wall_s(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    monotonic_s = staticmethod(time.monotonic)  # itself, not a call of it: every request asks several times

    def boot_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_s(self) -> float:
        return time.time()


def boot_id(proc: Path = Path("/proc")) -> str:
    """The kernel's random id of this boot; empty where it cannot be read."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def wall_is_synchronized(marker: Path = Path("/run/systemd/timesync/synchronized")) -> bool:
    """Whether NTP disciplines the wall clock: systemd-timesyncd's marker, else the kernel's own state (adjtimex)."""
    if marker.exists():
        return True
    libc = ctypes.CDLL(None, use_errno=True)  # what is loaded already: find_library() starts ldconfig, 66 ms a call
    timex = (ctypes.c_long * 64)()  # struct timex is 208 bytes on 64-bit; modes = 0 only reads
    state: int = libc.adjtimex(ctypes.byref(timex))
    time_error = 5  # TIME_ERROR: the clock is not synchronized (adjtimex(2))
    return state not in (-1, time_error) and os.name == "posix"
