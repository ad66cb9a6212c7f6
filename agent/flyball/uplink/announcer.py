"""What the device says of itself, as publications: status, birth, events, alarms, gaps, command states.

facts -> message -> encoded -> Publication with its topic, lane, retain flag and expiry

Pure but for the stamp of now. Knows who and in which session we are; sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from flyball.events import Event
from flyball.uplink import commands
from flyball.uplink.commands import Handlers, Row
from flyball.uplink.messages import (
    Alarm,
    Birth,
    BirthFacts,
    Encoded,
    EventMessage,
    Gap,
    Link,
    Presence,
    Status,
    encode,
)
from flyball.uplink.outbox import Lane, Publication, Span
from flyball.uplink.stamp import Stamper
from flyball.uplink.telemetry import STREAM
from flyball.uplink.topics import Device

EVENTS = "events"  # the stream that numbers them
STATE_EXPIRY_S = 7 * 86400


class Announcer:
    def __init__(self, device: Device, handlers: Handlers, allowed: Collection[str], stamper: Stamper) -> None:
        self._device = device
        self._handlers = handlers
        self._allowed = allowed
        self._stamper = stamper
        self._desc_version = 0
        self.epoch = ""
        self.session = 0
        self.commands: Link = "unverified"

    def begin(self, epoch: str, session: int) -> None:
        """A new CONNECT: the counts of this session start anew."""
        self.epoch, self.session = epoch, session
        self.commands = "unverified"
        self._desc_version = 0

    def will(self) -> bytes:
        return encode(self._status("lost")).payload

    def status(self, state: Presence, acknowledged: Callable[[], None] | None = None) -> Publication:
        encoded = encode(self._status(state))
        return self._publication(self._device.status, encoded, retain=True, acknowledged=acknowledged)

    def birth(self, facts: BirthFacts, acknowledged: Callable[[], None] | None = None) -> Publication:
        """Every call within a session has a higher desc_version."""
        self._desc_version += 1
        birth = Birth(
            session=self.session,
            epoch=self.epoch,
            desc_version=self._desc_version,
            stamp=self._stamper.now(),
            hardware=facts.hardware,
            software=facts.software,
            ladders=facts.ladders,
            capabilities=commands.capabilities(self._handlers, self._allowed),
        )
        return self._publication(self._device.birth, encode(birth), retain=True, acknowledged=acknowledged)

    def batch(self, encoded: Encoded, span: Span) -> Publication:
        return self._publication(self._device.telemetry(STREAM), encoded, lane="telemetry", spans=(span,))

    def event(self, event: Event, seq: int) -> Publication:
        """Raises MessageError for a kind that is no segment of a topic."""
        message = EventMessage(
            epoch=self.epoch,
            seq=seq,
            stamp=self._stamper.now(),
            kind=event.kind,
            severity=event.severity,
            message=event.message,
            ladder=event.ladder,
            detail=event.detail,
        )
        topic = self._device.event(event.kind)
        return self._publication(topic, encode(message), lane="event", spans=(Span(EVENTS, seq, seq),))

    def alarm(self, name: str, message: str) -> Publication:
        alarm = Alarm(epoch=self.epoch, stamp=self._stamper.now(), message=message)
        return self._publication(self._device.alarm(name), encode(alarm), retain=True)

    def clear_alarm(self, name: str) -> Publication:
        return Publication(self._device.alarm(name), b"", "state", retain=True)

    def gaps(self, gaps: Mapping[str, Sequence[tuple[int, int]]], reason: str) -> list[Publication]:
        return [
            self._publication(
                self._device.gap,
                encode(
                    Gap(
                        epoch=self.epoch,
                        stream=stream,
                        ranges=tuple(ranges),
                        reason=reason,
                        ts=self._stamper.now().ts,
                    )
                ),
                spans=tuple(Span(stream, first, last) for first, last in ranges),
                is_gap=True,
            )
            for stream, ranges in gaps.items()
        ]

    def command_state(self, row: Row, acknowledged: Callable[[], None] | None = None) -> Publication:
        message = commands.state_message(row, self.epoch, self._stamper.now())
        topic = self._device.command_state(row.type, row.id)
        return self._publication(
            topic, encode(message), retain=True, expiry_s=STATE_EXPIRY_S, acknowledged=acknowledged
        )

    def _status(self, state: Presence) -> Status:
        return Status(
            state=state,
            session=self.session,
            epoch=self.epoch,
            ts=self._stamper.now().ts,
            commands=self.commands,
        )

    def _publication(
        self,
        topic: str,
        encoded: Encoded,
        *,
        lane: Lane = "state",
        retain: bool = False,
        expiry_s: int | None = None,
        spans: tuple[Span, ...] = (),
        is_gap: bool = False,
        acknowledged: Callable[[], None] | None = None,
    ) -> Publication:
        return Publication(
            topic,
            encoded.payload,
            lane,
            deflated=encoded.deflated,
            retain=retain,
            expiry_s=expiry_s,
            spans=spans,
            is_gap=is_gap,
            acknowledged=acknowledged,
        )
