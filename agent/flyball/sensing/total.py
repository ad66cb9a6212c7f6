"""Which power reading stands for the whole machine. This is the only place that decides it.

readings -> the total | why there is none

The rule: a total is one single reading that is upstream of everything it covers. Rails overlap (VDD_CPU is fed from
VDD_IN), so readings are never added up, and rails, chips and SoCs are parts, never a total. Of what is left the widest
measured scope counts: wall, machine, board, module. Several readings of one scope cannot be told apart (two supplies
share a load, two monitors may watch the same line), so that scope then gives no total. The estimate counts only where
no measured total is; scopes are never mixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flyball.ports import Reading, Scope

# Widest first.
TRUST: tuple[Scope, ...] = ("wall", "machine", "board", "module", "estimated")


def total_power(readings: Iterable[Reading]) -> Reading | None:
    """The power reading that stands for the machine; None when none can."""
    powers = [r for r in readings if r.quantity == "power"]
    for scope in TRUST:
        of_scope = [r for r in powers if r.scope == scope]
        if len(of_scope) == 1:
            return of_scope[0]
    return None


def explain_no_total(readings: Iterable[Reading]) -> str:
    """Why `total_power` gave None, for people."""
    powers = [r for r in readings if r.quantity == "power"]
    if not powers:
        return "nothing measures or estimates power here"
    names = ", ".join(f"{r.name} ({r.scope})" for r in powers)
    return f"no single one of these is known to cover the machine, and they may overlap: {names}"


def without_superseded(readings: Iterable[Reading]) -> Sequence[Reading]:
    """The estimate left out where there is a measured total."""
    kept = tuple(readings)
    total = total_power(kept)
    if total is None or total.scope == "estimated":
        return kept
    return tuple(r for r in kept if not (r.quantity == "power" and r.scope == "estimated"))
