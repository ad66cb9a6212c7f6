"""Processes that do nothing but use the processor, to put the machine under load for a while.

Each one ends by itself after `limit_s` or when its parent is gone, so that a killed demo leaves no load behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType

_BURN = """
import os, sys, time
parent, end_s = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
while time.monotonic() < end_s and os.getppid() == parent:
    for _ in range(200_000):
        pass
"""


class Burners:
    """A context manager: `count` burners at ordinary priority while it is open."""

    def __init__(self, count: int, limit_s: float) -> None:
        self._count = count
        self._limit_s = limit_s
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Burners:
        command = [sys.executable, "-S", "-c", _BURN, str(os.getpid()), str(self._limit_s)]
        # A session each: the kernel shares the processor out by sessions first (sched_autogroup), so that six burners
        # of one session would weigh no more than one rival.
        self._processes = [subprocess.Popen(command, start_new_session=True) for _ in range(self._count)]
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes = []
