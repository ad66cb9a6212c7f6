"""What stands for and against an order: a pin, or a rung that somebody asks for.

Party + pin + limits -> Verdict; Party + wanted rung -> the limit that forbids it, in words

The limits of temperature and memory stand above an order, but for a pin's `force`. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.constraints import Check, duration
from flyball.governor.hysteresis import Verdict
from flyball.governor.joint import Party
from flyball.governor.judgement import against, bounds, judge
from flyball.governor.outlook import Outlook, Scene, unavailable
from flyball.governor.sources import Loss
from flyball.governor.values import HARD, View
from flyball.ports import Pin


def overruled(pin: Pin, party: Party, hard: Sequence[Check]) -> bool:
    """Whether the limits of `hard`, broken now, stand above the pin: not when it asks for a weaker rung, which eases
    them."""
    index = next((o.index for o in party.outlooks if o.rung.name == pin.rung), party.active)
    return bool(hard) and not pin.force and index <= party.active


def held_at(pin: Pin, now_s: float) -> str:
    until = " until released" if pin.until_s is None else f" for another {duration(pin.until_s - now_s)}"
    return f"held at {pin.rung} by a pin{until}"


def pinned(
    party: Party, view: View, rules: Rules, pin: Pin, checks: Sequence[Check], around: Scene, lost: Sequence[Loss]
) -> Verdict:
    held, ladder = held_at(pin, view.now_s), party.ladder
    if ladder.active == pin.rung:
        over = "; ".join(c.text for c in checks if c.broken)
        return Verdict(reason=f"{held}, although {over}" if over else held, binding="pin")
    wanted = next((o for o in party.outlooks if o.rung.name == pin.rung), None)
    if wanted is None:
        return Verdict(reason=f"{held}, but the ladder has no such rung", binding="pin")
    unfit = unavailable(wanted.rung, party.own, view.now_s)
    if unfit:
        return Verdict(reason=f"{held}, which cannot be had: {unfit}", binding="pin")
    standing = "" if pin.force else forbidden(party, rules, checks, around, lost, wanted)
    if standing:
        return Verdict(reason=f"{held}, once a limit allows it: {standing}", binding=standing.partition(":")[0])
    return Verdict(action="pin", target=pin.rung, reason=f"{held}; {ladder.active} was active", binding="pin")


def forbidden(
    party: Party, rules: Rules, checks: Sequence[Check], around: Scene, lost: Sequence[Loss], wanted: Outlook
) -> str:
    """Which limit of temperature or memory forbids the change to a stronger rung that somebody asks for; the text
    begins with its name."""
    if wanted.index >= party.active:
        return ""
    broken = next((f"{c.constraint}: {c.text}" for c in checks if c.broken and c.constraint in HARD), "")
    if broken:
        return broken
    gone = next((f"{loss.constraint}: {loss.text()}" for loss in lost if loss.constraint in HARD), "")
    if gone:
        return gone
    left = party.own.left.get(wanted.rung.name)
    if left is not None and left.cause in HARD and wanted.held:
        return wanted.held
    wanted = msgspec.structs.replace(wanted, tests=())  # a copy: this is no part of the choice
    judge(wanted, bounds(party.ladder.limits, 0.0, rules, around), around, 0.0, 0.0, 0.0, climbs=True)
    return against(wanted, party.ladder.limits, around) if wanted.broken in HARD else ""
