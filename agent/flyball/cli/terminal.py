"""What every command shares: where the daemon is, how things are printed, how errors end.

Nothing that is printed is read as markup: names, labels and paths are the user's, and may have square brackets. What is
to be coloured is a rich Text.
"""

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
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flyball.client import Client
from flyball.config import Config, load
from flyball.errors import EX_CONFIG, ConfigError, FlyballError, LadderError

out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

SocketOption = typer.Option(
    "--socket", envvar="FLYBALL_SOCKET", help="The daemon's socket; without it, the one its configuration names."
)
ConfigOption = typer.Option(
    "--config", envvar="FLYBALL_CONFIG", help="Configuration file (default: /etc/flyball/flyball.toml)."
)
JsonOption = typer.Option("--json", help="Print JSON, for programs.")

MOST_S = 30 * 86400.0  # as long as an order of the fleet may be; longer is a typing error or no time at all
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?\Z")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OBEYED = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_GAP = 2  # columns between two of a table: rich pads both sides of a cell
_UNBOUNDED = 10_000  # columns of a pipe or a file

Cell = str | Text


def client(socket: Path | None, config: Path | None = None) -> Client:
    return Client(socket or load(config).paths.socket_path())


def configuration(path: Path | None) -> Config:
    return load(path)


def seconds(text: str) -> float:
    """ "90", "90s", "10m", "1.5h", "1d"; 30 days at most."""
    match = _DURATION.match(text.strip())
    if match is None:
        raise typer.BadParameter(f"expected a duration such as 30s, 10m or 1.5h, found {text!r}")
    duration_s = float(match[1]) * _SECONDS[match[2] or "s"]
    if duration_s > MOST_S:
        raise typer.BadParameter(f"expected at most 30d, found {text!r}")
    return duration_s


def duration(span_s: float) -> str:
    """For people: "45 s", "12 min", "3.5 h", "2 d"."""
    for unit, size_s in (("d", 86400.0), ("h", 3600.0)):
        if span_s >= 2 * size_s:
            return f"{span_s / size_s:.1f} {unit}".replace(".0 ", " ")
    return f"{span_s / 60:.0f} min" if span_s >= 120 else f"{span_s:.0f} s"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], title: str = "") -> None:
    """A column's name may begin with marks: ">" right-aligned, "!" never broken or cut (names, paths: what is pasted),
    "?" left out, the last such column first, where the terminal is too narrow for all of them."""
    bounded = out.is_terminal or "COLUMNS" in os.environ
    console = out if bounded else Console(highlight=False, markup=False, emoji=False, width=_UNBOUNDED)
    console.print(table(columns, list(rows), title, console.width), crop=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], title: str, width: int) -> Table:
    """As print_table says, for `width` columns."""
    names = [column.lstrip(">!?") for column in columns]
    needs = [max(map(_width, [name, *(row[i] for row in rows)])) for i, name in enumerate(names)]
    kept = list(range(len(columns)))
    for position in reversed(range(len(columns))):
        if sum(needs[i] + _GAP for i in kept) - _GAP > width and "?" in _marks(columns[position]):
            kept.remove(position)
    result = Table(title=title or None, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for i in kept:
        whole = "!" in _marks(columns[i])
        result.add_column(
            names[i],
            justify="right" if ">" in _marks(columns[i]) else "left",
            no_wrap=whole,
            overflow="ignore" if whole else "fold",
            min_width=needs[i] if whole else None,
        )
    for row in rows:
        result.add_row(*(row[i] for i in kept))
    return result


def _marks(column: str) -> str:
    return column[: len(column) - len(column.lstrip(">!?"))]


def _width(cell: Cell) -> int:
    text = cell.plain if isinstance(cell, Text) else cell
    return max((cell_len(line) for line in text.splitlines()), default=0)


def print_json(value: Any) -> None:
    """Exactly the figures that the daemon gave; nothing is rounded. Where the terminal cannot show a character, JSON's
    own escapes stand for it."""
    plain = msgspec.to_builtins(value)
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeError:
        text = json.dumps(plain, indent=2)
    sys.stdout.write(f"{harmless(text)}\n")


def harmless(text: str) -> str:
    """JSON with escapes for what terminals obey and JSON lets pass: C1 controls, changes of the writing direction."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def fail(error: FlyballError) -> int:
    """Prints an error and gives the exit code: 78 for what has to be changed in a file, else 1."""
    first, _, rest = str(error).partition("\n")
    err.print(Text.assemble(("error:", "bold red"), " ", first), soft_wrap=True)
    if rest:
        err.print(rest, soft_wrap=True)
    return EX_CONFIG if isinstance(error, ConfigError | LadderError) else 1


def milliseconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:.1f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def mebibytes(value: float | None) -> str:
    return "-" if value is None else f"{value / (1 << 20):.0f} MiB"
