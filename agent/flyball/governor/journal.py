"""The decisions of one ladder, kept for `flyball explain`, and which of them are worth an event.

Decision -> kept -> True when others should hear of it

Bounded. Changes of rung are kept apart from the decisions to stay, of which there is one every period: else four
minutes of quiet would push out the reason for the last change.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flyball.ports import Decision

KEPT_CHANGES = 128
KEPT_STAYS = 128
Headline = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    decision: Decision
    health: str = ""  # of the ladder and of the sensors that its limits rest on


class Journal:
    """Of one ladder."""

    def __init__(self) -> None:
        self._changes: deque[tuple[int, Decision]] = deque(maxlen=KEPT_CHANGES)
        self._stays: deque[tuple[int, Decision]] = deque(maxlen=KEPT_STAYS)
        self._numbers = itertools.count()
        self._last: Decision | None = None
        self._told: Headline | None = None
        self._coming: Headline | None = None
        self._count = 0

    def keep(self, entry: Entry, steady: int) -> bool:
        """Whether this is news: a change of rung that was made, or failed; or another binding constraint, health or
        wish (in observe mode) that held for `steady` decisions in a row, since a latency that wavers about its limit
        would else be an event every second."""
        decision, last = entry.decision, self._last
        self._last = decision
        tried = decision.acted or bool(decision.error)
        repeated = last is not None and (last.action, last.target) == (decision.action, decision.target)
        kept = self._changes if tried or (decision.action != "stay" and not repeated) else self._stays
        kept.append((next(self._numbers), decision))
        headline = _headline(entry)
        self._count = self._count + 1 if headline == self._coming else 1
        self._coming = headline
        if self._told is None:
            self._told = headline
            return decision.action != "stay"
        if tried or (headline != self._told and self._count >= steady):
            self._told = headline
            return True
        return False

    def conclude(self, active: str, before_s: float, figures: Mapping[str, float]) -> None:
        """Notes what came of the newest change, when it was made before `before_s` and still stands."""
        if not self._changes or not figures:
            return
        number, decision = self._changes[-1]
        if decision.acted and not decision.outcome and decision.t_s <= before_s and decision.target == active:
            self._changes[-1] = (number, msgspec.structs.replace(decision, outcome=figures))

    def decisions(self) -> Sequence[Decision]:
        """The newest last."""
        return [decision for _, decision in sorted([*self._changes, *self._stays], key=lambda numbered: numbered[0])]


def _headline(entry: Entry) -> Headline:
    """A change that was made is no wish any more: what counts is what binds after it."""
    decision = entry.decision
    wished = decision.action != "stay" and not decision.acted
    return (
        decision.action if wished else "",
        decision.target if wished else "",
        decision.binding,
        decision.error,
        entry.health,
    )
