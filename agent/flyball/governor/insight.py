"""Figures of the governor for those who watch it over time.

View + decisions + State of every look -> counts, and what was predicted last -> GovernorFigures

A look costs a few additions; the figures are worked out when somebody asks. Never decides, and never fills in what is
not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flyball.governor import estimator
from flyball.governor.perception import key
from flyball.governor.state import State
from flyball.governor.values import View
from flyball.ports import Decision, GovernorFigures


class Insight:
    """Of one governor. Ladders that have gone out of service are forgotten, with their counts."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._decided: dict[str, Decision] = {}
        self._view: View | None = None
        self._state = State()
        self._looks = 0
        self._deciding_s = 0.0

    def look(self, view: View, decisions: Sequence[Decision], state: State, spent_s: float) -> None:
        """After one look; `spent_s` is what deciding took."""
        self._view, self._state = view, state
        self._looks += 1
        self._deciding_s += spent_s
        for decision in decisions:
            counts = self._counts.setdefault(decision.ladder, {})
            counts[decision.action] = counts.get(decision.action, 0) + 1
            self._decided[decision.ladder] = decision

    def forget(self, present: frozenset[str]) -> None:
        """All ladders but these."""
        for kept in (self._counts, self._decided):
            for name in [name for name in kept if name not in present]:
                del kept[name]

    def figures(self) -> GovernorFigures:
        return GovernorFigures(
            decisions={name: dict(counts) for name, counts in self._counts.items()},
            predicted_late={name: _late(decision) for name, decision in self._decided.items()},
            slow_down={} if self._view is None else _slow_downs(self._view, self._state),
            looks=self._looks,
            deciding_s=self._deciding_s,
        )


def _late(decision: Decision) -> Mapping[str, float]:
    return {c.rung: c.predicted_late for c in decision.candidates if c.predicted_late is not None}


def _slow_downs(view: View, state: State) -> Mapping[str, Mapping[str, float]]:
    """Of the rungs that have run: what is thought of the others is a guess."""
    found = {}
    for ladder in view.ladders:
        slow = state.of(ladder.name).slow
        found[ladder.name] = {
            rung.name: estimator.predict(slow[key(rung)], rung.work_s, state.contention, view.now_s)[0]
            for rung in ladder.rungs
            if rung.work_s is not None and key(rung) in slow
        }
    return found
