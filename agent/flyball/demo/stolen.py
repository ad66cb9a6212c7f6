"""Processor time that a hypervisor gave to others while the machine asked for it, and looks that were hardly robbed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from flyball.sensing.sensors.host import CpuUtilization

T = TypeVar("T")

QUIET = 0.03  # of the processor time asked for: with more of it stolen a look is taken again


def stolen_since(cpu: CpuUtilization) -> float | None:
    """Of the processor time asked for since the call before, the share that a hypervisor gave to others; None at the
    first call and where it cannot be told."""
    with suppress(OSError, ValueError):
        if (shares := cpu.since_last()) is not None:
            return shares.steal / shares.busy if shares.steal else 0.0
    return None


def quietest(look: Callable[[], tuple[float | None, T]], looks: int, most: int) -> list[tuple[float | None, T]]:
    """Of up to `most` looks as many as are asked for: those in which least was stolen, as a share of what was asked
    for. Where that cannot be told a look passes for quiet."""
    taken: list[tuple[float | None, T]] = []
    while len(taken) < most and sum((stolen or 0.0) <= QUIET for stolen, _ in taken) < looks:
        taken.append(look())
    return sorted(taken, key=lambda one: one[0] or 0.0)[:looks]
