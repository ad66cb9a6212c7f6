"""`flyball fleet serve` and `simulate`: what runs until it is ended.

arguments -> Settings -> Server, Exporter; Address, N -> simulated Fleet. Ends on SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from flyball.cli.terminal import err, out, seconds
from flyball.clock import SystemClock
from flyball.errors import ConfigError
from flyball.uplink.topics import Device
from flyball_fleet import address, metrics, schema
from flyball_fleet.limits import Limits
from flyball_fleet.options import (
    FAILED,
    STALE_AFTER,
    TENANT,
    UNREACHABLE,
    Broker,
    Ca,
    Cert,
    Json,
    Key,
    PasswordFile,
    StaleAfter,
    Tenant,
    Username,
    exits,
    print_json,
    to_address,
)
from flyball_fleet.server import Server, Settings
from flyball_fleet.simulate.device import Habits
from flyball_fleet.simulate.fleet import Fleet

MIB = 1 << 20


def serve(
    broker: Broker = address.DEFAULT,
    db: Annotated[
        Path, typer.Option("--db", envvar="FLYBALL_FLEET_DB", help="The file; made when it is not there.")
    ] = schema.DEFAULT_PATH,
    metrics_at: Annotated[
        str, typer.Option("--metrics", help='Where Prometheus may ask: ":9109", "127.0.0.1:9109", "" for nowhere.')
    ] = ":9109",
    id: Annotated[str, typer.Option("--id", help="This server's name; each needs its own (default: host name).")] = "",
    tenant: Tenant = TENANT,
    share: Annotated[
        bool, typer.Option("--share", help="Divide telemetry and events with other servers that are started so.")
    ] = False,
    leave: Annotated[
        bool, typer.Option("--leave", help="Give up this server's session at the broker, and end.")
    ] = False,
    keep_days: Annotated[float, typer.Option("--keep-days", min=0.01, help="How long records are kept.")] = 30.0,
    keep_mib: Annotated[int, typer.Option("--keep-mib", min=16, help="How large the file may grow.")] = 4096,
    most_devices: Annotated[int, typer.Option("--most-devices", min=1, help="More are refused.")] = 10_000,
    stale_after: StaleAfter = STALE_AFTER,
    username: Username = "",
    password_file: PasswordFile = "",
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
) -> None:
    """Keep what the devices say: status, births, telemetry, events, gaps, orders. Until SIGTERM or Ctrl-C.

    Nothing is acknowledged to the broker before it is on the disk, so neither a kill nor a power cut loses what was.
    Several servers with --share divide the work: on one host they may use the same file, on several hosts each has its
    own. Without --share each keeps everything.

    Example: flyball fleet serve --broker mqtt://10.0.0.5 --db fleet.db --metrics 127.0.0.1:9109
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    clock = SystemClock()
    with exits():
        settings = Settings(
            address=to_address(broker, username, password_file, ca, cert, key),
            db=db,
            id=id or socket.gethostname().split(".")[0],
            tenant=tenant,
            shared=share,
            limits=Limits(keep_days=keep_days, keep_bytes=keep_mib * MIB, devices=most_devices),
        )
        server = Server(settings, clock)
        if leave:
            asyncio.run(server.leave())
            return
        end = _listen(metrics_at, metrics.Exporter(db, server.counters, server.writer, clock, seconds(stale_after)))
        try:
            asyncio.run(_until_signal(server.run))
        finally:
            end()


def _listen(where: str, exporter: metrics.Exporter) -> Callable[[], None]:
    if not where:
        return lambda: None
    try:
        return metrics.listen(where, exporter)
    except (ValueError, OverflowError) as error:
        raise ConfigError("metrics cannot be served", [f"--metrics {where}: expected :PORT or HOST:PORT"]) from error
    except OSError as error:
        raise ConfigError("metrics cannot be served", [f"--metrics {where}: {error.strerror or error}"]) from error


def simulate(
    number: Annotated[int, typer.Argument(min=1, max=100_000, help="How many devices.")],
    rate: Annotated[float, typer.Option("--rate", min=0.001, max=1000, help="Records a second of each device.")] = 1.0,
    for_: Annotated[str, typer.Option("--seconds", help="End after so long, as 90 or 10m (default: Ctrl-C).")] = "",
    batch: Annotated[str, typer.Option("--batch", help="How long records gather before they are sent.")] = "10s",
    prefix: Annotated[str, typer.Option("--prefix", help="Devices are PREFIX-0001 and so on.")] = "sim",
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same machines.")] = 0,
    sent: Annotated[Path | None, typer.Option("--sent", help="Write down here what was sent, for the ledger.")] = None,
    broker: Broker = address.DEFAULT,
    tenant: Tenant = TENANT,
    username: Username = "",
    password_file: PasswordFile = "",
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Play devices that do not exist: status, telemetry, events; they answer ping and rung.

    They speak the daemon's own protocol code. Their figures are made up. Each needs a file descriptor.

    Example: flyball fleet simulate 50 --rate 1 --seconds 60 --sent sent.json
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    with exits():
        where = to_address(broker, username, password_file, ca, cert, key)
        Device(tenant, f"{prefix}-{number}")  # raises MessageError
        habits = Habits(rate_hz=rate, batch_s=max(0.1, seconds(batch)))
        fleet = Fleet(where, tenant, number, habits, SystemClock(), prefix=prefix, seed=seed)
    claims = asyncio.run(_play(fleet, seconds(for_) if for_ else None, out.is_terminal and not as_json))
    if sent is not None:
        sent.write_bytes(msgspec.json.encode(claims))
    streams = [s for epochs in claims.values() for s in epochs.values()]
    numbers = {name: sum(s[name] for s in streams) for name in ("main", "events")}
    connected = sum(device.connects > 0 for device in fleet.devices)
    if as_json:
        print_json({"devices": number, "connected": connected, "connects": fleet.connects(), "sent": numbers})
    else:
        out.print(
            f"{connected} of {number} devices were connected; "
            f"sent {numbers['main']} records, {numbers['events']} events"
        )
    if fleet.failed():
        err.print(f"error: {fleet.failed()}", soft_wrap=True)
        raise typer.Exit(FAILED)
    if connected < number:
        raise typer.Exit(UNREACHABLE)


async def _play(fleet: Fleet, limit_s: float | None, tell: bool) -> dict[str, dict[str, dict[str, int]]]:
    async def play() -> None:
        await fleet.start()
        shown = -1
        while not fleet.failed():
            if tell and fleet.ready() != shown:
                shown = fleet.ready()
                out.print(f"{shown} of {len(fleet.devices)} ready")
            await asyncio.sleep(1.0)

    async def limited() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(play(), limit_s)

    await _until_signal(limited)
    return await fleet.stop()


async def _until_signal(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs it to its end, or to SIGTERM or SIGINT, and lets it clean up."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
