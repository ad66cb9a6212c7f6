"""What the server needs to date records anew: by how much the wall clock was wrong.

Stamp after Stamp -> see() -> ClockChange when it was synchronized, or set

Pure. On the wall clock nothing is ever deleted or let expire; a change is only told.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from flyball.uplink.stamp import Stamp

JUMP_S = 1.0  # less is what NTP corrects little by little


class ClockChange(msgspec.Struct, frozen=True, kw_only=True):
    """Add `offset_s` to the `ts` of earlier records of `boot` (those with clk unsynced, when it was synchronized);
    `mono` is when."""

    kind: Literal["clock_synchronized", "clock_set"]
    offset_s: float
    boot: str
    mono: float


class ClockWatch:
    def __init__(self) -> None:
        self._last: Stamp | None = None

    def see(self, now: Stamp) -> ClockChange | None:
        last, self._last = self._last, now
        if last is None or last.boot != now.boot:
            return None
        offset_s = round((now.ts - now.mono) - (last.ts - last.mono), 3)
        if (last.clk, now.clk) == ("unsynced", "synced"):
            return ClockChange(kind="clock_synchronized", offset_s=offset_s, boot=now.boot, mono=now.mono)
        if abs(offset_s) >= JUMP_S:
            return ClockChange(kind="clock_set", offset_s=offset_s, boot=now.boot, mono=now.mono)
        return None
