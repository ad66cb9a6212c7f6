"""Looking at the daemon: status, ls, devices; and steering it: switch, reload."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from flyball.cli.terminal import (
    Cell,
    ConfigOption,
    JsonOption,
    SocketOption,
    client,
    duration,
    err,
    mebibytes,
    milliseconds,
    out,
    percent,
    print_json,
    print_table,
    seconds,
)
from flyball.client import Client
from flyball.clock import SystemClock
from flyball.control_api import AUTO, Status
from flyball.engine.devices import list_devices
from flyball.errors import ConfigError, ControlError, NotFoundError
from flyball.ports import AcceleratorInfo, Decision, RungStatus
from flyball.sensing.total import total_power

_MARKS = {"active": ("●", "green"), "standby": ("○", "yellow"), "failed": ("✗", "red")}
_LOOK_AGAIN_S = 0.1
_ALL_KEPT = 10_000  # decisions; the daemon keeps far fewer


class Reasons(msgspec.Struct, frozen=True, kw_only=True):
    """Why a ladder is where it is: what was decided last, and the last change of rung, made or tried (None: none is
    remembered)."""

    last: Decision
    last_change: Decision | None


def status(
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
    wait: Annotated[
        str, typer.Option(help="Wait so long at most for the daemon and its ladders to come up: 10s, 1m.")
    ] = "",
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show what the daemon serves and measures, what holds it, and what it decided last and why.

    Example: flyball status --wait 10s
    """
    connection = client(socket, config)
    now = _wait(connection, seconds(wait)) if wait else connection.status()
    reasons = _reasons(connection, now)
    if as_json:
        print_json({**msgspec.to_builtins(now), "decisions": reasons})
        return
    power = total_power(now.readings)
    watts = "no power figure" if power is None else f"{power.value:.2f} W ({power.scope})"
    title = (f"flyball {now.version}", "bold")
    out.print(Text.assemble(title, f"  up {now.uptime_s:.0f} s  governor {now.mode}  {watts}"))
    rows: list[tuple[Cell, ...]] = []
    for entry in now.ladders:
        ladder, window = entry.status, entry.window
        state = Text(ladder.state, style="green" if ladder.state == "ready" else "red")
        p50, p95 = (milliseconds(window.p50_s), milliseconds(window.p95_s)) if window else ("-", "-")
        rows.append((ladder.name, ladder.version, state, ladder.active or "-", p50, p95, str(ladder.pending)))
    print_table(("!ladder", "?version", "state", "!active rung", "?>p50 ms", ">p95 ms", "?>pending"), rows)
    for line in _why(now, reasons, SystemClock().monotonic_s()):
        out.print(line, soft_wrap=True)
    for entry in now.ladders:
        for rung in entry.status.rungs:
            if rung.error:
                out.print(Text.assemble((f"{entry.status.name}/{rung.name}", "red"), f": {rung.error}"), soft_wrap=True)
    for health in now.sensors:
        if health.state in ("failed", "stale"):
            name = (f"sensor {health.sensor}", "red")
            out.print(Text.assemble(name, f" {health.state}: {health.reason}"), soft_wrap=True)
        elif health.state == "ok" and health.reason:
            name = (f"sensor {health.sensor}", "yellow")
            out.print(Text.assemble(name, f" in part: {health.reason}"), soft_wrap=True)


def _wait(connection: Client, limit_s: float) -> Status:
    """The status, once a ladder is in service and none is being loaded. Raises ControlError after `limit_s`."""
    end_s = time.monotonic() + limit_s
    while True:
        try:
            now = connection.status()
            loading = [v.status.name for v in now.ladders if v.status.state == "loading"]
            if now.ladders and not loading:
                return now
            why = f"still loading: {', '.join(loading)}" if loading else "no ladder is in service"
        except ControlError as error:
            why = str(error)
        if time.monotonic() >= end_s:
            raise ControlError(f"not ready within {limit_s:g} s: {why}")
        time.sleep(_LOOK_AGAIN_S)


def _reasons(connection: Client, now: Status) -> dict[str, Reasons]:
    found = {}
    for name in (entry.status.name for entry in now.ladders):
        try:
            decisions = connection.decisions(name, _ALL_KEPT)
        except NotFoundError:
            continue  # taken out of service between the two questions
        if decisions:
            changes = [d for d in decisions if d.source != d.target and (d.acted or d.error)]
            found[name] = Reasons(last=decisions[-1], last_change=changes[-1] if changes else None)
    return found


