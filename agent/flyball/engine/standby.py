"""Rungs kept open though they are not active, so that a switch back is instant, within a memory budget.

keep(ladder, opened) -> the rungs that must now be closed, least useful first
"""

from __future__ import annotations

from collections.abc import Callable

from flyball.engine.opened import OpenedRung


class Standby:
    """Shared by all runners. A rung whose memory is not known counts as the whole budget."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._kept: dict[tuple[str, str], OpenedRung] = {}  # in the order of last use
        self._distance: dict[str, Callable[[str], int]] = {}

    def keep(self, ladder: str, opened: OpenedRung, distance: Callable[[str], int]) -> list[OpenedRung]:
        """`distance` tells how far a rung of this ladder is from its active one: a switch goes to a neighbour, so
        what is far off is closed first, and of equals what was not used for longest."""
        self._kept[ladder, opened.rung.name] = opened
        self._distance[ladder] = distance
        closing = []
        while self._kept and self._used_bytes() > self._budget_bytes:
            farthest = max(self._kept, key=lambda key: self._distance[key[0]](key[1]))  # the first of equals
            closing.append(self._kept.pop(farthest))
        return closing

    def take(self, ladder: str, rung: str) -> OpenedRung | None:
        opened = self._kept.pop((ladder, rung), None)
        return opened if opened is not None and opened.alive() else None

    def find(self, ladder: str, rung: str) -> OpenedRung | None:
        """Looked up for use where it is; counts as a use."""
        opened = self.take(ladder, rung)
        if opened is not None:
            self._kept[ladder, rung] = opened
        return opened

    def of(self, ladder: str) -> list[OpenedRung]:
        return [opened for (name, _), opened in self._kept.items() if name == ladder and opened.alive()]

    def take_all(self, ladder: str) -> list[OpenedRung]:
        keys = [key for key in self._kept if key[0] == ladder]
        return [self._kept.pop(key) for key in keys]

    def _used_bytes(self) -> int:
        return sum(
            o.resident_bytes if o.resident_bytes is not None else self._budget_bytes for o in self._kept.values()
        )
