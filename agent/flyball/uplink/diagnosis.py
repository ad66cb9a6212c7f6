"""What a person at the other end asks first: how is the machine, how is it set up, what did it say lately.

sections (functions of the daemon) -> redacted -> cut to fit -> one JSON result of at most MOST_BYTES

It travels as the result of the command `diag`, in one retained message, deflated; nothing is split or stored. Never
lets one section that fails keep the others away, and never sends a secret (redaction.py).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from flyball.uplink.commands import Handler, Order
from flyball.uplink.logbook import Logbook, LogLine
from flyball.uplink.redaction import redact, redact_tree

log = logging.getLogger(__name__)

MOST_BYTES = 56 * 1024  # of a result; execution.MOST_RESULT_BYTES is 64 KiB
LOG_LINES = 100  # in a bundle
MOST_SECTION = 16 * 1024

# What the daemon can tell: anything that msgspec turns into JSON.
Section = Callable[[], Awaitable[Any]]


class DiagArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sections` chooses; all of them by default."""

    sections: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=32)] = ()


class DiagResult(msgspec.Struct, frozen=True, kw_only=True):
    """`cut` names the sections that had to be left out or shortened."""

    sections: Mapping[str, Any]
    errors: Mapping[str, str] = {}
    cut: tuple[str, ...] = ()


class LogsArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    lines: Annotated[int, Meta(ge=1, le=1000)] = 200
    level: Literal["info", "warning", "error"] = "info"


class LogsResult(msgspec.Struct, frozen=True, kw_only=True):
    """The newest last; `cut` says that older ones did not fit."""

    lines: tuple[LogLine, ...]
    cut: bool = False


def diag(sections: Mapping[str, Section], logbook: Logbook, known: Collection[str] = ()) -> Handler[DiagArgs]:
    """`known` are secrets of this machine."""

    async def logs_now() -> list[LogLine]:
        return list(logbook.newest(LOG_LINES))

    every: dict[str, Section] = {**sections, "logs": logs_now}

    async def run(args: DiagArgs, order: Order) -> DiagResult:
        found: dict[str, Any] = {}
        errors = {name: "no such section" for name in args.sections if name not in every}
        wanted = [name for name in every if not args.sections or name in args.sections]
        for number, name in enumerate(wanted):
            await order.step("collecting", round(number / len(wanted), 2))
            try:
                plain = msgspec.json.decode(msgspec.json.encode(await every[name]()))
                found[name] = redact_tree(plain, known)
            except Exception as error:
                # The boundary of this loop.
                log.warning("diag: %s cannot be told: %s", name, error)
                errors[name] = redact(f"{type(error).__name__}: {error}", known)[:500]
        return fit(found, errors)

    return Handler(name="diag", args=DiagArgs, run=run, on_restart="resume")


def logs(logbook: Logbook) -> Handler[LogsArgs]:
    async def run(args: LogsArgs, _: Order) -> LogsResult:
        wanted = logbook.newest(args.lines, logging.getLevelName(args.level.upper()))
        lines: list[LogLine] = []
        room = MOST_BYTES
        for line in reversed(wanted):
            room -= len(msgspec.json.encode(line)) + 1
            if room < 0:
                break
            lines.append(line)
        return LogsResult(lines=tuple(reversed(lines)), cut=len(lines) < len(wanted))

    return Handler(name="logs", args=LogsArgs, run=run, on_restart="resume")


def fit(found: Mapping[str, Any], errors: Mapping[str, str]) -> DiagResult:
    """Lists lose their oldest entries, and what is then too large still is left out."""
    sections: dict[str, Any] = {}
    cut: list[str] = []
    room = MOST_BYTES - len(msgspec.json.encode(errors))
    for name, value in found.items():
        most = min(MOST_SECTION, room - len(name) - 8)
        shorter = _shortened(value, most)
        if shorter is not value:
            cut.append(name)
        if shorter is not None:
            sections[name] = shorter
            room -= _size(shorter) + len(name) + 8
    return DiagResult(sections=sections, errors=errors, cut=tuple(cut))


def _shortened(value: Any, most: int) -> Any:
    if _size(value) <= most:
        return value
    if isinstance(value, list):
        kept: list[Any] = []
        for item in reversed(value):
            most -= _size(item) + 1
            if most < 2:
                break
            kept.append(item)
        return kept[::-1] or None
    return None


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
