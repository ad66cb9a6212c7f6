"""The daemon's events, numbered and on their way to the fleet.

Events (from any thread) -> event loop -> Announcer -> Ledger

What comes before the store is open waits, bounded. An event that cannot be told takes no number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Literal

from flyball.clock import Clock
from flyball.errors import MessageError
from flyball.events import Event, Events
from flyball.uplink.announcer import EVENTS, Announcer
from flyball.uplink.ledger import Ledger

log = logging.getLogger(__name__)

EARLY = 256

Severity = Literal["info", "warning", "error"]


class News:
    def __init__(self, events: Events, announcer: Announcer, ledger: Ledger, clock: Clock) -> None:
        self._events = events
        self._announcer = announcer
        self._ledger = ledger
        self._clock = clock
        self._early: deque[Event] = deque(maxlen=EARLY)
        self._open = False

    def begin(self) -> None:
        """From now on, in the running event loop."""
        loop = asyncio.get_running_loop()
        self._open = True
        self._events.subscribe(lambda event: self._heard(event, loop))

    def end(self) -> None:
        self._open = False

    def report(self, kind: str, message: str, severity: Severity = "info") -> None:
        """An event of the uplink itself, for everybody."""
        self._events.publish(self._event(kind, message, severity))

    def tell(self, kind: str, message: str) -> None:
        """For the fleet alone."""
        self._publish(self._event(kind, message))

    def numbered(self) -> None:
        """The store is open: what has waited goes."""
        while self._early:
            self._publish(self._early.popleft())

    def _heard(self, event: Event, loop: asyncio.AbstractEventLoop) -> None:
        """From Events, perhaps in another thread."""
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            self._publish(event)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._publish, event)

    def _publish(self, event: Event) -> None:
        if not self._open:
            return
        if not self._announcer.session:
            self._early.append(event)
            return
        counter = self._ledger.counters[EVENTS]
        try:
            publication = self._announcer.event(event, counter.next)
        except MessageError as error:
            log.error("uplink: event %r cannot be published: %s", event.kind, error)
            return
        counter.take(1)
        self._ledger.hand_out(publication)

    def _event(self, kind: str, message: str, severity: Severity = "info") -> Event:
        return Event(kind=kind, t_s=self._clock.monotonic_s(), message=message, severity=severity)
