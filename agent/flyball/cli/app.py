"""The command `flyball`: every subject's commands under one roof, and the one place where FlyballErrors end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Annotated

import typer

from flyball import __version__
from flyball.cli import bench, doctor, energy, explain, infer, ladder, record, serve, show, top, uplink
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


def _assemble(first: str | None = None) -> None:
    """Without what `first`, the command that is asked for, does not need: other packages' commands and the simulator
    bring libraries of their own, and nobody should wait for these to see a status."""
    commands: list[Callable[..., None]] = [
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
        explain.explain,
        record.record,
        show.switch,
        show.reload,
    ]
    groups = {"ladder": ladder.app, "config": serve.config_app, "uplink": uplink.app}
    plugins = {plugin.name: plugin for plugin in entry_points(group="flyball.cli")}
    if first not in {command.__name__ for command in commands} | groups.keys() | plugins.keys():
        from flyball.cli import replay  # for a typing error too: its like is then named

        commands[-2:-2] = [replay.replay, replay.what_if]
    for command in commands:
        app.command()(command)
    for name, group in groups.items():
        app.add_typer(group, name=name)
    for name, plugin in plugins.items():
        if first in (None, name):
            app.add_typer(plugin.load(), name=name)


def run(arguments: Sequence[str]) -> int:
    """The exit code: 0, 1 for a failure, 2 for wrong usage, 78 for a configuration or a ladder to be corrected, 130
    when interrupted; `doctor` gives 1 for warnings and 2 for errors that it found. What the machine refuses (OSError
    and the like) goes on to `flyball.cli.main`."""
    _assemble(next((a for a in arguments if not a.startswith("-")), None))
    try:
        app(args=list(arguments), prog_name="flyball")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except FlyballError as error:
        return fail(error)
    return 0
