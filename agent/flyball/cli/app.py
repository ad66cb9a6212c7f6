"""The command `flyball`: every subject's commands under one roof, and the one place where FlyballErrors end."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Annotated

import typer

from flyball import __version__
from flyball.cli import bench, doctor, energy, infer, ladder, serve, show, top
from flyball.cli.terminal import fail
from flyball.errors import FlyballError

app = typer.Typer(
    name="flyball",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Serve quantized models and keep the machine inside its limits.\n\n"
    "Start with [bold]flyball demo[/], or: ladder new MODEL --labels FILE, run --ladder DIR, infer LADDER FILE.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"flyball {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `flyball` itself."""


def _assemble() -> None:
    for command in (
        serve.run,
        serve.demo,
        show.status,
        top.top,
        show.ls,
        show.devices,
        doctor.doctor,
        infer.infer,
        bench.bench,
        energy.energy,
        show.switch,
        show.reload,
    ):
        app.command()(command)
    app.add_typer(ladder.app, name="ladder")
    app.add_typer(serve.config_app, name="config")
    for plugin in entry_points(group="flyball.cli"):
        app.add_typer(plugin.load(), name=plugin.name)


def run(arguments: Sequence[str]) -> int:
    """The exit code: 0, 1 for a failure, 2 for wrong usage, 78 for a configuration or a ladder to be corrected, 130
    when interrupted; `doctor` gives 1 for warnings and 2 for errors that it found. What the machine refuses (OSError
    and the like) goes on to `flyball.cli.main`."""
    _assemble()
    try:
        app(args=list(arguments), prog_name="flyball")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except FlyballError as error:
        return fail(error)
    return 0
