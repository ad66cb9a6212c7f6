"""What every command shares: where the daemon is, how things are printed, how errors end."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from flyball.client import Client
from flyball.config import Config, load
from flyball.errors import EX_CONFIG, ConfigError, FlyballError, LadderError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

SocketOption = typer.Option(
    "--socket", envvar="FLYBALL_SOCKET", help="The daemon's socket; without it, the one its configuration names."
)
ConfigOption = typer.Option(
    "--config", envvar="FLYBALL_CONFIG", help="Configuration file (default: /etc/flyball/flyball.toml)."
)
JsonOption = typer.Option("--json", help="Print JSON, for programs.")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?\Z")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def client(socket: Path | None, config: Path | None = None) -> Client:
    return Client(socket or load(config).paths.socket_path())


def configuration(path: Path | None) -> Config:
    return load(path)


def seconds(text: str) -> float:
    """ "90", "90s", "10m", "1.5h", "1d"."""
    match = _DURATION.match(text.strip())
    if match is None:
        raise typer.BadParameter(f"expected a duration such as 30s, 10m or 1.5h, found {text!r}")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """Columns whose name starts with ">" are right-aligned."""
    result = Table(title=title or None, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for position, column in enumerate(columns):
        # The first column names the row: it is never cut.
        result.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=position == 0,
            overflow="ignore" if position == 0 else "fold",
        )
    for row in rows:
        result.add_row(*row)
    return result


def print_json(value: Any) -> None:
    """Exactly the figures that the daemon gave; nothing is rounded."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False) + "\n")


def fail(error: FlyballError) -> int:
    """Prints an error and gives the exit code: 78 for what has to be changed in a file, else 1."""
    text = str(error)
    first, _, rest = text.partition("\n")
    err.print(f"[bold red]error:[/] {_plain(first)}", soft_wrap=True)
    if rest:
        err.print(_plain(rest), soft_wrap=True)
    return EX_CONFIG if isinstance(error, ConfigError | LadderError) else 1


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def milliseconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:.1f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def mebibytes(value: float | None) -> str:
    return "-" if value is None else f"{value / (1 << 20):.0f} MiB"


def at_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
