"""What the device says of itself, as publications: status, birth, alarms, twin, command states.

facts -> message -> encoded -> Publication with its topic, lane, retain flag and expiry

Pure but for the stamp of now. Knows who and in which session we are; sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from flyball.uplink import commands
from flyball.uplink.commands import Handlers, Row
from flyball.uplink.messages import (
    Alarm,
    Birth,
    BirthFacts,
    Encoded,
    Link,
    Presence,
    Status,
    encode,
)
from flyball.uplink.outbox import Publication
from flyball.uplink.stamp import Stamper
from flyball.uplink.topics import Device

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

    def alarm(self, name: str, message: str) -> Publication:
        alarm = Alarm(epoch=self.epoch, stamp=self._stamper.now(), message=message)
        return self._publication(self._device.alarm(name), encode(alarm), retain=True)

    def clear_alarm(self, name: str) -> Publication:
        return Publication(self._device.alarm(name), b"", "state", retain=True)

    def command_state(self, row: Row, acknowledged: Callable[[], None] | None = None) -> Publication:
        message = commands.state_message(row, self.epoch, self._stamper.now())
        topic = self._device.command_state(row.type, row.id)
        return self._publication(
            topic, encode(message), retain=True, expiry_s=STATE_EXPIRY_S, acknowledged=acknowledged
        )

    def twin(self, encoded: Encoded) -> Publication:
        return self._publication(self._device.twin_reported, encoded, retain=True)

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
        retain: bool = False,
        expiry_s: int | None = None,
        acknowledged: Callable[[], None] | None = None,
    ) -> Publication:
        return Publication(
            topic,
            encoded.payload,
            "state",
            deflated=encoded.deflated,
            retain=retain,
            expiry_s=expiry_s,
            acknowledged=acknowledged,
        )
