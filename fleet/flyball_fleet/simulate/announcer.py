"""What a simulated device says of itself, as messages: status, birth, batches, events, gaps, twin.

facts, numbers -> message -> Encoded. Knows who and in which session it is, and gives every number out once; sends
nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from msgspec.structs import replace

from flyball.errors import MessageError
from flyball.uplink import batch
from flyball.uplink.messages import (
    Batch,
    Birth,
    Encoded,
    EventMessage,
    Gap,
    Link,
    Presence,
    Status,
    TwinDesired,
    TwinDocument,
    TwinError,
    TwinReported,
    decode,
    encode,
)
from flyball.uplink.record import Record, columns
from flyball.uplink.stamp import Stamper
from flyball_fleet.simulate.machine import FACTS
from flyball_fleet.simulate.orders import CAPABILITIES
from flyball_fleet.spans import Range

MAIN, EVENTS = "main", "events"


class Announcer:
    def __init__(self, stamper: Stamper) -> None:
        self._stamper = stamper
        self._next = {MAIN: 0, EVENTS: 0}
        self._desc_version = 0
        self.epoch = secrets.token_hex(8)
        self.session = 0
        self.verified = False
        self._twin = TwinReported(epoch=self.epoch, version=0, desired_version=0, doc=TwinDocument())

    def begin_session(self) -> None:
        """A new CONNECT."""
        self.session += 1
        self._desc_version = 0
        self.verified = False

    def sent(self) -> dict[str, int]:
        """Numbers given out so far, by stream."""
        return dict(self._next)

    def status(self, state: Presence) -> Encoded:
        commands: Link = "verified" if self.verified else "unverified"
        ts = self._stamper.now().ts
        return encode(Status(state=state, session=self.session, epoch=self.epoch, ts=ts, commands=commands))

    def birth(self) -> Encoded:
        """Every call within a session has a higher desc_version."""
        self._desc_version += 1
        return encode(
            Birth(
                session=self.session,
                epoch=self.epoch,
                desc_version=self._desc_version,
                stamp=self._stamper.now(),
                hardware=FACTS.hardware,
                software=FACTS.software,
                ladders=FACTS.ladders,
                capabilities=CAPABILITIES,
            )
        )

    def batch(self, records: Sequence[Record]) -> tuple[Encoded, Range]:
        """Sealed, with its numbers."""
        first, stamp = self._number(MAIN, len(records)), self._stamper.now()
        sealed = Batch(
            epoch=self.epoch,
            first_seq=first,
            count=len(records),
            boot=stamp.boot,
            clk=stamp.clk,
            columns=columns(records),
        )
        return batch.encode(sealed), (first, first + len(records) - 1)

    def event(self, kind: str, message: str) -> tuple[Encoded, Range]:
        seq, stamp = self._number(EVENTS, 1), self._stamper.now()
        event = EventMessage(epoch=self.epoch, seq=seq, stamp=stamp, kind=kind, severity="info", message=message)
        return encode(event), (seq, seq)

    def gap(self, stream: str, ranges: Sequence[Range]) -> Encoded:
        ts = self._stamper.now().ts
        reason = "dropped: the queue was full"
        return encode(Gap(epoch=self.epoch, stream=stream, ranges=tuple(ranges), reason=reason, ts=ts))

    def report(self, desired: TwinDesired) -> Encoded:
        """Takes a document that is newer, if it can be read, and says what is in force."""
        if desired.version > self._twin.desired_version:
            version = self._twin.version + 1
            try:
                doc = decode(bytes(desired.doc), TwinDocument)
                self._twin = TwinReported(epoch=self.epoch, version=version, desired_version=desired.version, doc=doc)
            except MessageError as error:
                errors = (TwinError(key="doc", message=str(error)),)
                self._twin = replace(self._twin, version=version, errors=errors, refused_version=desired.version)
        return encode(self._twin)

    def _number(self, stream: str, count: int) -> int:
        first = self._next[stream]
        self._next[stream] += count
        return first
