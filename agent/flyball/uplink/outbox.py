"""What waits for the broker: bounded lanes, and what is under way.

add -> lane -> take (the most important first) -> sent(id) -> acknowledged(id), or link_lost -> back to the front

Pure. A publication leaves only when the broker has acknowledged it, when a newer one for the same retained topic
stands behind it, or when its lane is full: then the oldest goes, and the caller hears which.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Lane = Literal["state", "event", "telemetry"]
LANES: tuple[Lane, ...] = ("state", "event", "telemetry")  # in order of importance

# 512 command states; of what waits on the disk no more than is about to leave (drain.py).
LIMITS: Mapping[Lane, int] = {"state": 512, "event": 256, "telemetry": 60}


@dataclass(frozen=True, eq=False)
class Publication:
    topic: str
    payload: bytes
    lane: Lane
    deflated: bool = False
    retain: bool = False
    expiry_s: int | None = None
    acknowledged: Callable[[], None] | None = None
    lost: Callable[[str], None] | None = None  # hears why it was refused, or "" when there was no room for it


class Outbox:
    def __init__(self, limits: Mapping[Lane, int] = LIMITS) -> None:
        self._limits = limits
        self._waiting: dict[Lane, deque[Publication]] = {lane: deque() for lane in LANES}
        self._under_way: dict[int, Publication] = {}  # by packet id, in the order of sending

    def __len__(self) -> int:
        return len(self._under_way) + sum(map(len, self._waiting.values()))

    def under_way(self) -> int:
        return len(self._under_way)

    def add(self, publication: Publication) -> list[Publication]:
        """Gives back what had to go for it."""
        lane = self._waiting[publication.lane]
        if publication.retain:
            self.forget(publication.topic)
        lane.append(publication)
        return [lane.popleft() for _ in range(len(lane) - self._limits[publication.lane])]

    def forget(self, topic: str) -> None:
        """Drops what still waits for this retained topic; what is under way stays."""
        lane = self._waiting["state"]
        for old in [p for p in lane if p.retain and p.topic == topic]:
            lane.remove(old)

    def take(self) -> Publication | None:
        for lane in LANES:
            if self._waiting[lane]:
                return self._waiting[lane].popleft()
        return None

    def sent(self, id: int, publication: Publication) -> None:
        self._under_way[id] = publication

    def acknowledged(self, id: int) -> Publication | None:
        return self._under_way.pop(id, None)

    def link_lost(self) -> list[Publication]:
        """What was under way waits again, in its old order; gives back what no longer fits."""
        under_way, self._under_way = list(self._under_way.values()), {}
        dropped = []
        for publication in reversed(under_way):
            lane = self._waiting[publication.lane]
            if publication.retain and any(p.retain and p.topic == publication.topic for p in lane):
                continue  # a newer value stands behind it
            if len(lane) >= self._limits[publication.lane]:
                dropped.append(publication)  # the oldest of a full lane
            else:
                lane.appendleft(publication)
        return dropped[::-1]
