"""`flyball fleet send` and `twin`: what is wanted of devices.

arguments -> targets -> Console -> states, reports -> tables, JSON, exit codes
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from flyball.cli.terminal import Cell, duration, out, print_table, seconds
from flyball.errors import RequestError
from flyball.uplink.commands import FINAL
from flyball.uplink.messages import MAX_TTL_S, CommandState, TwinReported
from flyball.uplink.topics import Device
from flyball_fleet import address, targets
from flyball_fleet.address import Address
from flyball_fleet.console import Console, open_console
from flyball_fleet.options import (
    FAILED,
    TENANT,
    UNREACHABLE,
    Broker,
    Ca,
    Cert,
    Json,
    Key,
    PasswordFile,
    Tenant,
    Username,
    exits,
    print_json,
    to_address,
)
from flyball_fleet.tables import plain

Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait for the answers.")]
Target = Annotated[str, typer.Argument(help="DEVICE, @group, tag=value or @all.")]
MOST_RESULT = 500  # characters of a result in a table; --json has all of it
SHOWN = 40  # rows of a table, the troubled ones first


def send(
    target: Target,
    command: Annotated[list[str], typer.Argument(help="The command and its arguments as NAME=VALUE.")],
    sample: Annotated[str, typer.Option("--sample", help="Only some of them at random: 5% or a number.")] = "",
    ttl: Annotated[str, typer.Option("--ttl", help="After so long a device must not begin any more.")] = "5m",
    timeout: Timeout = "30s",
    rate: Annotated[float, typer.Option("--rate", min=0.1, help="Orders a second.")] = 100.0,
    id: Annotated[str, typer.Option("--id", help="Repeat an order: the same id is never carried out twice.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say who is meant.")] = False,
    broker: Broker = address.DEFAULT,
    tenant: Tenant = TENANT,
    username: Username = "",
    password_file: PasswordFile = "",
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Give an order to devices and watch what becomes of it.

    Groups and tags are set with `flyball fleet twin set`. A device that is offline gets the order when it is
    back, until --ttl is over. Exit code 0: all successful; 1: some failed; 3: some did not answer in time.

    Example: flyball fleet send @press --sample 5% rung ladder=defects rung=r64-int8 for_s=600
    """
    with exits():
        where = to_address(broker, username, password_file, ca, cert, key)
        args = targets.arguments(command[1:])
        order = id or f"f-{secrets.token_hex(6)}"
        limits = (seconds(ttl), seconds(timeout))
        _check(tenant, target, command[0], order, limits[0])
        names, states = asyncio.run(
            _send(where, tenant, target, sample, dry_run, command[0], args, order, limits, rate, not as_json)
        )
    if dry_run:
        print_json(names) if as_json else out.print("\n".join(names))
        return
    silent = [n for n in names if n not in states or states[n].state not in FINAL]
    failed = [n for n in names if n in states and states[n].state in FINAL and states[n].state != "successful"]
    if as_json:
        print_json({"id": order, "devices": {n: states.get(n) for n in names}})
    else:
        _print_states(names, states)
        good = len(names) - len(silent) - len(failed)
        out.print(f"{order}: {good} successful, {len(failed)} failed, {len(silent)} without an answer in time")
    if failed or silent:
        raise typer.Exit(FAILED if failed else UNREACHABLE)


async def _send(
    where: Address,
    tenant: str,
    target: str,
    sample: str,
    dry_run: bool,
    kind: str,
    args: dict[str, object],
    order: str,
    limits_s: tuple[float, float],
    rate_hz: float,
    tell: bool,
) -> tuple[list[str], dict[str, CommandState]]:
    async with open_console(where, tenant) as console:
        names = await _names(console, target)
        if sample:
            names = targets.sample(names, sample, random.SystemRandom())
        if dry_run:
            return names, {}
        live = Live(console=out, auto_refresh=False) if tell and out.is_terminal and len(names) > 1 else None
        with live or _Quiet():

            def told(states: dict[str, CommandState]) -> None:
                if live is not None:
                    live.update(progress(len(names), states), refresh=True)

            states = await console.send(
                names, kind, args, id=order, ttl_s=limits_s[0], rate_hz=rate_hz, timeout_s=limits_s[1], told=told
            )
        return names, states


def progress(number: int, states: dict[str, CommandState]) -> Text:
    """One line: how many are in which state."""
    counts = Counter(s.state for s in states.values())
    waiting = number - len(states)
    parts = [f"{n} {plain(state, 32)}" for state, n in sorted(counts.items())] + (
        [f"{waiting} waiting"] if waiting else []
    )
    done = sum(counts[s] for s in FINAL)
    return Text(f"{done}/{number}  {', '.join(parts)}", no_wrap=True, overflow="ellipsis")


def _check(tenant: str, target: str, kind: str, id: str, ttl_s: float) -> None:
    """Before anybody is asked. Raises MessageError, RequestError."""
    one = "device" if _many(target) else target
    Device(tenant, one).request(kind, id)
    if not 0 < ttl_s <= MAX_TTL_S:
        raise RequestError(f"--ttl: expected more than 0 s and at most {duration(MAX_TTL_S)}, found {duration(ttl_s)}")


