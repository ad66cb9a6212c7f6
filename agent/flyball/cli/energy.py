"""`flyball energy -- COMMAND`: what a program's run takes, as this machine's sensors see it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from flyball.cli.terminal import ConfigOption, err
from flyball.config import Sensing, load
from flyball.energy import PERIOD_S, PowerMonitor, Report

NOT_STARTED, NOT_EXECUTABLE = 127, 126  # as a shell says them


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """`net_j` is the energy less what idling would have taken; None where that was not measured or is no more."""

    command: list[str]
    exit_code: int
    run: Report
    idle: Report | None = None
    net_j: float | None = None


def energy(
    command: Annotated[
        list[str], typer.Argument(help="The program and its arguments, after --.", metavar="-- COMMAND")
    ],
    idle: Annotated[
        float, typer.Option(min=0, max=3600, help="Measure the idle machine so many seconds first, to subtract it.")
    ] = 0.0,
    period: Annotated[float, typer.Option(min=0.01, max=10, help="Seconds between two power readings.")] = PERIOD_S,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report there as JSON (- is stderr).")
    ] = None,
    config: Annotated[Path | None, ConfigOption] = None,
) -> None:
    """Run a program and say what energy the machine took meanwhile.

    The report goes to stderr; stdout and the exit code are the program's. The figure is of all that its scope covers
    (the module, the board, the socket), whatever else runs there; an estimate is called one.

    Example: flyball energy --idle 5 -- python train.py
    """
    settings = _settings(config)
    idled = _idle(idle, period, settings) if idle else None
    with PowerMonitor(period, settings=settings) as monitor:
        code, started = _run(command)
    if not started:
        raise typer.Exit(code)
    report = monitor.report()
    done = Run(command=command, exit_code=code, run=report, idle=idled, net_j=_net_j(report, idled))
    text = msgspec.json.format(msgspec.json.encode(done)).decode()
    if json_file is not None and str(json_file) == "-":
        print(text, file=sys.stderr)
    else:
        for line in lines(done):  # first: whatever becomes of the file, the measurement is not lost
            err.print(line, soft_wrap=True)
    if json_file is not None and str(json_file) != "-":
        try:
            json_file.write_text(text + "\n")
        except OSError as error:
            err.print(f"{json_file}: not written: {error.strerror}", soft_wrap=True)
    raise typer.Exit(code)


def _settings(config: Path | None) -> Sensing:
    return load(config).sensing


def _idle(seconds: float, period_s: float, settings: Sensing) -> Report:
    err.print(f"measuring the idle machine for {seconds:g} s", soft_wrap=True)
    with PowerMonitor(period_s, settings=settings) as monitor:
        time.sleep(seconds)
    return monitor.report()


def _run(command: list[str]) -> tuple[int, bool]:
    """Its exit code (of one that a signal ended, 128 and the signal's number), and whether it was started at all."""
    try:
        process = subprocess.Popen(command)
    except FileNotFoundError:
        err.print(f"{command[0]}: no such program", soft_wrap=True)
        return NOT_STARTED, False
    except OSError as error:
        err.print(f"{command[0]}: {error.strerror}", soft_wrap=True)
        return NOT_EXECUTABLE, False
    # Ctrl-C reaches the program too, from the terminal: how it ends is its own affair, and then it is reported.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    others = {
        number: signal.signal(number, lambda number, _: process.send_signal(number))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    }
    try:
        code = process.wait()
    finally:
        for number, handler in {signal.SIGINT: before, **others}.items():
            signal.signal(number, handler)
    return (128 - code if code < 0 else code), True


def _net_j(run: Report, idle: Report | None) -> float | None:
    if idle is None or run.energy_j is None or idle.mean_w is None or idle.source != run.source:
        return None
    net_j = run.energy_j - idle.mean_w * run.seconds
    return net_j if net_j > 0 else None  # no more than idling: the difference is noise


def lines(done: Run) -> list[Text]:
    run = done.run
    if run.energy_j is None or run.mean_w is None:
        return [Text.assemble(("no energy figure", "yellow"), f" for {run.seconds:.2f} s: {run.why}")]
    spread = "" if run.uncertainty is None else f" +-{run.uncertainty:.0%}"
    label = "estimated, not measured" if run.scope == "estimated" else f"{run.scope}, {run.source}"
    found = [
        Text.assemble(
            (f"{run.energy_j:.3g} J{spread}", "bold"),
            f"  {run.mean_w:.3g} W on average over {run.seconds:.2f} s  ({label})",
        )
    ]
    if done.idle is not None:
        if done.net_j is not None and done.idle.mean_w is not None:
            found.append(Text(f"{done.net_j:.3g} J more than idling at {done.idle.mean_w:.3g} W"))
        else:
            found.append(Text("no more than idling" if done.idle.mean_w is not None else f"idle: {done.idle.why}"))
    return found
