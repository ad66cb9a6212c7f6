"""What a simulated device has still to say, and what it will never say.

add -> waiting (states first, then events, then telemetry) -> take -> under way -> delivered; what does not fit -> lost

Pure. The daemon keeps its backlog on the disk (uplink/spool.py); a simulated device has as much memory as it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from flyball_fleet.spans import Range, merge

Lane = Literal["state", "event", "telemetry"]
LIMITS: Mapping[Lane, int] = {"state": 512, "event": 256, "telemetry": 360}  # an hour of batches of 10 s


@dataclass(frozen=True, eq=False, kw_only=True)
class Publication:
    """`numbers` are those that it carries of `stream`; a gap carries numbers that are lost already."""

    topic: str
    payload: bytes
    lane: Lane
    deflated: bool = False
    retain: bool = False
    expiry_s: int | None = None
    stream: str = ""
    numbers: tuple[Range, ...] = ()
    acknowledged: Callable[[], None] | None = None


class Queue:
    def __init__(self, limits: Mapping[Lane, int] = LIMITS) -> None:
        self._limits = limits
        self._waiting: dict[Lane, deque[Publication]] = {lane: deque() for lane in LIMITS}
        self._under_way: dict[int, Publication] = {}
        self._lost: dict[str, list[Range]] = {}
        self._sent = 0

    def __len__(self) -> int:
        return len(self._under_way) + sum(map(len, self._waiting.values()))

    def under_way(self) -> int:
        return len(self._under_way)

    def add(self, publication: Publication) -> None:
        """A newer value of a retained topic replaces one that still waits."""
        if publication.retain:
            self.forget(publication.topic)
        lane = self._waiting[publication.lane]
        lane.append(publication)
        if len(lane) > self._limits[publication.lane]:
            self._lose(lane.popleft())

    def forget(self, topic: str) -> None:
        lane = self._waiting["state"]
        for old in [p for p in lane if p.retain and p.topic == topic]:
            lane.remove(old)

    def take(self) -> tuple[int, Publication] | None:
        for lane in self._waiting.values():
            if lane:
                self._sent += 1
                self._under_way[self._sent] = lane.popleft()
                return self._sent, self._under_way[self._sent]
        return None

    def delivered(self, id: int, refused: bool) -> Publication | None:
        """None for what was under way on a link that is no more."""
        publication = self._under_way.pop(id, None)
        if publication is not None and refused:
            self._lose(publication)
        return publication

    def link_lost(self) -> None:
        """What was under way waits again, in its old order."""
        under_way, self._under_way = list(self._under_way.values()), {}
        for publication in reversed(under_way):
            lane = self._waiting[publication.lane]
            if publication.retain and any(p.retain and p.topic == publication.topic for p in lane):
                continue  # a newer value stands behind it
            if len(lane) >= self._limits[publication.lane]:
                self._lose(publication)
            else:
                lane.appendleft(publication)

    def take_lost(self) -> dict[str, list[Range]]:
        """Numbers by stream that will not come, once."""
        lost, self._lost = self._lost, {}
        return lost

    def _lose(self, publication: Publication) -> None:
        if publication.numbers:
            self._lost[publication.stream] = merge([*self._lost.get(publication.stream, []), *publication.numbers])
