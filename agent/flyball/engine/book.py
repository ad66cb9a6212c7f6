"""What is known of every rung of a ladder: its state, what opening it measured, why it failed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from flyball.engine.opened import OpenedRung
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ports import RungStatus

State = Literal["active", "standby", "closed", "failed", "no-accelerator"]


class RungBook:
    def __init__(self, folder: LadderFolder) -> None:
        self._rungs = folder.manifest.rung
        self._entries = {
            rung.name: RungStatus(name=rung.name, state="closed", precision=rung.precision, accuracy=rung.accuracy)
            for rung in self._rungs
        }

    def limit_to(self, accelerators: Collection[str]) -> None:
        """`accelerators` are the kinds present on this machine; a rung that can use none of them is never opened."""
        for rung in self._rungs:
            if not any(kind in accelerators for kind in rung.accelerators):
                self._entries[rung.name] = msgspec.structs.replace(
                    self._entries[rung.name],
                    state="no-accelerator",
                    error=f"none of its accelerators is present: {', '.join(rung.accelerators)}",
                )

    def usable(self, rung: str) -> bool:
        return self._entries[rung].state != "no-accelerator"

    def why_not(self, rung: str) -> str:
        return self._entries[rung].error

    def opened(self, opened: OpenedRung, state: State) -> None:
        self._entries[opened.rung.name] = msgspec.structs.replace(
            self._entries[opened.rung.name],
            state=state,
            profiled_p50_s=opened.warmth.p50_s,
            load_s=opened.worker.load_s,
            rss_bytes=opened.resident_bytes,
            error="",
        )

    def closed(self, rung: Rung) -> None:
        self._entries[rung.name] = msgspec.structs.replace(self._entries[rung.name], state="closed", error="")

    def failed(self, rung: Rung, error: str) -> None:
        self._entries[rung.name] = msgspec.structs.replace(self._entries[rung.name], state="failed", error=error)

    def entries(self) -> tuple[RungStatus, ...]:
        return tuple(self._entries.values())
