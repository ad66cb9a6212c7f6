"""What others hear of decisions: events, and what is noted of a change later.

Decision + health + Checks -> Event; View -> figures of an outcome

Decides nothing and sends nothing: journal.py says what is news, governor.py publishes it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from flyball.events import Event
from flyball.governor.values import LadderView, View
from flyball.ports import Decision


def decided(decision: Decision, health: str, broken: bool) -> Event:
    """`broken` says that a limit is, as things stand."""
    return Event(
        kind="decision",
        t_s=decision.t_s,
        message=f"{decision.reason}{_failure(decision)}",
        ladder=decision.ladder,
        severity="warning" if decision.error or broken else "info",
        detail={
            "action": decision.action,
            "from": decision.source,
            "to": decision.target,
            "binding": decision.binding,
            "acted": decision.acted,
            "error": decision.error,
            "health": health,
        },
    )


def headline(decision: Decision) -> str:
    """For the log."""
    move = f"{decision.source} -> {decision.target}" if decision.source != decision.target else decision.source
    return f"{decision.ladder}: {move or 'no rung'}: {decision.reason}{_failure(decision)}"


def outcome(ladder: LadderView, view: View) -> Mapping[str, float]:
    """What can be told of now; for a change that was made some time ago."""
    figures = {
        "latency_p95_s": ladder.seen.p95_s,
        "late": ladder.seen.window_late,
        "work_mean_s": ladder.seen.work_mean_s,
        "power_w": view.machine.power_w,
        "temperature_c": max(view.machine.zones.values(), default=None),
    }
    return {key: value for key, value in figures.items() if value is not None}


def _failure(decision: Decision) -> str:
    return f" ({decision.error})" if decision.error else ""
