"""When a wanted rung is taken: down fast, up slowly, and never twice in a breath.

what is wanted of a ladder + how it has fared -> Verdict, LadderState

Down at once when a breach is certain, measured or predicted; else when it was seen in k of the last n periods. Up after
a row of periods in which that looked safe, and only when the gain outweighs the change. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.constraints import Check, duration, milliseconds
from flyball.governor.joint import LEAST_GAIN, PLAIN, Mode, value, worth
from flyball.governor.outlook import Outlook
from flyball.governor.perception import EVENNESS_OF, LATE_OF
from flyball.governor.queueing import FULL
from flyball.governor.state import CLIMB, CLIMBS_PER_HOUR, Action, LadderState
from flyball.governor.values import HARD, LadderView

CERTAIN = 0.10  # of the requests; or twice what is allowed, or so many more: not to be waited for
TELLING, CLEAR = 100, 0.8  # so many answers, and so much of the share that is allowed
CLOSE = 0.25  # of the requests predicted late: what breaks a limit by no more may be chance
DOUBTED = 5  # periods in a row in which a breach is predicted that is neither certain nor seen
OPENING_COST = 0.5  # of accuracy, for each second in which a rung is opened beside the one that answers
BORNE_OUT = 3  # late answers that were to be expected, before one says whether they came
LONGEST_STREAK = 1000
SPENT_S = 60.0  # between two steps up that heat or memory ask for, when the climbs of the hour were made


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`target` "" = where it is. `unforeseen`: a limit broke that was predicted to hold;
    `narrow`: it is predicted to break only just."""

    action: Action = "stay"
    target: str = ""
    reason: str
    binding: str = ""
    unforeseen: bool = False
    narrow: bool = False


def ripe(own: LadderState, checks: Sequence[Check], rules: Rules) -> list[Check]:
    """The limits that are broken now and were in k of the last n periods."""
    return [c for c in checks if c.broken and own.breaches(c.constraint) >= rules.down_windows]


def certain(one: Outlook, ladder: LadderView) -> bool:
    """Whether a predicted breach needs no second look."""
    if one.broken == "latency":
        allowed = 1.0 - ladder.limits.quantile
        return one.missed is not None and one.missed > max(CERTAIN, allowed + min(allowed, CERTAIN))
    return one.broken is not None


def disproved(one: Outlook, ladder: LadderView, own: LadderState) -> bool:
    """Whether hundreds of answers say that a breach which is predicted by little is none."""
    if one.broken != "latency" or own.late is None or own.late_of < TELLING:
        return False
    return own.late < CLEAR * (1.0 - ladder.limits.quantile)


def many_more(ladder: LadderView, here: Outlook, target: Outlook, mode: Mode) -> bool:
    """Whether many more answers would be in time there, by the newest ones here, whatever hundreds before them say."""
    late = ladder.seen.window_late
    if late is None or mode in PLAIN:
        return False
    return value(target, mode) - worth(here, mode) * (1.0 - late) > CERTAIN


def proved(ladder: LadderView, own: LadderState) -> bool:
    """Whether hundreds of answers say that too many are late, whatever is predicted."""
    if ladder.limits.deadline_s is None or own.late is None or own.late_of < 3 * TELLING:
        return False
    return own.late > (1.0 - ladder.limits.quantile) / CLEAR


def down(
    ladder: LadderView, own: LadderState, here: Outlook, target: Outlook, why: str, binding: str, rules: Rules,
    now_s: float, unforeseen: bool = False, narrow: bool = False,
) -> Verdict:  # fmt: skip
    """A step down (or aside) that a limit asks for."""
    if target.index == here.index:
        return Verdict(reason=f"{why}; no other rung that is allowed would ease that", binding=binding)
    if now_s - own.since_s < min(2.0 * rules.period_s, rules.dwell_s):
        return Verdict(reason=f"{why}; {dwelling(own, rules, now_s)}", binding=binding)
    action: Action = "down" if target.index > here.index else "up"
    spent = action == "up" and not own.entered and len(own.climbs_s) >= CLIMBS_PER_HOUR
    if spent and (binding not in HARD or now_s - own.since_s < SPENT_S):
        return Verdict(reason=f"{why}; {expected(target, ladder)}; but {_climbs(own)}", binding=binding)
    reason = f"{why}; {expected(target, ladder)}"
    return Verdict(
        action=action, target=target.rung.name, reason=reason, binding=binding, unforeseen=unforeseen, narrow=narrow
    )


