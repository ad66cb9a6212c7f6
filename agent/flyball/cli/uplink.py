"""`flyball uplink`: what an operator does on the device itself, whatever the fleet says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyball.cli.terminal import ConfigOption, configuration, out
from flyball.errors import StateError

app = typer.Typer(no_args_is_help=True, help="Look after the link to the fleet.")


@app.callback()
def options() -> None:
    """Look after the link to the fleet."""


@app.command("reset-twin")
def reset_twin(
    version: Annotated[int, typer.Option(min=0, help="The next desired document has to be newer than this.")] = 0,
    config: Annotated[Path | None, ConfigOption] = None,
) -> None:
    """Set back the version of the desired document, after somebody has sent one that is far too high.

    What is in force stays. A running daemon takes up the fleet's document at its next connect, or when a new one comes.

    Example: sudo flyball uplink reset-twin
    """
    from flyball.uplink.state import FILE_NAME, StateFile
    from flyball.uplink.twin import reset

    folder = configuration(config).paths.state_dir()
    if not (folder / FILE_NAME).is_file():  # made here it would be root's, and the daemon could not write it
        raise StateError(f"{folder / FILE_NAME} is not there: the uplink has not run on this machine yet")
    file = StateFile(folder)
    try:
        before = reset(file, version)
    finally:
        file.close()
    out.print(f"the desired document's version was {before} and is {version}")
