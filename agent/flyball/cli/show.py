"""Looking at the daemon: status, ls, devices; and steering it: switch, reload."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from flyball.cli.terminal import (
    ConfigOption,
    JsonOption,
    SocketOption,
    client,
    err,
    mebibytes,
    milliseconds,
    out,
    percent,
    print_json,
    seconds,
    table,
)
from flyball.engine.devices import list_devices
from flyball.errors import ConfigError, ControlError
from flyball.ports import AcceleratorInfo, RungStatus

_MARKS = {"active": "[green]●[/]", "standby": "[yellow]○[/]", "failed": "[red]✗[/]"}


def status(
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show what the daemon serves, measures and has decided."""
    now = client(socket, config).status()
    if as_json:
        print_json(now)
        return
    power = next((r for r in now.readings if r.quantity == "power"), None)
    watts = "no power figure" if power is None else f"{power.value:.2f} W ({power.scope})"
    out.print(f"[bold]flyball {now.version}[/]  up {now.uptime_s:.0f} s  governor {now.mode}  {watts}")
    rows = []
    for entry in now.ladders:
        ladder, window = entry.status, entry.window
        state = "[green]ready[/]" if ladder.state == "ready" else f"[red]{ladder.state}[/]"
        p50, p95 = (milliseconds(window.p50_s), milliseconds(window.p95_s)) if window else ("-", "-")
        rows.append((ladder.name, ladder.version, state, ladder.active or "-", p50, p95, str(ladder.pending)))
    out.print(table(("ladder", "version", "state", "active rung", ">p50 ms", ">p95 ms", ">pending"), rows))
    for entry in now.ladders:
        for rung in entry.status.rungs:
            if rung.error:
                out.print(f"[red]{entry.status.name}/{rung.name}[/]: {rung.error}", soft_wrap=True)
    for health in now.sensors:
        if health.state in ("failed", "stale"):
            out.print(f"[red]sensor {health.sensor}[/] {health.state}: {health.reason}", soft_wrap=True)


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
        out.print(table(("", "rung", "precision", ">accuracy", ">p50 ms", ">memory", "state"),
                        [_rung_row(r) for r in entry.status.rungs], title))  # fmt: skip
    if not now.ladders:
        out.print("no ladder is in service: `flyball ladder add DIR` installs one")


def _rung_row(rung: RungStatus) -> tuple[str, ...]:
    memory = mebibytes(rung.rss_bytes) if rung.state in ("active", "standby") else "-"
    return (
        _MARKS.get(rung.state, " "),
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
    out.print(table(("backend", "kind", "id", ""), rows))


def switch(
    ladder: Annotated[str, typer.Argument(help="A ladder in service.")],
    rung: Annotated[str, typer.Argument(help='A rung to hold, or "auto" to let the governor choose again.')],
    for_: Annotated[str, typer.Option("--for", help="How long to hold it: 30s, 10m, 2h (default: until auto).")] = "",
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
) -> None:
    """Hold a ladder on one rung, or let it go. No request fails because of it.

    Example: flyball switch defects r112-int8 --for 10m
    """
    report = client(socket, config).switch(ladder, rung, seconds(for_) if for_ else None)
    if rung == "auto":
        out.print(f"{ladder}: the governor chooses")
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
        out.print(line)
    for line in report.restart_needed:
        err.print(f"[yellow]needs a restart:[/] {line}")
    if report.problems:
        raise ConfigError("what could not be applied stayed as it was", report.problems)
    if not report.applied and not report.restart_needed:
        out.print("nothing had changed")
