"""What the payloads hold, and how they become bytes.

Struct -> encode -> JSON, deflated when large (user property enc=deflate) -> decode -> Struct, or MessageError

Pure. Every message carries `schema`, so that a receiver can tell what it does not know yet. None stays null: what was
not measured is never a zero.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from flyball.errors import MessageError
from flyball.ports import AcceleratorInfo
from flyball.uplink import columns
from flyball.uplink.stamp import Stamp

SCHEMA = 1
MAX_PAYLOAD = 128 * 1024  # what a bridge to AWS IoT still carries
# Below this a message fits one TCP segment either way, and stays readable with mosquitto_sub.
DEFLATE_ABOVE = 1400
MAX_INFLATED = 4 * 1024 * 1024  # a batch of 600 records of 60 columns is 0.3 MB; more is an attack
MAX_TTL_S = 21 * 86400.0  # command ids are kept for 30 days, session expiry is 7

MAX_VERSION = 2**53  # of a desired document: beyond it JSON readers lose digits
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z"  # of groups and tags

Setting = float | int | bool | str | None
Cell = columns.Cell
Link = Literal["unverified", "verified", "denied"]
Presence = Literal["init", "ready", "sleeping", "disconnected", "lost"]
Json = msgspec.Raw


class Message(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = SCHEMA


class Status(Message, frozen=True, kw_only=True):
    """`commands` says whether orders are known to arrive: a broker may grant a subscription and yet send nothing."""

    state: Presence
    session: int
    epoch: str
    ts: float
    commands: Link = "unverified"


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    board: str = ""
    machine: str = ""  # as uname -m has it
    cores: int | None = None
    memory_b: int | None = None
    accelerators: tuple[AcceleratorInfo, ...] = ()


class Software(msgspec.Struct, frozen=True, kw_only=True):
    flyball: str
    python: str = ""
    os: str = ""
    kernel: str = ""


class RungFacts(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    precision: str = ""
    accuracy: float | None = None


class LadderFacts(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    rungs: tuple[RungFacts, ...] = ()


class BirthFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon knows of itself; the uplink adds who and when."""

    hardware: Hardware
    software: Software
    ladders: tuple[LadderFacts, ...] = ()


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    command: str
    args: Json  # JSON Schema


class Birth(Message, frozen=True, kw_only=True):
    session: int
    epoch: str
    desc_version: int  # grows with every rebirth of this session
    stamp: Stamp
    hardware: Hardware
    software: Software
    ladders: tuple[LadderFacts, ...]
    capabilities: tuple[Capability, ...]


class BatchHeader(Message, frozen=True, kw_only=True):
    """Of `count` records of one boot and one state of the clock; record i has the number first_seq + i in its (stream,
    epoch). `hist`: told late. `thinned`: how many measured records one of these stands for, after a long time offline;
    the numbers of the others are told as a gap."""

    epoch: str
    first_seq: int
    count: int
    boot: str
    clk: Literal["synced", "unsynced"]
    hist: bool = False
    thinned: int = 1


class Batch(BatchHeader, frozen=True, kw_only=True):
    """As a table: one cell per record in every column."""

    columns: Mapping[str, tuple[Cell, ...]]


class BatchMessage(BatchHeader, frozen=True, kw_only=True):
    """As it travels (batch.py): a column is a list of cells, or packed (columns.py)."""

    columns: Mapping[str, columns.Packed]


class Gap(Message, frozen=True, kw_only=True):
    """What the receiver lacks of these ranges (both ends included) will not come."""

    epoch: str
    stream: str
    ranges: tuple[tuple[int, int], ...]
    reason: str
    ts: float


class EventMessage(Message, frozen=True, kw_only=True):
    epoch: str
    seq: int
    stamp: Stamp
    kind: str
    severity: Literal["info", "warning", "error"]
    message: str
    ladder: str = ""
    detail: Mapping[str, str | float | int | bool | None] = {}


class Alarm(Message, frozen=True, kw_only=True):
    epoch: str
    stamp: Stamp
    message: str


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An order. Unknown members are let pass, so that a newer fleet can talk to an older device; unknown arguments
    are not."""

    schema: Literal[1] = 1
    args: Json = Json(b"{}")
    ttl_s: Annotated[float, Meta(gt=0, le=MAX_TTL_S)] | None = None
    expires_at: float | None = None
    expect_version: int | None = None


class CommandState(Message, frozen=True, kw_only=True):
    state: str
    rev: int
    ts: float
    epoch: str
    step: str = ""
    progress: float | None = None
    reason: str = ""
    result: Json = Json(b"null")


class TwinDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the fleet wants of a device. `config` are dotted keys of the configuration (configuring.py lists them);
    None leaves alone what is set."""

    groups: Annotated[tuple[Annotated[str, Meta(pattern=NAME)], ...], Meta(max_length=64)] = ()
    tags: Annotated[
        Mapping[Annotated[str, Meta(pattern=NAME)], Annotated[str, Meta(max_length=256)]], Meta(max_length=64)
    ] = {}
    config: Annotated[Mapping[str, Setting], Meta(max_length=256)] | None = None


class TwinDesired(Message, frozen=True, kw_only=True):
    version: Annotated[int, Meta(ge=1, le=MAX_VERSION)]
    doc: Json


class TwinError(msgspec.Struct, frozen=True, kw_only=True):
    key: str  # dotted, below doc; "version" for the version itself
    message: str


class TwinReported(Message, frozen=True, kw_only=True):
    """`version` grows with every report, `desired_version` is that of the document in force, `errors` are of the last
    one that was refused."""

    epoch: str
    version: int
    desired_version: int
    doc: TwinDocument
    errors: tuple[TwinError, ...] = ()
    refused_version: int | None = None


class Signal(Message, frozen=True, kw_only=True):
    """What a server says on sig/<name>: rebirth (send the birth again), sync (send what waits now), probe (the answer
    to e/probe). An empty payload does as well."""

    server: str = ""
    ts: float | None = None


class ServerState(Message, frozen=True, kw_only=True):
    """Retained at _server/<id>/state, and the server's will."""

    state: Literal["online", "offline", "lost"]
    session: str = ""
    ts: float


class Encoded(msgspec.Struct, frozen=True, kw_only=True):
    payload: bytes
    deflated: bool


M = TypeVar("M")


def encode(message: msgspec.Struct) -> Encoded:
    """Raises MessageError when the result is larger than the protocol allows."""
    plain = msgspec.json.encode(message)
    deflated = zlib.compress(plain) if len(plain) > DEFLATE_ABOVE else plain
    smaller = len(deflated) < len(plain)
    payload = deflated if smaller else plain
    if len(payload) > MAX_PAYLOAD:
        raise MessageError(f"{type(message).__name__}: {len(payload)} bytes, expected at most {MAX_PAYLOAD}")
    return Encoded(payload=payload, deflated=smaller)


def decode(payload: bytes, kind: type[M], *, deflated: bool = False) -> M:
    """Raises MessageError that names the member which is wrong."""
    try:
        return msgspec.json.decode(inflate(payload) if deflated else payload, type=kind)
    except (msgspec.MsgspecError, zlib.error, UnicodeDecodeError) as error:
        raise MessageError(f"{error}") from error
    except RecursionError:  # thousands of nested brackets
        raise MessageError("JSON is nested too deeply") from None


def inflate(payload: bytes, most: int = MAX_INFLATED) -> bytes:
    """Raises MessageError."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(payload, most)
    except zlib.error as error:
        raise MessageError(f"enc=deflate: {error}") from error
    if not inflater.eof:
        raise MessageError(f"enc=deflate: cut off, or more than {most} bytes when inflated")
    return data
