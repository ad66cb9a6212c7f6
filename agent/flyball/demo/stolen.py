"""Processor time that a hypervisor gave to others while the machine asked for it, and looks that were hardly robbed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from flyball.sensing.sensors.host import CpuUtilization

T = TypeVar("T")

QUIET = 0.03  # of the processor time asked for: with more of it stolen a look is taken again
TOLD = 0.05  # below it, hardly an answer is later for it


def stolen_since(cpu: CpuUtilization) -> float | None:
    """Of the processor time asked for since the call before, the share that a hypervisor gave to others; None at the
    first call and where it cannot be told."""
    with suppress(OSError, ValueError):
        shares = cpu.since_last()
        if shares is not None and shares.steal is not None:
            return shares.steal / shares.busy if shares.steal else 0.0
    return None


def matters(share: float | None) -> bool:
    return share is not None and share >= TOLD


def quietest(
    look: Callable[[], tuple[float | None, T]], looks: int, most: int, until_s: float = math.inf
) -> list[tuple[float | None, T]]:
    """Of up to `most` looks as many as are asked for: those in which least was stolen, as a share of what was asked
    for. After `until_s` (monotonic) no more are taken than that. A look that cannot tell is no quiet one while another
    can; where none can, one more than asked for is taken, as a counter may have failed just once."""
    taken: list[tuple[float | None, T]] = []
    while len(taken) < looks or (len(taken) < most and time.monotonic() < until_s):
        told = [stolen for stolen, _ in taken if stolen is not None]
        if (sum(stolen <= QUIET for stolen in told) if told else len(taken) - 1) >= looks:
            break
        taken.append(look())
    return sorted(taken, key=lambda one: math.inf if one[0] is None else one[0])[:looks]
