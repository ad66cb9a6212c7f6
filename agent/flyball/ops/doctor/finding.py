"""A check, what it said, and the loop over all of them.

Machine -> Check.look -> Verdict -> Finding, worst first

A check that could not look says "unknown" with the reason. It never says "ok" of what it did not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from flyball.ops.doctor.machine import Machine
from flyball.sensing.sysfs import describe

Severity = Literal["error", "warning", "unknown", "info", "ok"]
ORDER: tuple[Severity, ...] = ("error", "warning", "unknown", "info", "ok")

# fsck's and the monitoring plug-ins' order. What cannot be looked at is no reason to fail a script.
EXIT_CODES: dict[Severity, int] = {"error": 2, "warning": 1, "unknown": 0, "info": 0, "ok": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one check saw. `fix` is a command to paste, or a shell comment where no command helps; "" for none."""

    severity: Severity
    found: str
    fix: str = ""


def ok(found: str) -> Verdict:
    return Verdict(severity="ok", found=found)


def info(found: str, fix: str = "") -> Verdict:
    return Verdict(severity="info", found=found, fix=fix)


def warning(found: str, fix: str) -> Verdict:
    return Verdict(severity="warning", found=found, fix=fix)


def error(found: str, fix: str) -> Verdict:
    return Verdict(severity="error", found=found, fix=fix)


def unknown(found: str, fix: str = "") -> Verdict:
    return Verdict(severity="unknown", found=found, fix=fix)


Look: TypeAlias = Callable[[Machine], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`why` tells what it costs to leave it as it is; docs/doctor.md has a line for every `id`."""

    id: str
    why: str
    look: Look


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. `why` and `fix` are "" where nothing is wrong."""

    id: str
    severity: Severity
    found: str
    why: str = ""
    fix: str = ""


def diagnose(machine: Machine, checks: Iterable[Check]) -> list[Finding]:
    """One finding for each check, the worst first, otherwise in the order of `checks`."""
    findings = [_examine(machine, check) for check in checks]
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))


def worst(findings: Iterable[Finding]) -> Severity:
    """ "ok" where there is none."""
    return min((finding.severity for finding in findings), key=ORDER.index, default="ok")


def exit_code(findings: Iterable[Finding]) -> int:
    """2 with errors, 1 with warnings, else 0."""
    return max((EXIT_CODES[finding.severity] for finding in findings), default=0)


def _examine(machine: Machine, check: Check) -> Finding:
    try:
        verdict = check.look(machine)
    except OSError as problem:
        place = f"{problem.filename}: " if problem.filename else ""
        verdict = unknown(f"cannot look: {place}{describe(problem)}")
    except ValueError as problem:
        verdict = unknown(f"cannot tell: {describe(problem)}")
    wrong = verdict.severity != "ok"
    return Finding(
        id=check.id,
        severity=verdict.severity,
        found=verdict.found,
        why=check.why if wrong else "",
        fix=verdict.fix if wrong else "",
    )
