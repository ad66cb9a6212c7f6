"""Brings publications to the broker, as many at once as it takes.

add -> Outbox -> Connection.publish -> acknowledged() | lost(why) | link lost -> Outbox again

Runs on the event loop and never waits: every step is caused by add(), by an acknowledgement or by a new link.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from flyball.uplink.connection import Connection
from flyball.uplink.outbox import Outbox, Publication

log = logging.getLogger(__name__)

WINDOW = 8  # unacknowledged at once; enough for a 100 ms link at 80 messages a second
OVERHEAD = 128  # of a PUBLISH beside topic and payload: fixed header, packet id, properties


class Post:
    def __init__(self) -> None:
        self._outbox = Outbox()
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
        self.dropped += 1
        if publication.lost is not None:
            publication.lost(refusal)

    def _lose(self, publications: Sequence[Publication]) -> None:
        """There was no room for them here; what has a place on the disk waits there."""
        for publication in publications:
            if publication.lost is not None:
                publication.lost("")
            else:
                self.dropped += 1
