"""What a limit whose reading is lost still asks for.

Party + what is lost + Verdict -> Verdict: no climb, and after a while the last rung that was proven under that limit

Decides only where the law itself would stay or climb. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.governor import hysteresis
from flyball.governor.constraints import duration
from flyball.governor.hysteresis import Verdict
from flyball.governor.joint import Party
from flyball.governor.sources import HOLD_S, Loss
from flyball.governor.values import HARD

SENSOR = "sensor"  # binds where a limit cannot be told because its reading is lost


def bereft(party: Party, now_s: float, rules: Rules, lost: Sequence[Loss], verdict: Verdict) -> Verdict:
    """What a limit whose reading is lost still asks for: no climb, and after a while the last rung on which it was
    proven to hold."""
    text = " and ".join(loss.text() for loss in lost)
    names = [o.rung.name for o in party.outlooks]
    retreats = [(HOLD_S - (now_s - loss.since_s), *_retreat(party, loss, names)) for loss in lost]
    wanted = [retreat for retreat in retreats if retreat[1]]
    due = [retreat for retreat in wanted if retreat[0] <= 0]
    # The weakest of those that are due, else the one that is due first.
    wait_s, target, why = (
        max(due, key=lambda retreat: names.index(retreat[1])) if due else min(wanted, default=(math.inf, "", ""))
    )
    if verdict.action != "stay" and not (due and names.index(target) > names.index(verdict.target)):
        return msgspec.structs.replace(verdict, reason=f"{verdict.reason}; besides, {text}")
    if not wanted:
        return msgspec.structs.replace(verdict, reason=f"{verdict.reason}; {text}: no climb until it is back")
    if wait_s > 0:
        reason = f"{verdict.reason}; {text}: no climb until it is back, and in {duration(wait_s)} down to {why}"
        return msgspec.structs.replace(verdict, reason=reason)
    if now_s - party.own.since_s < rules.dwell_s:
        reason = f"{text}: down to {why}; {hysteresis.dwelling(party.own, rules, now_s)}"
        return Verdict(reason=reason, binding=SENSOR)
    return Verdict(
        action="down", target=target, reason=f"{text} for {duration(HOLD_S - wait_s)}: down to {why}", binding=SENSOR
    )


def _retreat(party: Party, loss: Loss, names: Sequence[str]) -> tuple[str, str]:
    """The rung to go to for a reading that is lost, and why that one; "" when it need not go anywhere."""
    allowed = [o.rung.name for o in party.outlooks[party.active + 1 :] if not o.barred]
    proven = party.own.proven.get(loss.constraint)
    if loss.constraint not in HARD or not allowed:
        return "", ""
    if proven is not None and proven in names and names.index(proven) <= party.active:
        return "", ""
    if proven is None or proven not in names:
        return allowed[-1], f"{allowed[-1]}, the weakest, as none was proven to keep the limit of {loss.constraint}"
    if proven in allowed:
        return proven, f"{proven}, the last one proven to keep the limit of {loss.constraint}"
    weaker = [name for name in allowed if names.index(name) > names.index(proven)]
    target = weaker[0] if weaker else allowed[-1]
    return target, f"{target}, as {proven}, the last one proven to keep the limit of {loss.constraint}, cannot be had"