def _many(target: str) -> bool:
    return target.startswith("@") or "=" in target


async def _names(console: Console, target: str) -> list[str]:
    if _many(target):
        await console.learn("status", "twin/desired")
    return targets.select(target, console.members())


def _print_states(names: Sequence[str], states: dict[str, CommandState]) -> None:
    def good(name: str) -> bool:
        return name in states and states[name].state == "successful"

    ordered = sorted(names, key=lambda n: (good(n), n))
    rows: list[tuple[Cell, ...]] = []
    for name in ordered[:SHOWN]:
        state = states.get(name)
        text = Text(plain(state.state, 32) if state else "no answer", style="green" if good(name) else "red")
        rows.append((name, text, plain(state.reason or bytes(state.result).decode(), MOST_RESULT) if state else "-"))
    print_table(("!device", "state", "result"), rows)
    if len(ordered) > SHOWN:
        out.print(f"{len(ordered) - SHOWN} more, successful or alike (--json has all)")


twin = typer.Typer(
    no_args_is_help=True, help="What is wanted of devices, groups and tags included, and what is in force."
)


@twin.command("get")
def twin_get(
    target: Target,
    broker: Broker = address.DEFAULT,
    tenant: Tenant = TENANT,
    username: Username = "",
    password_file: PasswordFile = "",
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Show the desired document and what the device reports of it. Exit code 1 where one was refused."""
    with exits():
        where = to_address(broker, username, password_file, ca, cert, key)
        found = asyncio.run(_get(where, tenant, target))
    if as_json:
        print_json(found)
    else:
        for name, sides in found.items():
            _print_twin(name, sides)
    if any(sides["reported"] is not None and sides["reported"].errors for sides in found.values()):
        raise typer.Exit(FAILED)


async def _get(where: Address, tenant: str, target: str) -> dict[str, dict[str, Any]]:
    async with open_console(where, tenant) as console:
        await console.learn("status", "twin/desired", "twin/reported")
        names = targets.select(target, console.members())
        unknown = [n for n in names if n not in console.members() and n not in console.reported]
        if unknown:
            raise RequestError(f"nothing is known of {', '.join(unknown)} at this broker")
        return {n: {"desired": console.desired.get(n), "reported": console.reported.get(n)} for n in names}


def _print_twin(name: str, sides: dict[str, Any]) -> None:
    desired, reported = sides["desired"], sides["reported"]
    wanted = f"version {desired.version} {bytes(desired.doc).decode()}" if desired else "nothing"
    out.print(Text.assemble((name, "bold"), f": wanted {plain(wanted)}"), soft_wrap=True)
    if reported is None:
        out.print("  it has not reported yet")
        return
    behind = desired is not None and reported.desired_version < desired.version
    out.print(f"  in force: version {reported.desired_version}" + (", not the one that is wanted" if behind else ""))
    for error in reported.errors:
        out.print(Text.assemble(("  refused", "red"), f" {plain(error.key)}: {plain(error.message)}"), soft_wrap=True)


@twin.command("set")
def twin_set(
    target: Target,
    settings: Annotated[
        list[str], typer.Argument(help="groups=a,b, tags.NAME=VALUE, config.KEY=VALUE; NAME= takes it away.")
    ],
    timeout: Timeout = "10s",
    broker: Broker = address.DEFAULT,
    tenant: Tenant = TENANT,
    username: Username = "",
    password_file: PasswordFile = "",
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Change what is wanted of devices; the rest of their documents stays. Waits until they report it.

    Example: flyball fleet twin set line4 groups=press,hall2 tags.site=oslo
    """
    with exits():
        where = to_address(broker, username, password_file, ca, cert, key)
        versions, reports = asyncio.run(_set(where, tenant, target, settings, seconds(timeout)))
    refused = [n for n, r in reports.items() if r.desired_version < versions[n]]
    silent = [n for n in versions if n not in reports]
    if as_json:
        print_json({n: {"version": v, "reported": reports.get(n)} for n, v in versions.items()})
    else:
        for name, version in versions.items():
            verdict = "refused" if name in refused else "no report in time" if name in silent else "in force"
            out.print(f"{name}: version {version} {verdict}")
            for error in reports[name].errors if name in refused else ():
                out.print(Text.assemble((f"  {plain(error.key)}", "red"), f": {plain(error.message)}"), soft_wrap=True)
    if refused or silent:
        raise typer.Exit(FAILED if refused else UNREACHABLE)


async def _set(
    where: Address, tenant: str, target: str, settings: Sequence[str], timeout_s: float
) -> tuple[dict[str, int], dict[str, TwinReported]]:
    async with open_console(where, tenant) as console:
        await console.learn("status", "twin/desired", "twin/reported")
        names = targets.select(target, console.members())
        documents = {n: targets.changed(console.document(n), settings) for n in names}
        versions = {n: await console.set_twin(n, doc) for n, doc in documents.items()}
        return versions, await console.reports(versions, timeout_s)


class _Quiet:
    """In place of a live display."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
