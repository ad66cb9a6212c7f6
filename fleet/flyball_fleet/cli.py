"""`flyball fleet`: the commands that read what the server has stored.

arguments -> view, ledger -> tables, JSON, exit codes. The other commands are in cli_orders.py and cli_run.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from flyball.cli.terminal import duration, harmless, out, print_table, seconds, table
from flyball.clock import SystemClock
from flyball.errors import ConfigError, RequestError, StateError
from flyball_fleet import cli_orders, cli_run, tables, view
from flyball_fleet import ledger as ledgers
from flyball_fleet.options import FAILED, STALE_AFTER, Databases, Json, StaleAfter, exits, files, print_json
from flyball_fleet.spans import shown
from flyball_fleet.tables import plain
from flyball_fleet.targets import Member, select
from flyball_fleet.view import Row

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The other end of the uplink: keep what many devices say, look at it, and give orders.\n\n"
    "Try it without a device: [bold]flyball fleet serve --db fleet.db[/], [bold]flyball fleet simulate 20[/], then "
    "[bold]flyball fleet watch --db fleet.db[/] and [bold]flyball fleet send @all ping[/]. Exit codes: 0 all "
    "successful, 1 some failed, 2 wrong usage, 3 nobody reached or no answer in time.",
)
_clock = SystemClock()
LOOK_AGAIN_S = 0.5

Targets = Annotated[list[str] | None, typer.Argument(help="DEVICE, @group or tag=value; all when left out.")]


@app.command()
def ls(
    targets: Targets = None,
    state: Annotated[str, typer.Option("--state", help="Only those: ready, stale, lost, disconnected, ...")] = "",
    db: Databases = None,
    stale_after: StaleAfter = STALE_AFTER,
    as_json: Json = False,
) -> None:
    """List the devices with their state, rung, latency and power.

    A device that was not heard for a while is "stale", whatever it said last, and shows no figures.

    Example: flyball fleet ls @press --state stale
    """
    with exits():
        rows = [r for r in _rows(db, stale_after, targets) if state in ("", r.state)]
    if as_json:
        print_json(rows)
        return
    now = _clock.wall_s()
    if rows:
        print_table(tables.COLUMNS, [tables.cells(r, now) for r in rows])
    out.print(tables.summary(rows))


@app.command()
def watch(
    targets: Targets = None,
    every: Annotated[str, typer.Option("--every", help="How often to look.")] = "1s",
    for_: Annotated[str, typer.Option("--for", help="End after so long (default: Ctrl-C).")] = "",
    db: Databases = None,
    stale_after: StaleAfter = STALE_AFTER,
    as_json: Json = False,
) -> None:
    """Show the devices live, those with trouble first. With --json, or into a pipe, one JSON line a look.

    Example: flyball fleet watch site=oslo
    """
    period_s, end_s = max(0.1, seconds(every)), time.monotonic() + seconds(for_) if for_ else None
    lines = as_json or not out.is_terminal
    with exits():
        if lines:
            while True:
                rows = _rows(db, stale_after, targets)
                lines_of = [msgspec.structs.replace(row, birth=None) for row in rows]  # `ls --json` has it, once
                sys.stdout.write(harmless(msgspec.json.encode(lines_of).decode()) + "\n")
                sys.stdout.flush()
                if not _sleep(period_s, end_s):
                    return
        with Live(console=out, auto_refresh=False, screen=True) as live:
            while True:
                rows = _rows(db, stale_after, targets)
                live.update(frame(rows, _clock.wall_s(), out.width, out.height), refresh=True)
                if not _sleep(period_s, end_s):
                    return


def frame(rows: Sequence[Row], now: float, width: int, height: int) -> RenderableType:
    """One screen: what fits, and how many do not."""
    ordered = tables.urgent_first(rows)
    room = max(1, height - 4)
    kept = ordered if len(ordered) <= room else ordered[: room - 1]
    parts: list[RenderableType] = [Text(tables.summary(rows), style="bold", no_wrap=True, overflow="ellipsis")]
    if kept:
        parts.append(table(tables.COLUMNS, [tables.cells(r, now) for r in kept], "", width))
    if len(kept) < len(ordered):
        parts.append(Text(f"{len(ordered) - len(kept)} more (a taller window, or @group, shows them)", style="dim"))
    return Group(*parts)


@app.command()
def show(
    device: Annotated[str, typer.Argument(help="A device.")],
    db: Databases = None,
    stale_after: StaleAfter = STALE_AFTER,
    as_json: Json = False,
) -> None:
    """Show one device: what it is, what it serves, its last record, alarms, orders, events and gaps."""
    with exits():
        rows = [r for r in _rows(db, stale_after, None) if r.device == device]
        if not rows:
            raise RequestError(f"no device {device!r} is known here; `flyball fleet ls` lists them")
        more = view.details(files(db), device)
    row = rows[0]
    if as_json:
        print_json({**msgspec.structs.asdict(row), **more})
        return
    now = _clock.wall_s()
    heard = "never heard" if row.heard_at is None else f"heard {duration(max(0.0, now - row.heard_at))} ago"
    state = (row.state, tables.COLOURS.get(row.state, ""))
    about = f"  {heard}  session {row.session}, epoch {row.epoch}"
    out.print(Text.assemble((device, "bold"), "  ", state, about), soft_wrap=True)
    _show_birth(row)
    for name, text in sorted(row.alarms.items()):
        out.print(Text.assemble((f"alarm {name}", "red"), f": {plain(text)}"), soft_wrap=True)
    if row.record:
        print_table(("!last record", ">"), [(plain(name), plain(str(cell), 200)) for name, cell in row.record.items()])
    elif row.state == "stale":
        out.print("stale: its last record is no figure of today, so none is shown")
    _show_twin(more.get("twin", {}))
    orders = [(c["id"], c["type"], plain(c["state"]), plain(c["reason"]) or "-") for c in more.get("commands", [])]
    if orders:
        print_table(("!order", "type", "state", "why"), orders)
    if row.orders_dropped or row.results_dropped:
        out.print(f"no longer kept here: {row.orders_dropped} of its orders, {row.results_dropped} results of orders")
    events = [
        (str(e["seq"]), plain(e["kind"]), e["severity"], plain(e["message"], 500)) for e in more.get("events", [])[:8]
    ]
    if events:
        print_table((">event", "kind", "severity", "message"), events)
    for gap in more.get("gaps", [])[:5]:
        out.print(f"gap {plain(gap['stream'])} {gap['first']}-{gap['last']}: {plain(gap['reason'])}", soft_wrap=True)
    for refused in more.get("rejected", [])[:5]:
        topic = plain(refused["topic"].split("/", 4)[-1])
        out.print(Text.assemble((f"not usable: {topic}", "yellow"), f": {plain(refused['reason'])}"), soft_wrap=True)
    if row.missing_records:
        out.print(f"{row.missing_records} numbers are missing: `flyball fleet ledger {device}`")


def _show_birth(row: Row) -> None:
    birth = row.birth
    if birth is None:
        out.print("it has not introduced itself here yet (no birth)")
        return
    parts = [birth.hardware.board, birth.hardware.machine, f"flyball {birth.software.flyball}", birth.software.os]
    out.print("  ".join(plain(p, 200) for p in parts if p), soft_wrap=True)
    for ladder in birth.ladders:
        out.print(
            f"ladder {ladder.name} {plain(ladder.version, 64)}: {', '.join(r.name for r in ladder.rungs)}",
            soft_wrap=True,
        )
    takes = ", ".join(plain(c.command, 64) for c in birth.capabilities) or "no orders"
    out.print(f"takes {takes}; orders {row.commands}", soft_wrap=True)


def _show_twin(twin: dict[str, Any]) -> None:
    desired, reported = twin.get("desired"), twin.get("reported")
    if desired:
        doc = msgspec.json.encode(desired["doc"]).decode()
        out.print(f"wanted (version {desired['version']}): {plain(doc)}", soft_wrap=True)
    if reported:
        out.print(f"in force: version {reported['desired_version']}")
        for error in reported["errors"]:
            out.print(
                Text.assemble(("refused", "red"), f" {plain(error['key'])}: {plain(error['message'])}"), soft_wrap=True
            )


@app.command()
def ledger(
    targets: Annotated[list[str] | None, typer.Argument(help="Devices; all when left out.")] = None,
    sent: Annotated[
        Path | None, typer.Option("--sent", help="What the devices say they sent (simulate --sent writes it).")
    ] = None,
    wait: Annotated[str, typer.Option("--wait", help="Look again for so long until it adds up.")] = "",
    db: Databases = None,
    as_json: Json = False,
) -> None:
    """Prove delivery: received + declared gaps = sent, for every device, epoch and stream. Exit code 1 when not.

    Without --sent, "sent" goes up to the highest number seen. A device that still hands on what it kept while it was
    offline has holes until it is done.

    Example: flyball fleet ledger --db a.db --db b.db
    """
    end_s = time.monotonic() + (seconds(wait) if wait else 0.0)
    with exits():
        claims = _claims(sent) if sent else None
        lines = _balance(db, claims, targets)
        while not (lines and all(line.adds_up for line in lines)) and _sleep(LOOK_AGAIN_S, end_s):
            lines = _balance(db, claims, targets)
        unknown = sorted(set(targets or ()) - {line.device for line in lines})
        if unknown:
            raise RequestError(f"nothing has come from {', '.join(unknown)}; `flyball fleet ls` lists the devices")
        if not lines:
            raise StateError("nothing has come from any device yet, so there is nothing to add up")
    wrong = [line for line in lines if not line.adds_up]
    if as_json:
        print_json({"adds_up": not wrong, "lines": lines})
    else:
        rows = [
            (
                x.device, plain(x.epoch[:8]), plain(x.stream), str(x.received), str(x.gaps), str(x.sent),
                Text("adds up", style="green") if x.adds_up else Text(_wrong(x), style="red"),
            )
            for x in lines
        ]  # fmt: skip
        if rows:
            print_table(("!device", "?epoch", "stream", ">received", ">gaps", ">sent", ""), rows)
        totals = (sum(x.received for x in lines), sum(x.gaps for x in lines), sum(x.sent for x in lines))
        verdict = "adds up" if not wrong else f"{len(wrong)} of {len(lines)} streams do not add up"
        equal = "=" if not wrong else "but"
        out.print(
            f"received {totals[0]} + declared gaps {totals[1]} {equal} sent {totals[2]}: {verdict}", soft_wrap=True
        )
    if wrong:
        raise typer.Exit(FAILED)


def _balance(db: Sequence[Path] | None, sent: ledgers.Sent | None, targets: Sequence[str] | None) -> list[ledgers.Line]:
    lines = ledgers.balance(view.spans(files(db)), sent)
    return [line for line in lines if not targets or line.device in targets]


def _wrong(line: ledgers.Line) -> str:
    if line.missing:
        return f"{line.missing} missing: {shown(line.ranges)}"
    return f"{line.surplus} more than were sent"


def _claims(file: Path) -> ledgers.Sent:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, dict[str, int]]])
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError("what was sent cannot be read", [f"{file}: {error}"]) from error


def _rows(db: Sequence[Path] | None, stale_after: str, targets: Sequence[str] | None) -> list[Row]:
    rows = view.devices(files(db), _clock.wall_s(), seconds(stale_after))
    if not targets:
        return rows
    members = {r.device: Member(r.state, r.groups, r.tags) for r in rows}
    wanted = {name for target in targets for name in select(target, members)}
    return [r for r in rows if r.device in wanted]


def _sleep(period_s: float, end_s: float | None) -> bool:
    if end_s is not None and time.monotonic() + period_s > end_s:
        return False
    time.sleep(period_s)
    return True


app.command()(cli_run.serve)
app.command()(cli_run.simulate)
app.command()(cli_orders.send)
app.add_typer(cli_orders.twin, name="twin")
