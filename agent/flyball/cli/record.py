"""`flyball record`: what the governor sees and decides, into a file.

control socket -> JSON lines (governor/recording.py) -> FILE, until the time is over, the file is full, or Ctrl-C

Whatever ends it, the file up to there is whole lines, and `flyball replay` reads it. Never overwrites a file.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import msgspec
import typer
from rich.text import Text

from flyball.cli.terminal import ConfigOption, SocketOption, client, duration, err, out
from flyball.control_api import RECORDING_END
from flyball.errors import ControlError, FlyballError

MIB = 1 << 20


class _Ended(msgspec.Struct, tag="ended", tag_field="kind"):
    why: str


@dataclass(slots=True)
class _Tally:
    looks: int = 0
    changes: int = 0
    size: int = 0
    why: str = ""  # it ended; of the daemon's words

    def add(self, line: bytes) -> None:
        self.size += len(line)
        if line.startswith(b'{"kind":"looked"'):
            self.looks += 1
        elif line.startswith(b'{"kind":"done"'):
            self.changes += 1
        elif line.startswith(RECORDING_END):
            self.why = msgspec.json.decode(line, type=_Ended).why


def record(
    file: Annotated[Path, typer.Argument(help="A new file, such as monday.jsonl.")],
    seconds: Annotated[float | None, typer.Option(min=1, help="How long (default: until Ctrl-C).")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="The same in minutes.")] = None,
    max_mib: Annotated[float, typer.Option(min=0.01, help="The file grows to so much at most.")] = 64.0,
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
) -> None:
    """Record what the governor sees and decides, to look at it or to decide it again elsewhere.

    One line a period, some 3 KiB with one ladder. One recording at a time.

    Example: flyball record monday.jsonl --minutes 30
    """
    if seconds is not None and minutes is not None:
        raise typer.BadParameter("expected --seconds or --minutes, found both")
    limit_s = minutes * 60.0 if minutes is not None else seconds
    connection = client(socket, config)
    try:
        sink = cast(BinaryIO, file.open("xb", buffering=0))
    except FileExistsError:
        raise ControlError(f"{file} is there already; name a new file") from None
    tally, began_s, why = _Tally(), time.monotonic(), "the time is over"
    try:
        with sink, closing(connection.record(limit_s)) as lines:
            for line in lines:
                if tally.size + len(line) > max_mib * MIB:
                    why = f"it is as large as --max-mib allows ({max_mib:g} MiB)"
                    break
                _append(sink, line, tally.size)
                tally.add(line)
            else:
                why = tally.why or why
    except KeyboardInterrupt:
        why = "interrupted"
    except (OSError, FlyballError) as error:
        _remove_if_empty(file)
        told = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        if tally.size:
            err.print(_summary(file, tally, time.monotonic() - began_s, "it broke off"), soft_wrap=True)
        raise ControlError(f"{file}: {told}" if isinstance(error, OSError) else told) from None
    finally:
        _remove_if_empty(file)
    lost = bool(tally.why)
    (err if lost else out).print(_summary(file, tally, time.monotonic() - began_s, why), soft_wrap=True)
    if lost:
        raise ControlError(f"the recording ended early: {tally.why}")


def _append(sink: BinaryIO, line: bytes, size: int) -> None:
    """All of the line or nothing of it. Raises OSError."""
    try:
        rest = memoryview(line)
        while rest:
            rest = rest[sink.write(rest) :]
    except BaseException:
        sink.truncate(size)
        raise


def _remove_if_empty(file: Path) -> None:
    try:
        if not file.stat().st_size:
            file.unlink()
    except OSError:
        pass


def _summary(file: Path, tally: _Tally, span_s: float, why: str) -> Text:
    size = f"{tally.size / MIB:.1f} MiB" if tally.size >= MIB else f"{tally.size / 1024:.0f} KiB"
    changes = f"{tally.changes} change{'' if tally.changes == 1 else 's'} of rung"
    looks = f"{tally.looks} look{'' if tally.looks == 1 else 's'}"
    told = f"{looks} in {duration(span_s)}, {changes}, {size}: {why}"
    return Text.assemble((str(file), "bold"), f": {told}")