def climb(
    ladder: LadderView, own: LadderState, here: Outlook, target: Outlook, rules: Rules, mode: Mode, now_s: float,
    seen: bool = False,
) -> tuple[Verdict, LadderState]:  # fmt: skip
    """A change for the better that nothing forces. A step down for more answers in time is taken like one for a limit
    that is broken: it is asked for in as few periods, it is not rationed, since the next burst would find the stronger
    rung held, and a climb that it takes back has failed."""
    name = target.rung.name
    streak = min(own.streak + 1, LONGEST_STREAK) if own.streak_for == name else 1
    own = msgspec.structs.replace(own, streak=streak, streak_for=name)
    sooner = _sooner(here, target, mode)
    needed = rules.down_windows if sooner else rules.up_windows
    if sooner and not seen and _by_queue(here, target, mode) and not _borne_out(here, own, ladder):
        return Verdict(reason=_waiting(here, own), binding="latency"), own
    if streak < needed:
        text = f"{expected(target, ladder)}; safe in {streak} of {needed} periods"
        return Verdict(reason=text, binding=CLIMB), own
    if now_s - own.since_s < rules.dwell_s:
        return Verdict(reason=f"{expected(target, ladder)}; {dwelling(own, rules, now_s)}", binding="dwell"), own
    if not sooner and len(own.climbs_s) >= CLIMBS_PER_HOUR:
        return Verdict(reason=f"{expected(target, ladder)}; but {_climbs(own)}", binding="climbs"), own
    gain = value(target, mode) - value(here, mode)
    if mode not in PLAIN and not target.rung.resident and target.rung.load_s is not None:
        cost, stay_s = OPENING_COST * target.rung.load_s, max(own.stay_s, now_s - own.since_s)
        if max(gain, LEAST_GAIN) * stay_s < cost * min(1.0, (own.arrivals_per_s or 0.0)):
            text = f"{gain * 100:.1f} points for {duration(stay_s)} are not worth opening it"
            return Verdict(reason=f"{name} would fit; {text}", binding="cost"), own
    action: Action = "up" if target.index < here.index else "down"
    text = f"{expected(target, ladder)}; safe in the last {streak} periods"
    if sooner:
        text = f"{here.missed:.0%} predicted late; {text}"
    return Verdict(action=action, target=name, reason=text, binding="latency" if sooner else CLIMB), own


def by_wait_alone(here: Outlook, busy: float, own: LadderState, ladder: LadderView) -> str:
    """Why a breach that is predicted only as requests wait for each other is not believed yet, "" when it is: until it
    is known how evenly they come, answers have to tell. Not so where more come than can be answered: `busy` is the
    share of its time that the accelerator is, with all that runs there."""
    if own.dispersion_of >= EVENNESS_OF or here.broken != "latency" or here.failing > 0.0 or busy >= FULL:
        return ""
    alone, _, allowed = here.tests[0]
    return "" if alone > allowed or _borne_out(here, own, ladder) else _waiting(here, own)


def _waiting(here: Outlook, own: LadderState) -> str:
    late = "no answer tells yet" if own.late is None else f"{own.late:.1%} of the last {own.late_of} were"
    return f"{here.missed:.0%} predicted late as requests wait for each other; {late}"


def _climbs(own: LadderState) -> str:
    return f"there were {len(own.climbs_s)} climbs in the last hour, and {CLIMBS_PER_HOUR} are allowed"


def _sooner(here: Outlook, target: Outlook, mode: Mode) -> bool:
    """Whether that is a step down to a quicker rung, for more answers in time."""
    if mode in PLAIN or target.index < here.index or here.work_s is None or target.work_s is None:
        return False
    return target.work_s < here.work_s and (here.missed or 0.0) - (target.missed or 0.0) > LEAST_GAIN


def _by_queue(here: Outlook, target: Outlook, mode: Mode) -> bool:
    """Whether a step down for more answers in time would gain nothing if no request had to wait."""
    alone = here.tests[0][0] if here.tests else here.missed or 0.0
    return value(target, mode) - worth(here, mode) * (1.0 - alone) <= LEAST_GAIN


def _borne_out(here: Outlook, own: LadderState, ladder: LadderView) -> bool:
    """Whether answers were as late as predicted, by half at the least: hundreds, or the newest. How requests queue is
    told by how evenly they come, which takes long to know."""
    missed, seen = here.missed or 0.0, ladder.seen
    for late, count in ((own.late, own.late_of), (seen.window_late, seen.window_answers)):
        if late is not None and late >= missed / 2.0 and (count * missed >= BORNE_OUT or count >= LATE_OF):
            return True
    return False


def counted(c: Check, own: LadderState, rules: Rules, now_s: float) -> str:
    text = f"{c.text} in {own.breaches(c.constraint)} of the last {rules.of_windows} periods"
    flags = own.flags.get(c.constraint, ())
    span_s = now_s - flags[0][0] if flags else 0.0
    if span_s < (rules.of_windows + 0.5) * rules.period_s:
        return text
    what = "answers" if c.constraint == "latency" else "a reading"
    return f"{text} with {what}, {duration(span_s)} in all"


def dwelling(own: LadderState, rules: Rules, now_s: float) -> str:
    return f"the last change was {duration(now_s - own.since_s)} ago, and dwell_s is {rules.dwell_s:g}"


def expected(one: Outlook, ladder: LadderView) -> str:
    name = one.rung.name
    if one.work_s is None:
        text = f"{name}, whose latency here is not known yet"
    else:
        text = f"{name} is predicted to take {milliseconds(one.work_s)}"
    if one.missed is not None and ladder.limits.deadline_s is not None:
        text += f", {one.missed:.1%} of the answers later than {milliseconds(ladder.limits.deadline_s)}"
    return text if one.broken is None else f"{text}: the least of the evils"
