"""The life of a command, as values; everything that affects it lives here.

request -> receive -> Row -> examine -> advance ... -> Row in a final state
                   \\-> same_order: a repetition, or another order under a used id

        received -> accepted -> executing -> verifying -> successful
            |           |           |            +------> failed, timed_out
            |           |           +-> successful, failed, timed_out, canceled
            |           +-> expired, canceled, failed
            +-> rejected, expired, canceled, failed

Pure: takes values and a Stamp and gives values; it never reads a clock, a file or the network. `rev` grows with
every change. A deadline counts on the boot time clock from receipt, so that a jump of the wall clock neither expires
nor revives an order; after a reboot the wall clock decides if it can be trusted, and otherwise the order is expired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec

from flyball.errors import MessageError
from flyball.uplink.messages import MAX_PAYLOAD, Capability, CommandState, Request, decode
from flyball.uplink.stamp import Stamp

State = Literal[
    "received", "accepted", "rejected", "executing", "verifying", "successful", "failed", "timed_out", "canceled",
    "expired",
]  # fmt: skip
FINAL: Collection[State] = ("rejected", "successful", "failed", "timed_out", "canceled", "expired")
NEXT: Mapping[State, Collection[State]] = {
    "received": ("accepted", "rejected", "expired", "canceled", "failed"),
    "accepted": ("executing", "expired", "canceled", "failed"),
    "executing": ("executing", "verifying", "successful", "failed", "timed_out", "canceled"),
    "verifying": ("successful", "failed", "timed_out"),
}
MOST_REASON = 2000  # characters; a reason may quote what a stranger sent
DEFAULT_TTL_S = 300.0  # of an order that says neither ttl_s nor a message expiry

A = TypeVar("A", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler(Generic[A]):
    """One type of command. `run` may raise FlyballError: the command failed, for that reason. `on_restart` is what
    becomes of one that was executing when the daemon ended: failed as interrupted, or begun again."""

    name: str
    args: type[A]
    run: Callable[[A], Awaitable[msgspec.Struct | None]]
    on_restart: Literal["fail", "resume"] = "fail"


Handlers = Mapping[str, Handler[Any]]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One command as the journal keeps it. `deadline` is on the boot time clock of `boot`; `told` is the last rev
    that the broker has acknowledged."""

    id: str
    type: str
    digest: str  # of type and arguments
    args: bytes
    state: State
    rev: int
    ts: float
    mono: float
    boot: str
    clk: Literal["synced", "unsynced"]
    deadline: float
    expires_at: float | None = None
    step: str = ""
    progress: float | None = None
    reason: str = ""
    result: bytes = b"null"
    told: int = 0

    def final(self) -> bool:
        return self.state in FINAL


def receive(kind: str, id: str, payload: bytes, expiry_s: float | None, stamp: Stamp) -> Row:
    """The order as it came: received, or rejected when it cannot be read."""
    try:
        if len(payload) > MAX_PAYLOAD:
            raise MessageError(f"{len(payload)} bytes, expected at most {MAX_PAYLOAD}")
        request = decode(payload, Request)
        args = _canonical(bytes(request.args))
        if request.expect_version is not None:
            raise MessageError("expect_version: this device has no versioned document to compare with")
    except MessageError as error:
        # Nothing of an unreadable order is kept but its hash.
        row = _row(kind, id, payload, stamp, Request(), expiry_s)
        return refuse(msgspec.structs.replace(row, args=b""), f"request: {error}")
    return _row(kind, id, args, stamp, request, expiry_s)


def examine(row: Row, handlers: Handlers, allowed: Collection[str]) -> msgspec.Struct | str:
    """The arguments of an order that this device accepts, else why it does not."""
    if row.type not in handlers:
        return f"unknown command {row.type!r}; this device knows {', '.join(sorted(handlers)) or 'none'}"
    if row.type not in allowed:
        return f"command {row.type!r} is not allowed here (uplink.commands: {', '.join(allowed) or 'none'})"
    try:
        args: msgspec.Struct = decode(row.args, handlers[row.type].args)
    except MessageError as error:
        return f"args: {error}"
    return args


def refuse(row: Row, reason: str) -> Row:
    """Rejected from the start: the order is never on disk in another state."""
    return msgspec.structs.replace(row, state="rejected", reason=_cut(reason))


def same_order(known: Row, fresh: Row) -> bool:
    return known.digest == fresh.digest


def advance(row: Row, state: State, *, step: str = "", reason: str = "", result: bytes = b"null") -> Row:
    """Raises ValueError for a step that the machine does not have."""
    if state not in NEXT.get(row.state, ()):
        raise ValueError(f"command {row.id}: no way from {row.state} to {state}")
    return msgspec.structs.replace(row, state=state, rev=row.rev + 1, step=step, reason=_cut(reason), result=result)


def remaining_s(row: Row, now: Stamp) -> float:
    """Seconds until the deadline; not positive when it has passed, or when nobody can tell."""
    if row.boot == now.boot and now.mono >= row.mono:
        left = row.deadline - now.mono
    elif row.clk == now.clk == "synced":
        left = row.deadline - row.mono - (now.ts - row.ts)
    else:
        return 0.0
    if row.expires_at is not None and now.clk == "synced":
        left = min(left, row.expires_at - now.ts)
    return left


def after_restart(row: Row, handlers: Handlers) -> Row:
    """What becomes of an order that the last daemon left unfinished."""
    if row.state in ("executing", "verifying"):
        handler = handlers.get(row.type)
        if row.state == "executing" and handler is not None and handler.on_restart == "resume":
            return row
        return advance(row, "failed", reason="interrupted: the daemon ended while it was executing")
    return row


def state_message(row: Row, epoch: str, now: Stamp) -> CommandState:
    return CommandState(
        state=row.state,
        rev=row.rev,
        ts=now.ts,
        epoch=epoch,
        step=row.step,
        progress=row.progress,
        reason=row.reason,
        result=msgspec.Raw(row.result),
    )


def capabilities(handlers: Handlers, allowed: Collection[str]) -> tuple[Capability, ...]:
    """What this device takes, for its birth message."""
    return tuple(
        Capability(command=name, args=msgspec.Raw(msgspec.json.encode(msgspec.json.schema(handlers[name].args))))
        for name in sorted(handlers)
        if name in allowed
    )


def _row(kind: str, id: str, args: bytes, stamp: Stamp, request: Request, expiry_s: float | None) -> Row:
    limits = [s for s in (request.ttl_s, expiry_s) if s is not None] or [DEFAULT_TTL_S]
    return Row(
        id=id,
        type=kind,
        digest=hashlib.sha256(kind.encode() + b"\0" + args).hexdigest(),
        args=args,
        state="received",
        rev=1,
        ts=stamp.ts,
        mono=stamp.mono,
        boot=stamp.boot,
        clk=stamp.clk,
        deadline=stamp.mono + min(limits),
        expires_at=request.expires_at,
    )


def _canonical(args: bytes) -> bytes:
    """The same arguments give the same bytes, whatever the order of members and the white space."""
    value = decode(args, dict[str, Any])
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (RecursionError, ValueError) as error:
        raise MessageError(f"args: {error}") from error


def _cut(reason: str) -> str:
    return reason if len(reason) <= MOST_REASON else reason[: MOST_REASON - 3] + "..."
