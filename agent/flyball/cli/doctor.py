"""`flyball doctor`: what is wrong with this machine for inference, and the fix for each.

this machine -> ops.doctor -> table, reasons and commands, or JSON -> exit code. Works without the daemon.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from flyball.cli.terminal import ConfigOption, JsonOption, out, print_json, print_table

if TYPE_CHECKING:  # the checks bring every sensor along, which no other command should have to wait for
    from flyball.ops.doctor import Finding, Severity

_STYLES: dict[Severity, str] = {
    "error": "red",
    "warning": "yellow",
    "unknown": "magenta",
    "info": "cyan",
    "ok": "green",
}


def doctor(
    config: Annotated[Path | None, ConfigOption] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is in order too.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Tell what is wrong with this machine for inference, and how to put it right.

    Exit code 0 when nothing is, 1 with warnings, 2 with errors. What could not be looked at ("unknown") changes no exit
    code. Nothing on the machine is changed; the daemon need not run.

    Example: flyball doctor --verbose
    """
    from flyball.ops.doctor import CHECKS, diagnose, exit_code, this_machine, worst

    logging.getLogger("flyball").addHandler(logging.NullHandler())  # a sensor that fails is a finding, told once
    findings = diagnose(this_machine(config), CHECKS)
    if as_json:
        print_json({"worst": worst(findings), "exit_code": exit_code(findings), "findings": findings})
    else:
        _print(findings, verbose)
    raise typer.Exit(exit_code(findings))


def _print(findings: Sequence[Finding], verbose: bool) -> None:
    shown = [finding for finding in findings if verbose or finding.severity != "ok"]
    if shown:
        rows = [(Text(f.severity, style=_STYLES[f.severity]), f.id, f.found) for f in shown]
        print_table(("!", "!check", "found"), rows)
        out.print()
    for finding in (finding for finding in shown if finding.fix):
        out.print(Text.assemble((finding.id, "bold"), f": {finding.why}"), soft_wrap=True)
        for line in finding.fix.splitlines():
            out.print(_indent(line, out.width), soft_wrap=True)
    if any(finding.fix for finding in shown):
        out.print()
    out.print(_summary(findings))


def _indent(command: str, width: int) -> str:
    """A command as it can be pasted: what is too long for a line goes on behind a backslash, step by step."""
    if len(command) + 4 <= width:
        return f"    {command}"
    return "    " + " \\\n      && ".join(command.split(" && "))


def _summary(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(f.severity == severity for f in findings) for severity in _STYLES}
    told = [f"{count} {severity}{_plural(severity, count)}" for severity, count in counts.items() if count]
    return f"{len(findings)} checks: {', '.join(told)}"


def _plural(severity: Severity, count: int) -> str:
    return "s" if count > 1 and severity in ("error", "warning") else ""
