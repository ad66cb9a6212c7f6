"""The commands that this device knows.

arguments -> port -> result

Never decides whether an order is allowed or comes too late; that has been done (commands.py).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from flyball.ports import Steering
from flyball.uplink.commands import Handler

AUTO = "auto"

Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Seconds = Annotated[float, Meta(gt=0, le=30 * 86400)]


class PingArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    echo: Text = ""


class PingResult(msgspec.Struct, frozen=True, kw_only=True):
    echo: str


class RungArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold a rung, for a time or until the next order; "auto" lets the governor choose again."""

    ladder: Name
    rung: Name
    for_s: Seconds | None = None

    def __post_init__(self) -> None:
        if self.rung == AUTO and self.for_s is not None:
            raise ValueError(f'for_s: goes with the name of a rung, not with "{AUTO}"')


class RungResult(msgspec.Struct, frozen=True, kw_only=True):
    ladder: str
    rung: str
    switched: bool
    open_s: float | None = None
    gap_s: float | None = None


def ping() -> Handler[PingArgs]:
    async def run(args: PingArgs) -> PingResult:
        return PingResult(echo=args.echo)

    return Handler(name="ping", args=PingArgs, run=run)


def rung(steering: Steering) -> Handler[RungArgs]:
    async def run(args: RungArgs) -> RungResult:
        if args.rung == AUTO:
            await steering.release(args.ladder)
            return RungResult(ladder=args.ladder, rung=AUTO, switched=False)
        report = await steering.pin(args.ladder, args.rung, args.for_s)
        if report is None:
            return RungResult(ladder=args.ladder, rung=args.rung, switched=False)
        switched = report.source != report.target  # not so where a hard limit keeps the ladder where it is
        return RungResult(
            ladder=args.ladder, rung=report.target, switched=switched, open_s=report.open_s, gap_s=report.gap_s
        )

    return Handler(name="rung", args=RungArgs, run=run)
