"""Brings publications to the broker, as many at once as it takes, and keeps account of what was lost.

add -> Outbox -> Connection.publish -> acknowledged | refused | link lost -> Outbox again, or Gaps

Runs on the event loop and never waits: every step is caused by add(), by an acknowledgement or by a new link.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from flyball.uplink.gaps import Gaps
from flyball.uplink.mqtt import Connection
from flyball.uplink.outbox import Outbox, Publication, Span

log = logging.getLogger(__name__)

WINDOW = 8  # unacknowledged at once; enough for a 100 ms link at 80 messages a second
OVERHEAD = 128  # of a PUBLISH beside topic and payload: fixed header, packet id, properties

GapMessages = Callable[[Mapping[str, Sequence[tuple[int, int]]]], Iterable[Publication]]


class Post:
    """`gap_messages` makes the publications that report lost numbers; `progress` is called when numbers, or the loss
    of some, were acknowledged."""

    def __init__(self, gap_messages: GapMessages, progress: Callable[[], None] = lambda: None) -> None:
        self._gap_messages = gap_messages
        self._progress = progress
        self._outbox = Outbox()
        self._gaps = Gaps()
        self._link: Connection | None = None
        self._empty = asyncio.Event()
        self._refusing = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._outbox)

    def link_up(self, link: Connection) -> None:
        self._link = link
        self._pump()

    def link_lost(self) -> None:
        self._link = None
        self._lose(self._outbox.link_lost())

    def add(self, publication: Publication) -> None:
        self._empty.clear()
        self._lose(self._outbox.add(publication))
        self._pump()

    def forget(self, topic: str) -> None:
        self._outbox.forget(topic)

    def missing(self, span: Span) -> None:
        """Numbers that were given out and never handed to add()."""
        self._gaps.add(span)

    def lose(self, publication: Publication) -> None:
        """It had its numbers and will not be sent."""
        self._lose([publication])

    def report_gaps(self) -> None:
        if self._gaps:
            for publication in self._gap_messages(self._gaps.take()):
                self.add(publication)

    def settled(self, stream: str, next: int) -> int:
        """All numbers below this are acknowledged, or reported as lost and that acknowledged."""
        spans = [*self._outbox.spans(), *self._gaps.spans()]
        return min([next, *(s.first for s in spans if s.stream == stream)])

    def published(self, link: Connection, id: int, refusal: str) -> None:
        if link is not self._link:
            return
        publication = self._outbox.acknowledged(id)
        if publication is None:
            return
        if refusal:
            self._refused(publication, refusal)
        else:
            self._refusing = False
            if publication.acknowledged is not None:
                publication.acknowledged()
            if publication.spans:
                self._progress()
        self._pump()

    async def drain(self, timeout_s: float) -> None:
        """Waits until everything is acknowledged, or not for longer."""
        if len(self._outbox) and self._link is not None:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), timeout_s)
            except asyncio.TimeoutError:
                log.warning("uplink: %d publications were not acknowledged in %g s", len(self._outbox), timeout_s)

    def _pump(self) -> None:
        link = self._link
        while link is not None and not link.closed and self._outbox.under_way() < min(WINDOW, link.receive_maximum):
            publication = self._outbox.take()
            if publication is None:
                break
            size = len(publication.payload) + len(publication.topic.encode()) + OVERHEAD
            if size > link.maximum_packet:
                # Sent, it would end the connection, and come again after every reconnect.
                self._refused(publication, f"{size} bytes, and the broker takes {link.maximum_packet}")
                continue
            id = link.publish(
                publication.topic,
                publication.payload,
                retain=publication.retain,
                deflated=publication.deflated,
                expiry_s=publication.expiry_s,
            )
            self._outbox.sent(id, publication)
        if not len(self._outbox):
            self._empty.set()

    def _refused(self, publication: Publication, refusal: str) -> None:
        if not self._refusing:
            log.error(
                "uplink: the broker refuses %s: %s; check its access rules and limits", publication.topic, refusal
            )
        self._refusing = True
        self._lose([publication])

    def _lose(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            self.dropped += 1
            for span in publication.spans:
                self._gaps.add(span)
