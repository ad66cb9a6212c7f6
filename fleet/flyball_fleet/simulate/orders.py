"""What a simulated device does with orders: the states of uplink/commands.py over an effect in memory.

request -> receive -> examine -> accepted, executing, successful -> states to be told, in order. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from flyball.uplink import commands
from flyball.uplink.commands import Handler, Handlers, Order, Row
from flyball.uplink.stamp import Stamp
from flyball_fleet.simulate.machine import LADDER, Machine

MOST_KEPT = 256  # orders; a real device keeps them for 30 days
AUTO = "auto"


class PingArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    echo: str = ""


class RungArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ladder: str
    rung: str
    for_s: float | None = None


async def _never(_args: Any, _order: Order) -> None:
    raise NotImplementedError


HANDLERS: Handlers = {
    "ping": Handler(name="ping", args=PingArgs, run=_never),
    "rung": Handler(name="rung", args=RungArgs, run=_never),
}
CAPABILITIES = commands.capabilities(HANDLERS, tuple(HANDLERS))


class Orders:
    """`effects` counts what was carried out, each order once."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._kept: dict[str, Row] = {}
        self.effects = 0

    def receive(self, kind: str, id: str, payload: bytes, expiry_s: float | None, now: Stamp) -> Iterator[Row]:
        """The states to publish; of a repetition, the stored one."""
        fresh = commands.receive(kind, id, payload, expiry_s, now)
        known = self._kept.get(id)
        if known is not None:
            if commands.same_order(known, fresh):
                yield known
            return
        if fresh.final():
            yield self._keep(fresh)
            return
        args = commands.examine(fresh, HANDLERS, tuple(HANDLERS))
        if isinstance(args, str):
            yield self._keep(commands.refuse(fresh, args))
            return
        row = commands.advance(fresh, "accepted")
        yield self._keep(row)
        row = commands.advance(row, "executing")
        yield self._keep(row)
        yield self._keep(self._carry_out(row, args))

    def _carry_out(self, row: Row, args: msgspec.Struct) -> Row:
        result: dict[str, object]
        if isinstance(args, RungArgs):
            if args.ladder != LADDER:
                return commands.advance(row, "failed", reason=f"no ladder {args.ladder!r} here; there is {LADDER}")
            before = self._machine.rung
            try:
                if args.rung != AUTO:
                    self._machine.pin(args.rung)
            except KeyError:
                return commands.advance(row, "failed", reason=f"{LADDER} has no rung {args.rung!r}")
            result = {"ladder": LADDER, "rung": args.rung, "switched": self._machine.rung != before}
        else:
            assert isinstance(args, PingArgs)
            result = {"echo": args.echo}
        self.effects += 1
        return commands.advance(row, "successful", result=msgspec.json.encode(result))

    def _keep(self, row: Row) -> Row:
        self._kept[row.id] = row
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return row
