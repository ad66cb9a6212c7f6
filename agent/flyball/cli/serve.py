"""`flyball run`, `flyball config check` and `flyball demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyball.cli.terminal import JsonOption, out, print_json
from flyball.config import DEFAULT_PATH, load
from flyball.governor.rules import parse_all

config_app = typer.Typer(no_args_is_help=True, help="Look at the configuration.")


def run(
    config: Annotated[
        Path | None, typer.Option(envvar="FLYBALL_CONFIG", help=f"Configuration file (default: {DEFAULT_PATH}).")
    ] = None,
    ladder: Annotated[list[Path] | None, typer.Option(help="Serve the ladder in this folder too; repeatable.")] = None,
    socket: Annotated[Path | None, typer.Option(envvar="FLYBALL_SOCKET", help="Path of the control socket.")] = None,
) -> None:
    """Run the daemon in the foreground (Ctrl-C drains and ends it).

    Example: flyball run --ladder ./imagenet
    """
    from flyball.daemon import serve

    raise typer.Exit(serve(config, ladder or [], socket))


@config_app.command("check")
def check(
    file: Annotated[Path | None, typer.Argument(help=f"Configuration file (default: {DEFAULT_PATH}).")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check a configuration and its conf.d; exit code 78 and every mistake when it cannot be used."""
    config = load(file, rules=parse_all)
    if as_json:
        print_json(config)
    else:
        out.print(f"{file or DEFAULT_PATH}: ok", soft_wrap=True)


def demo(
    run_s: Annotated[float, typer.Option("--seconds", min=20, help="How long the whole demonstration takes.")] = 50,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON.")] = None,
    load: Annotated[
        int | None, typer.Option(min=1, help="CPU burners beside the daemon (default: 3 for each core).")
    ] = None,
    no_load: Annotated[bool, typer.Option("--no-load", help="No burners: the rung should not change.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Save the last view of the table as a picture.")] = None,
    ladder: Annotated[Path | None, typer.Option(help="Another ladder folder of the same classes.")] = None,
) -> None:
    """See Flyball hold a latency limit while the machine is put under load.

    Starts the real daemon on a Unix socket of its own with the example ladder, streams inspection pictures through it,
    loads the machine, and shows what the governor does about it and why.
    """
    from flyball.demo.stage import DemoOptions, perform

    burners = 0 if no_load else load
    raise typer.Exit(perform(DemoOptions(seconds=run_s, burners=burners, json_file=json_file, svg=svg, ladder=ladder)))
