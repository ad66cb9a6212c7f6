"""`flyball energy -- COMMAND`: what a program's run takes, as this machine's sensors see it."""

from __future__ import annotations

import math
import os
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
_COVERED = 0.995  # of the time: less is said


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """`net_j` is the energy less what idling would have taken, `net_uncertainty` is relative; both None where that was
    not measured, is no more, or is less certain than it is large."""

    command: list[str]
    exit_code: int
    run: Report
    idle: Report | None = None
    net_j: float | None = None
    net_uncertainty: float | None = None


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
    for name, value in (("--idle", idle), ("--period", period)):
        if not math.isfinite(value):  # nan is neither below nor above a bound
            raise typer.BadParameter(f"{name}: expected a number of seconds, found {value}")
    settings = _settings(config)
    idled = _idle(idle, period, settings) if idle else None
    with PowerMonitor(period, settings=settings) as monitor:
        code, started = _run(command)
    if not started:
        raise typer.Exit(code)
    report = monitor.report()
    net_j, net_uncertainty = net(report, idled)
    words = [os.fsencode(word).decode(errors="replace") for word in command]  # JSON has no place for other bytes
    done = Run(command=words, exit_code=code, run=report, idle=idled, net_j=net_j, net_uncertainty=net_uncertainty)
    text = msgspec.json.format(msgspec.json.encode(done)).decode()
    try:
        if json_file is not None and str(json_file) == "-":
            print(text, file=sys.stderr)
        else:
            for line in lines(done):  # first: whatever becomes of the file, the measurement is not lost
                err.print(line, soft_wrap=True)
    except (OSError, SystemExit):  # a closed pipe is SystemExit from rich
        # Nobody reads stderr any more: the exit code is still the program's. What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
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
        script = "/" in command[0] and os.path.exists(command[0])
        what = "the interpreter that its first line names is not there" if script else "no such program"
        err.print(f"{command[0]}: {what}", soft_wrap=True)
        return NOT_STARTED, False
    except OSError as error:
        err.print(f"{command[0]}: {error.strerror}", soft_wrap=True)
        return NOT_EXECUTABLE, False
    # Ctrl-C and Ctrl-\ reach the program too, from the terminal: how it ends is its own affair; then it is reported.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        before[number] = signal.signal(number, lambda number, _: process.send_signal(number))
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return (128 - code if code < 0 else code), True


def net(run: Report, idle: Report | None) -> tuple[float | None, float | None]:
    """Joules above idling and their relative uncertainty, as if the two powers erred independently. No figure where
    the difference is less certain than it is large: that is noise."""
    if idle is None or run.energy_j is None or idle.mean_w is None or idle.source != run.source:
        return None, None
    idle_j = idle.mean_w * run.seconds
    net_j = run.energy_j - idle_j
    if net_j <= 0:
        return None, None
    if run.uncertainty is None or idle.uncertainty is None:
        return net_j, None
    uncertainty = math.hypot(run.uncertainty * run.energy_j, idle.uncertainty * idle_j) / net_j
    return (net_j, uncertainty) if uncertainty <= 1 else (None, None)


def lines(done: Run) -> list[Text]:
    run = done.run
    if run.energy_j is None or run.mean_w is None:
        return [Text.assemble(("no energy figure", "yellow"), f" for {run.seconds:.2f} s: {run.why}")]
    label = "estimated, not measured" if run.scope == "estimated" else f"{run.scope}, {run.source}"
    if run.coverage < _COVERED:
        label += f"; readings cover {run.coverage:.0%} of the time"
    found = [
        Text.assemble(
            (f"{_figure(run.energy_j)} J{_spread(run.uncertainty)}", "bold"),
            f"  {_figure(run.mean_w)} W on average over {run.seconds:.2f} s  ({label})",
        )
    ]
    idle = done.idle
    if idle is None:
        return found
    if idle.mean_w is None:
        found.append(Text(f"idle: {idle.why}"))
    elif idle.source != run.source:
        found.append(Text(f"idling was measured by another sensor ({idle.source}): not subtracted"))
    elif done.net_j is None:
        found.append(Text(f"no more than idling at {_figure(idle.mean_w)} W, as far as these figures can tell"))
    else:
        more = f"{_figure(done.net_j)} J{_spread(done.net_uncertainty)}"
        found.append(Text(f"{more} more than idling at {_figure(idle.mean_w)} W"))
    return found


def _figure(value: float) -> str:
    """Three digits, and never an exponent: an hour is thousands of joules."""
    return f"{value:.3g}" if 0.001 <= value < 999.5 else f"{value:.0f}" if value >= 1 else f"{value:.6f}"


def _spread(relative: float | None) -> str:
    if relative is None:
        return ""
    return f" +-{relative:.0%}" if relative >= 0.01 else f" +-{relative:.1%}"
