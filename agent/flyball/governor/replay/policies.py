"""What replay needs of a policy, and the policy itself as one of them.

View -> decide -> Decision; then moved or refused, once it is known what came of it. No clock: the View has the time.
"""

from __future__ import annotations

from typing import Literal, Protocol

from flyball.config import Governor as Rules
from flyball.governor.policy import decide
from flyball.governor.state import State
from flyball.governor.values import LadderView, View
from flyball.ports import Decision


class Policy(Protocol):
    """Of a View with one ladder."""

    def decide(self, view: View) -> Decision: ...

    def moved(self, decision: Decision, now_s: float) -> None: ...

    def refused(self, decision: Decision, error: str, now_s: float) -> None: ...


class Governed:
    """The governor's own."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self.state = rules, State()

    def decide(self, view: View) -> Decision:
        decisions, self.state = decide(view, self._rules, self.state)
        return decisions[0]

    def moved(self, decision: Decision, now_s: float) -> None:
        self.state = self.state.moved(decision, now_s, self._rules)

    def refused(self, decision: Decision, error: str, now_s: float) -> None:
        self.state = self.state.refused(decision, error, now_s, self._rules)


def decided(view: View, ladder: LadderView, target: str, reason: str) -> Decision:
    """A baseline's; up and down go by the declared order."""
    source = ladder.active or ""
    names = [rung.name for rung in ladder.rungs]
    place = names.index(source) if source in names else len(names)
    wanted = names.index(target) if target in names else place
    action: Literal["stay", "up", "down"] = "stay" if wanted == place else "up" if wanted < place else "down"
    return Decision(ladder=ladder.name, t_s=view.now_s, wall_s=view.wall_s, action=action, source=source,
                    target=target, reason=reason)  # fmt: skip
