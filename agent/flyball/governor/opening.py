"""Rungs that are being opened, and the memory that they have not taken yet.

verdicts of one look + ladders that are switching -> admit -> a verdict that waits where two do not fit

Each ladder's own rungs are judged against all that is available: two that are opened at once would both take it. A
ladder whose rung is being changed is not looked at, and what it is going to take of the processors and of the power is
not in the choice: nobody climbs meanwhile. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flyball.governor.constraints import mebibytes
from flyball.governor.hysteresis import Verdict
from flyball.governor.joint import Party
from flyball.governor.outlook import Outlook
from flyball.governor.state import CLIMB, Opening, State
from flyball.governor.values import View
from flyball.ports import Decision

RULE = "rule"
LONGEST_S = 30.0  # that a change is waited for
FORGOTTEN_S = 600.0  # no rung takes so long to be opened: a ladder that is not looked at for another reason


def elsewhere(view: View, state: State) -> Mapping[str, Opening]:
    """By ladder, what those that are not in the view are opening; forgotten with the ladder."""
    if not state.opening:
        return state.opening
    present = {ladder.name for ladder in view.ladders}
    return {
        name: one
        for name, one in state.opening.items()
        if name not in present and name in state.ladders and view.now_s - one.since_s < FORGOTTEN_S
    }


def taken(state: State) -> float:
    """Bytes, by all that is being opened."""
    return sum(one.takes_bytes for one in state.opening.values())


def under_way(state: State, now_s: float, cause: str = "", longest_s: float = LONGEST_S) -> str:
    """A ladder whose rung is being changed, for that cause if one is given; "" when there is none, or when it takes
    too long to be waited for."""
    for name, one in state.opening.items():
        if now_s - one.since_s < longest_s and cause in ("", one.cause):
            return name
    return ""


def admit(party: Party, verdict: Verdict, opening_bytes: float, changing: str) -> tuple[Verdict, float]:
    """The verdict, or a stay when a climb would leave less memory than is to be left, beside others that open
    `opening_bytes`, or would take the place that a ladder which is `changing` has not left; and what they all open
    then. What a limit or force asks for is never kept waiting."""
    target = party.options[party.at]
    if target.rung.name != verdict.target:
        target = next(one for one in party.outlooks if one.rung.name == verdict.target)
    rung = target.rung
    if changing and verdict.binding == CLIMB:
        return Verdict(reason=f"{rung.name} would fit; but {changing} is being changed to another rung",
                       binding=CLIMB), opening_bytes  # fmt: skip
    takes = 0.0 if rung.resident or rung.rss_bytes is None else rung.rss_bytes
    if opening_bytes > 0.0 and 0.0 < takes > party.kept.room_bytes - opening_bytes and _waits(party, target, verdict):
        needs = f"it needs {mebibytes(takes)} while another ladder opens {mebibytes(opening_bytes)}"
        return Verdict(reason=f"{rung.name} would fit; but {needs}", binding="memory"), opening_bytes
    return verdict, opening_bytes + takes


def begun(decisions: Sequence[Decision], parties: Sequence[Party | None], now_s: float) -> dict[str, Opening]:
    """By ladder, what the decisions are going to take."""
    found = {}
    for decision, party in zip(decisions, parties, strict=True):
        if party is not None and decision.target != decision.source:
            rung = next(o.rung for o in party.outlooks if o.rung.name == decision.target)
            found[decision.ladder] = Opening(0.0 if rung.resident else rung.rss_bytes or 0.0, now_s, decision.binding)
    return found


def _waits(party: Party, target: Outlook, verdict: Verdict) -> bool:
    if verdict.action == "pin":
        pin = party.own.pin
        return target.index < party.active and pin is not None and not pin.force
    return verdict.binding == CLIMB or (verdict.action == "up" and verdict.binding == RULE)