def _why(now: Status, reasons: dict[str, Reasons], now_s: float) -> list[Text]:
    """One line for each pin, last change and last decision. The daemon's times are this machine's monotonic clock."""
    lines = []
    for name in (entry.status.name for entry in now.ladders):
        for pin in (p for p in now.pins if p.ladder == name):
            until = "until released" if pin.until_s is None else f"for {duration(max(0.0, pin.until_s - now_s))} more"
            forced = ", against the limits of temperature and memory too" if pin.force else ""
            lines.append(Text.assemble((f"{name}: ", "bold"), f"held on {pin.rung} {until}{forced}"))
        if name in reasons:
            last, change = reasons[name].last, reasons[name].last_change
            lines += [_told(name, d, now_s) for d in (change, last) if d is not None and (d is last or d != last)]
    return lines


def _told(ladder: str, decision: Decision, now_s: float) -> Text:
    moved = decision.source != decision.target
    what = f"{decision.source or 'none'} -> {decision.target}" if moved else f"stays on {decision.source or 'none'}"
    if moved and decision.error:
        what += f" failed ({decision.error})"
    elif moved and not decision.acted:
        what += " advised only"
    ago = f" ({duration(max(0.0, now_s - decision.t_s))} ago)"
    return Text.assemble((f"{ladder}: ", "bold"), what, f": {decision.reason}", (ago, "dim"))


def ls(
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the ladders in service with their rungs."""
    now = client(socket, config).status()
    if as_json:
        print_json([entry.status for entry in now.ladders])
        return
    for entry in now.ladders:
        pinned = next((p.rung for p in now.pins if p.ladder == entry.status.name), "")
        title = f"{entry.status.name} {entry.status.version}" + (f"  (pinned to {pinned})" if pinned else "")
        columns = ("", "!rung", "?precision", "?>accuracy", ">p50 ms", "?>memory", "state")
        print_table(columns, [_rung_row(r) for r in entry.status.rungs], title)
    if not now.ladders:
        out.print("no ladder is in service: `flyball ladder add DIR` installs one")


def _rung_row(rung: RungStatus) -> tuple[Cell, ...]:
    memory = mebibytes(rung.rss_bytes) if rung.state in ("active", "standby") else "-"
    return (
        Text(*_MARKS.get(rung.state, (" ", ""))),
        rung.name,
        rung.precision or "-",
        percent(rung.accuracy),
        milliseconds(rung.profiled_p50_s),
        memory,
        rung.state,
    )


def devices(
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the accelerators of this machine, each backend asked in a process of its own."""
    found: list[AcceleratorInfo]
    try:
        found = list(client(socket, config).devices())
    except ControlError:
        found = asyncio.run(list_devices())
    if as_json:
        print_json(found)
        return
    rows = [(a.backend, a.kind, a.id, a.detail) for a in found]
    print_table(("!backend", "kind", "!id", "?"), rows)


def switch(
    ladder: Annotated[str, typer.Argument(help="A ladder in service.")],
    rung: Annotated[str, typer.Argument(help='A rung to hold, or "auto" to let the governor choose again.')],
    for_: Annotated[
        str, typer.Option("--for", help="How long to hold it: 30s, 10m, 2h, at most 30d (default: until auto).")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Hold it even against the limits of temperature and memory.")
    ] = False,
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
) -> None:
    """Hold a ladder on one rung, or let it go. No request fails because of it.

    A limit of temperature or memory that stands against the rung keeps the ladder where it is until it allows it.

    Example: flyball switch defects r112-fp32 --for 10m
    """
    report = client(socket, config).switch(ladder, rung, seconds(for_) if for_ else None, force)
    if rung == AUTO:
        out.print(f"{ladder}: the governor chooses")
    elif report is not None and report.target != rung:
        out.print(f"{ladder}: stays on {report.target}; a limit stands against {rung} now (see flyball status)")
    elif report is None or report.source == rung:
        out.print(f"{ladder}: held on {rung}, which was active already")
    else:
        gap = f", {report.gap_s * 1e3:.0f} ms without a rung" if report.gap_s else ""
        out.print(f"{ladder}: {report.source} -> {rung} in {report.open_s * 1e3:.0f} ms{gap}")


def reload(
    socket: Annotated[Path | None, SocketOption] = None, config: Annotated[Path | None, ConfigOption] = None
) -> None:
    """Apply the changed configuration and ladders without losing a request (the same as SIGHUP)."""
    report = client(socket, config).reload()
    for line in report.applied:
        out.print(line, soft_wrap=True)
    for line in report.restart_needed:
        err.print(Text.assemble(("needs a restart:", "yellow"), f" {line}"), soft_wrap=True)
    if report.problems:
        raise ConfigError("what could not be applied stayed as it was", report.problems)
    if not report.applied and not report.restart_needed:
        out.print("nothing had changed")
