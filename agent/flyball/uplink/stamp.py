"""When something was: the four values that every record of the uplink carries.

Clock, boot id, NTP state -> Stamp

A wall clock may start at 1970 or jump, so `ts` is only trusted where `clk` says so; `mono` and `boot` order records
of one boot in any case, and let the receiver re-date them later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from flyball.clock import Clock


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    ts: float  # Unix seconds
    mono: float  # boot time clock, seconds
    boot: str
    clk: Literal["synced", "unsynced"]


class Stamper:
    """`synchronized` is asked at every stamp, so it has to be quick (adjtimex: 10 us)."""

    def __init__(self, clock: Clock, boot: str, synchronized: Callable[[], bool]) -> None:
        self._clock = clock
        self._boot = boot
        self._synchronized = synchronized

    def now(self) -> Stamp:
        return Stamp(
            ts=round(self._clock.wall_s(), 3),
            mono=round(self._clock.boot_s(), 3),
            boot=self._boot,
            clk="synced" if self._synchronized() else "unsynced",
        )
