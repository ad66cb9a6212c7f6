"""The daemon's events, numbered and on their way to the fleet.

Events (from any thread) -> event loop -> EventMessage -> spool, which numbers it

An event that cannot be told takes no number.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from flyball.clock import Clock
from flyball.errors import MessageError
from flyball.events import Event, Events
from flyball.uplink.messages import EventMessage, encode
from flyball.uplink.redating import ClockChange
from flyball.uplink.stamp import Stamper
from flyball.uplink.topics import Device
from flyball.uplink.writer import Writer

log = logging.getLogger(__name__)

STREAM = "events"

Severity = Literal["info", "warning", "error"]


class News:
    def __init__(self, events: Events, device: Device, writer: Writer, stamper: Stamper, clock: Clock) -> None:
        self._events = events
        self._device = device
        self._writer = writer
        self._stamper = stamper
        self._clock = clock
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

    def clock_changed(self, change: ClockChange) -> None:
        event = Event(
            kind=change.kind,
            t_s=self._clock.monotonic_s(),
            message=f"the wall clock went by {change.offset_s:+.3f} s",
            detail={"offset_s": change.offset_s, "boot": change.boot, "mono": change.mono},
        )
        self._events.publish(event)

    def tell(self, kind: str, message: str) -> None:
        """For the fleet alone."""
        self._publish(self._event(kind, message))

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
        message = EventMessage(
            epoch="",
            seq=0,
            stamp=self._stamper.now(),
            kind=event.kind,
            severity=event.severity,
            message=event.message,
            ladder=event.ladder,
            detail=event.detail,
        )
        try:
            self._device.event(event.kind)
            encode(message)
        except MessageError as error:
            log.error("uplink: event %r cannot be published: %s", event.kind, error)
            return
        self._writer.put_message(STREAM, message)

    def _event(self, kind: str, message: str, severity: Severity = "info") -> Event:
        return Event(kind=kind, t_s=self._clock.monotonic_s(), message=message, severity=severity)
