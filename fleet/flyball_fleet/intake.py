"""What a device's message says, checked before anything is stored.

topic, payload -> Arrival (who, what, decoded), or MessageError. Pure; hostile input ends here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flyball.errors import MessageError
from flyball.uplink import batch, topics
from flyball.uplink.columns import MAX_INT
from flyball.uplink.messages import (
    MAX_PAYLOAD,
    Alarm,
    Batch,
    Birth,
    CommandState,
    EventMessage,
    Gap,
    Status,
    TwinDesired,
    TwinReported,
    decode,
    inflate,
)

MOST_RANGES = 256  # of one gap message
MOST_EPOCH = 64
MOST_INFLATED = 256 * 1024  # of all but batches: what is kept of them is kept inflated
MOST_WORD = 1024  # characters of one cell
MOST_RESULT = 64 * 1024  # of one command; a device fails a command that gives more
_MOST_CELL = 2**63  # more is no measurement, and has no place in a float
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # of ladders and rungs, as manifests have them


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """`kind` is status, birth, t, e, gap, a, twin or st; `name` the stream, event, alarm, side or command type."""

    device: str
    kind: str
    name: str = ""
    id: str = ""
    message: Any = None  # None: an alarm that is cleared, a retained topic that was emptied
    retain: bool = False


class Ignored(Exception):
    """A message that is none of ours: of a server, or an order."""


def read(topic: str, payload: bytes, *, deflated: bool = False, retain: bool = False) -> Arrival:
    """Raises MessageError for what a device must not send, Ignored for what comes from somebody else."""
    if len(payload) > MAX_PAYLOAD:
        raise MessageError(f"{len(payload)} bytes, expected at most {MAX_PAYLOAD}")
    if topic.split("/")[3:4] and topic.split("/")[3].startswith("_"):
        raise Ignored  # _server, _all, _g.<group>
    where = topics.parse(topic)
    device = where.device.device
    batches = isinstance(where, topics.Plain) and where.suffix == "t"
    if deflated and payload and not batches:
        payload, deflated = inflate(payload, MOST_INFLATED), False
    if isinstance(where, topics.Command):
        if where.part != "st":
            raise Ignored
        state = _command_state(payload, deflated) if payload else None
        return Arrival(device=device, kind="st", name=where.kind, id=where.id, message=state, retain=retain)
    if where.suffix == "sig":
        raise Ignored
    message: Any = None
    if payload or where.suffix not in ("a", "status", "birth", "twin"):
        suffix = f"twin/{where.name}" if where.suffix == "twin" else where.suffix
        if suffix not in _READ:
            raise MessageError(f"{suffix}: no topic that a device writes to")
        message = _READ[suffix](payload, deflated)
    return Arrival(device=device, kind=where.suffix, name=where.name, message=message, retain=retain)


def _batch(payload: bytes, deflated: bool) -> Batch:
    found = batch.decode(payload, deflated=deflated)
    _epoch(found.epoch)
    for name, cells in found.columns.items():
        for cell in cells:
            if isinstance(cell, int) and abs(cell) > _MOST_CELL:
                raise MessageError(f"columns.{name[:64]}: a number beyond what can be reckoned with")
            if isinstance(cell, str) and len(cell) > MOST_WORD:
                raise MessageError(
                    f"columns.{name[:64]}: a word of {len(cell)} characters, expected at most {MOST_WORD}"
                )
    return found


def _status(payload: bytes, deflated: bool) -> Status:
    status = decode(payload, Status, deflated=deflated)
    _epoch(status.epoch)
    _number("session", status.session)
    return status


def _birth(payload: bytes, deflated: bool) -> Birth:
    birth = decode(payload, Birth, deflated=deflated)
    _epoch(birth.epoch)
    _number("session", birth.session)
    _number("desc_version", birth.desc_version)
    for ladder in birth.ladders:
        for name in (ladder.name, *(rung.name for rung in ladder.rungs)):
            if not _NAME.fullmatch(name):
                raise MessageError(
                    f"ladders: expected names of 1 to 64 letters, digits, '.', '_' or '-', found {name[:80]!r}"
                )
    return birth


def _event(payload: bytes, deflated: bool) -> EventMessage:
    event = decode(payload, EventMessage, deflated=deflated)
    _epoch(event.epoch)
    _number("seq", event.seq)
    return event


def _alarm(payload: bytes, deflated: bool) -> Alarm:
    return decode(payload, Alarm, deflated=deflated)


def _gap(payload: bytes, deflated: bool) -> Gap:
    gap = decode(payload, Gap, deflated=deflated)
    _epoch(gap.epoch)
    if len(gap.ranges) > MOST_RANGES:
        raise MessageError(f"ranges: expected at most {MOST_RANGES}, found {len(gap.ranges)}")
    for first, last in gap.ranges:
        _number("ranges", first)
        _number("ranges", last)
        if last < first:
            raise MessageError(f"ranges: [{first}, {last}] ends before it begins")
    return gap


def _desired(payload: bytes, deflated: bool) -> TwinDesired:
    return decode(payload, TwinDesired, deflated=deflated)


def _reported(payload: bytes, deflated: bool) -> TwinReported:
    reported = decode(payload, TwinReported, deflated=deflated)
    _epoch(reported.epoch)
    _number("version", reported.version)
    return reported


def _command_state(payload: bytes, deflated: bool) -> CommandState:
    state = decode(payload, CommandState, deflated=deflated)
    _epoch(state.epoch)
    _number("rev", state.rev)
    if len(state.result) > MOST_RESULT:
        raise MessageError(f"result: {len(state.result)} bytes, expected at most {MOST_RESULT}")
    return state


def _number(what: str, value: int) -> None:
    if not 0 <= value <= MAX_INT:
        raise MessageError(f"{what}: expected 0 to {MAX_INT}, found {str(value)[:40]}")


def _epoch(text: str) -> None:
    if not 1 <= len(text) <= MOST_EPOCH or not text.isprintable() or not text.isascii():
        raise MessageError(f"epoch: expected 1 to {MOST_EPOCH} printable characters, found {text[:80]!r}")


_READ: Mapping[str, Callable[[bytes, bool], Any]] = {
    "status": _status,
    "birth": _birth,
    "t": _batch,
    "e": _event,
    "gap": _gap,
    "a": _alarm,
    "twin/desired": _desired,
    "twin/reported": _reported,
}
