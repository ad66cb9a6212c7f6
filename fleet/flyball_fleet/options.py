"""What the fleet's commands share: where the broker and the file are, and how errors end.

options -> Address; FlyballError -> one line and an exit code: 2 what was asked for is wrong, 3 nobody is reached
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from flyball.cli import terminal
from flyball.cli.terminal import fail
from flyball.errors import ConfigError, LinkError, MessageError, RequestError, StateError
from flyball_fleet import address, schema
from flyball_fleet.address import Address

FAILED, USAGE, UNREACHABLE = 1, 2, 3

Broker = Annotated[
    str, typer.Option("--broker", envvar="FLYBALL_BROKER", help="mqtt://HOST:PORT or mqtts://HOST:PORT.")
]
Tenant = Annotated[str, typer.Option("--tenant", envvar="FLYBALL_TENANT", help="As uplink.tenant of the devices says.")]
Username = Annotated[str, typer.Option("--username", envvar="FLYBALL_BROKER_USERNAME", help="Of the broker's account.")]
PasswordFile = Annotated[
    str, typer.Option("--password-file", envvar="FLYBALL_BROKER_PASSWORD_FILE", help="File with the password.")
]
Ca = Annotated[str, typer.Option("--ca", envvar="FLYBALL_BROKER_CA", help="PEM of the broker's authority (mqtts).")]
Cert = Annotated[str, typer.Option("--cert", envvar="FLYBALL_BROKER_CERT", help="PEM of our certificate (mqtts).")]
Key = Annotated[str, typer.Option("--key", envvar="FLYBALL_BROKER_KEY", help="PEM of our private key (mqtts).")]
Databases = Annotated[
    list[Path] | None,
    typer.Option(
        "--db",
        envvar="FLYBALL_FLEET_DB",
        help=f"The server's file, several for several servers (default: {schema.DEFAULT_PATH}).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
StaleAfter = Annotated[
    str, typer.Option("--stale-after", help="Without a sign of life for so long, a device is stale.")
]
TENANT = "default"
STALE_AFTER = "180s"


def to_address(url: str, username: str, password_file: str, ca: str, cert: str, key: str) -> Address:
    return address.parse(url, username=username, password_file=password_file, ca=ca, cert=cert, key=key)


def files(db: Sequence[Path] | None) -> list[Path]:
    return list(db or [schema.DEFAULT_PATH])


def print_json(value: Any) -> None:
    """As the terminal's own, also of values with raw JSON inside."""
    terminal.print_json(msgspec.json.decode(msgspec.json.encode(value)))


@contextmanager
def exits() -> Iterator[None]:
    """Ends the command with the exit code that scripts expect."""
    try:
        yield
    except (LinkError, StateError) as error:
        fail(error)
        raise typer.Exit(UNREACHABLE) from None
    except (RequestError, ConfigError, MessageError) as error:
        fail(error)
        raise typer.Exit(USAGE) from None
