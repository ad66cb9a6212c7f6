"""Brings what is sealed to the broker: what is new at once, what has waited as fast as the bucket allows.

sealed -> live ------------------------+-> Post -> acknowledged -> deleted from the spool
spool -> oldest -> token bucket (hist) +           refused ------> gap

A batch leaves the spool only when the broker has acknowledged it. Holds no more than a few in memory, whatever waits on
the disk. Gap messages go the same way: their rows are deleted when the broker has them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import Protocol

from flyball.errors import StateError
from flyball.uplink.messages import Gap, encode
from flyball.uplink.outbox import Lane, Publication
from flyball.uplink.spooled import EVENTS, TELEMETRY, GapRow, Key, Sealed
from flyball.uplink.stamp import Stamper
from flyball.uplink.topics import Device
from flyball.uplink.writer import Writer

log = logging.getLogger(__name__)

MOST_LATE = 16  # of the backlog, handed to the Post at a time
MOST_LIVE = 32  # of what is new; what comes on top of them on a slow link waits on the disk
MOST_RANGES = 64  # of a gap message
RETRY_S = 5.0  # after the spool could not be read
ORDER = (EVENTS, TELEMETRY)
LANES: dict[int, Lane] = {EVENTS: "event", TELEMETRY: "telemetry"}


class Outlet(Protocol):
    """A Post."""

    def add(self, publication: Publication) -> None: ...


class TokenBucket:
    """`rate` tokens a second, up to `most` of them; pure: the caller says what time it is. A rate of 0: no limit."""

    def __init__(self, rate: float, most: float) -> None:
        self._rate = rate
        self._most = most
        self._tokens = most
        self._at_s: float | None = None

    def take(self, count: float, now_s: float) -> float:
        """Takes them, if need be on credit; the seconds to wait before the next are taken."""
        if not self._rate:
            return 0.0
        passed_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self._tokens = min(self._most, self._tokens + passed_s * self._rate) - count
        return max(0.0, -self._tokens / self._rate)


class Drain:
    """`rate` is in records a second, for the backlog alone; 0: as fast as the link takes them."""

    def __init__(self, writer: Writer, post: Outlet, device: Device, stamper: Stamper, rate: float) -> None:
        self._writer = writer
        self._post = post
        self._device = device
        self._stamper = stamper
        self._bucket = TokenBucket(rate, 2 * rate)
        self._ready = False
        self._under_way: dict[Key, bool] = {}  # whether it is of the backlog
        self._gaps_under_way: set[tuple[int, int]] = set()
        self._behind: set[int] = set()  # classes of which something waits on the disk alone
        self._after: dict[int, int] = {}
        self._wake = asyncio.Event()
        self.refused = 0

    def busy(self) -> frozenset[Key]:
        return frozenset(self._under_way)

    def link_ready(self) -> None:
        """The birth is acknowledged: the fleet knows whose numbers come."""
        self._ready = True
        self._behind = set(ORDER)
        self._after = {}
        self._wake.set()

    def link_lost(self) -> None:
        self._ready = False

    def sealed(self, batches: Sequence[Sealed]) -> None:
        """It stands on the disk, just now."""
        for sealed in batches:
            live = sum(not late for late in self._under_way.values())
            if self._ready and live < MOST_LIVE:
                self._send(sealed, late=False)
            else:
                self._fall_behind(sealed)
        self._wake.set()

    async def run(self) -> None:
        """The backlog, for as long as the task lives. The boundary of this loop: an error ends one round."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._ready and await self._round():
                    pass
            except Exception as error:
                known = isinstance(error, StateError)
                log.error("uplink: the spool cannot be read: %s", error, exc_info=None if known else error)
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _round(self) -> bool:
        """Hands on some of what waits; False when nothing does, or when there is no room for more."""
        await self._tell_gaps()
        room = MOST_LATE - sum(self._under_way.values())
        klass = next((k for k in ORDER if k in self._behind), None)
        if klass is None or room <= 0:
            return False
        after = self._after.get(klass, 0)
        found = await self._writer.oldest(klass, after, MOST_LATE)
        if not found and self._after.get(klass, 0) == after:
            self._behind.discard(klass)
            return True
        for sealed in found:
            if not self._ready:
                return False
            if self._after.get(klass, 0) < after:
                return True  # something fell behind meanwhile: look again from there
            if sealed.key not in self._under_way and not self._writer.gone(sealed.key):
                if room <= 0:
                    return False
                room -= 1
                self._send(sealed, late=True)
                wait_s = self._bucket.take(sealed.count, asyncio.get_running_loop().time())
                if wait_s:
                    await asyncio.sleep(wait_s)
            after = self._after[klass] = max(sealed.id, self._after.get(klass, 0))
        return True

    def _send(self, sealed: Sealed, *, late: bool) -> None:
        self._under_way[sealed.key] = late
        topic = self._device.event(sealed.name) if sealed.klass == EVENTS else self._device.telemetry(sealed.stream)
        self._post.add(
            Publication(
                topic,
                sealed.encoded.payload,
                LANES[sealed.klass],
                deflated=sealed.encoded.deflated,
                acknowledged=lambda: self._acknowledged(sealed),
                lost=lambda why: self._lost(sealed, why),
            )
        )

    def _acknowledged(self, sealed: Sealed) -> None:
        late = self._under_way.pop(sealed.key, False)
        left = sum(self._under_way.values())
        self._writer.acknowledge(sealed, last=late and not left and not self._behind)
        if late and left <= MOST_LATE // 2:
            self._wake.set()

    def _lost(self, sealed: Sealed, why: str) -> None:
        self._under_way.pop(sealed.key, None)
        if why:
            self.refused += sealed.count
            self._writer.refuse(sealed, f"refused: {why}"[:200])
        else:
            self._fall_behind(sealed)
        self._wake.set()

    def _fall_behind(self, sealed: Sealed) -> None:
        self._behind.add(sealed.klass)
        self._after[sealed.klass] = min(self._after.get(sealed.klass, 0), sealed.id - 1)

    async def _tell_gaps(self) -> None:
        """One message under way at a time."""
        if self._gaps_under_way:
            return
        rows = await self._writer.gaps(MOST_RANGES)
        for (stream, epoch, reason), group in itertools.groupby(rows, lambda g: (g.stream, g.epoch, g.reason)):
            told = list(group)
            self._gaps_under_way |= {(g.id, g.last) for g in told}
            self._post.add(self._gap(stream, epoch, reason, told))

    def _gap(self, stream: str, epoch: str, reason: str, rows: list[GapRow]) -> Publication:
        ranges = tuple((g.first, g.last) for g in rows)
        message = Gap(epoch=epoch, stream=stream, ranges=ranges, reason=reason, ts=self._stamper.now().ts)
        encoded = encode(message)

        def settled(told: bool) -> None:
            self._gaps_under_way -= {(g.id, g.last) for g in rows}
            if told:
                self._writer.told(rows)
                self._wake.set()

        return Publication(
            self._device.gap,
            encoded.payload,
            "state",
            deflated=encoded.deflated,
            acknowledged=lambda: settled(True),
            lost=lambda why: settled(False),
        )
