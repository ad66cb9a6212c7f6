"""Rungs kept open though they are not active, so that a switch back is instant, within a memory budget.

keep(owner, opened) -> the rungs that must now be closed, least useful first
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from flyball.engine.opened import OpenedRung


class Standby:
    """Shared by all ladders' switches, each of which finds only its own: two versions of a ladder, open side by side
    for a moment, have rungs of one name. A rung whose memory is not known counts as the whole budget."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._kept: dict[tuple[Hashable, str], OpenedRung] = {}  # in the order of last use
        self._distance: dict[Hashable, Callable[[str], int]] = {}

    def keep(self, owner: Hashable, opened: OpenedRung, distance: Callable[[str], int]) -> list[OpenedRung]:
        """`distance` tells how far a rung of this ladder is from its active one: a switch goes to a neighbour, so
        what is far off is closed first, and of equals what was not used for longest."""
        # What has ended takes no memory: it must push out nothing that lives.
        self._kept = {key: kept for key, kept in self._kept.items() if kept.alive()}
        self._kept[owner, opened.rung.name] = opened
        self._distance[owner] = distance
        closing = []
        while self._kept and self._used_bytes() > self._budget_bytes:
            farthest = max(self._kept, key=lambda key: self._distance[key[0]](key[1]))  # the first of equals
            closing.append(self._kept.pop(farthest))
        return closing

    def has_room(self, size_bytes: int) -> bool:
        """Whether a rung of this size could stay, whatever had to leave for it."""
        return size_bytes <= self._budget_bytes

    def take(self, owner: Hashable, rung: str) -> OpenedRung | None:
        opened = self._kept.pop((owner, rung), None)
        return opened if opened is not None and opened.alive() else None

    def find(self, owner: Hashable, rung: str) -> OpenedRung | None:
        """Looked up for use where it is; counts as a use."""
        opened = self.take(owner, rung)
        if opened is not None:
            self._kept[owner, rung] = opened
        return opened

    def of(self, owner: Hashable) -> list[OpenedRung]:
        return [opened for (found, _), opened in self._kept.items() if found == owner and opened.alive()]

    def take_all(self, owner: Hashable) -> list[OpenedRung]:
        self._distance.pop(owner, None)
        keys = [key for key in self._kept if key[0] == owner]
        return [self._kept.pop(key) for key in keys]

    def _used_bytes(self) -> int:
        return sum(
            o.resident_bytes if o.resident_bytes is not None else self._budget_bytes for o in self._kept.values()
        )
