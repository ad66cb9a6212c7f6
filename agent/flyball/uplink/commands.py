"""The life of a command, as values; everything that affects it lives here.

request -> receive -> Row -> examine -> advance ... -> Row in a final state
                   \\-> same_order: a repetition, or another order under a used id

        received -> accepted -> executing -> verifying -> successful
            |           |           |            +------> failed, timed_out
            |           |           +-> successful, failed, timed_out, canceled
            |           +-> expired, canceled, failed
            +-> rejected, expired, canceled, failed

executing and verifying may also become themselves: another step, or progress.

Pure: takes values and a Stamp and gives values; it never reads a clock, a file or the network. `rev` grows with
every change. A deadline counts on the boot time clock from receipt, so that a jump of the wall clock neither expires
nor revives an order; after a reboot the wall clock decides if it can be trusted, and otherwise the order is expired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from flyball.errors import MessageError
from flyball.uplink.messages import MAX_PAYLOAD, Capability, CommandState, Request, decode, inflate
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
    "verifying": ("verifying", "successful", "failed", "timed_out"),
}
MOST_REASON = 2000  # characters; a reason may quote what a stranger sent
DEFAULT_TTL_S = 300.0  # of an order that says neither ttl_s nor a message expiry

A = TypeVar("A", bound=msgspec.Struct)


class Order(Protocol):
    """What a running command says of itself. What it says is on the disk before the call returns."""

    async def step(self, name: str, progress: float | None = None) -> None:
        """A new step, or how much of the one at hand is done (0 to 1)."""
        ...

    async def verifying(self, step: str) -> None:
        """From here on it is looked at what the command has done; said before a step that may end the daemon."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler(Generic[A]):
    """One type of command. `run` may raise FlyballError: the command failed, for that reason. `verify` looks, after a
    restart in the middle, whether the command has had its effect all the same, and raises FlyballError when not.
    `on_restart` is what becomes of one that was executing when the daemon ended: failed as interrupted, begun again,
    or verified."""

    name: str
    args: type[A]
    run: Callable[[A, Order], Awaitable[msgspec.Struct | None]]
    on_restart: Literal["fail", "resume", "verify"] = "fail"
    verify: Callable[[A], Awaitable[msgspec.Struct | None]] | None = None

    def __post_init__(self) -> None:
        if (self.on_restart == "verify") != (self.verify is not None):
            raise ValueError(f"command {self.name}: on_restart = verify goes with a function that verifies")


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


def receive(
    kind: str,
    id: str,
    payload: bytes,
    expiry_s: float | None,
    stamp: Stamp,
    *,
    version: int | None = None,
    deflated: bool = False,
) -> Row:
    """The order as it came: received, or rejected when it cannot be read. `version` is that of the desired document
    in force, None on a device that has none."""
    try:
        if len(payload) > MAX_PAYLOAD:
            raise MessageError(f"{len(payload)} bytes, expected at most {MAX_PAYLOAD}")
        request = decode(inflate(payload, MAX_PAYLOAD) if deflated else payload, Request)
        args = _canonical(bytes(request.args))
        if request.expect_version not in (None, version):
            held = "this device has no desired document" if version is None else f"the one in force here is {version}"
            raise MessageError(f"expect_version: {request.expect_version}, and {held}")
    except MessageError as error:
        # Nothing of an unreadable order is kept but its hash.
        row = _row(kind, id, payload, stamp, Request(), expiry_s)
        return refuse(row, f"request: {error}")
    return _row(kind, id, args, stamp, request, expiry_s)


def examine(row: Row, handlers: Handlers, allowed: Collection[str]) -> msgspec.Struct | str:
    """The arguments of an order that this device accepts, else why it does not."""
    if row.type not in handlers:
        return f"unknown command {row.type!r}; this device knows {', '.join(sorted(handlers)) or 'none'}"
    if row.type not in allowed:
        return f"command {row.type!r} is not allowed here (uplink.commands.allow: {', '.join(allowed) or 'none'})"
    try:
        args: msgspec.Struct = decode(row.args, handlers[row.type].args)
    except MessageError as error:
        return f"args: {error}"
    return args


def refuse(row: Row, reason: str) -> Row:
    """Rejected from the start: the order is never on disk in another state."""
    return msgspec.structs.replace(row, state="rejected", reason=_cut(reason), args=b"")


def same_order(known: Row, fresh: Row) -> bool:
    return known.digest == fresh.digest


def advance(
    row: Row,
    state: State,
    *,
    step: str = "",
    progress: float | None = None,
    reason: str = "",
    result: bytes = b"null",
) -> Row:
    """Raises ValueError for a step that the machine does not have."""
    if state not in NEXT.get(row.state, ()):
        raise ValueError(f"command {row.id}: no way from {row.state} to {state}")
    return msgspec.structs.replace(
        row,
        state=state,
        rev=row.rev + 1,
        step=_cut(step),
        progress=progress,
        reason=_cut(reason),
        result=result,
        # What is over needs its arguments no more: the digest tells repetitions from other orders.
        args=b"" if state in FINAL else row.args,
    )


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
        if handler is not None and handler.on_restart == "verify":
            return advance(row, "verifying", step="after a restart")
        if row.state == "executing" and handler is not None and handler.on_restart == "resume":
            return row
        return advance(row, "failed", reason=f"interrupted: the daemon ended while it was {row.state}{_at(row)}")
    return row


def survives(row: Row, handlers: Handlers) -> bool:
    """Whether a daemon that ends in good order leaves this order to the next one."""
    handler = handlers.get(row.type)
    return handler is not None and handler.on_restart != "fail"


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


def _at(row: Row) -> str:
    return f" ({row.step})" if row.step else ""


def _cut(reason: str) -> str:
    return reason if len(reason) <= MOST_REASON else reason[: MOST_REASON - 3] + "..."
