"""What a load did to answers before it was counted.

lessons of the last seconds + a jump of contention -> excused -> the ladder without what the jump explains

Answers feel a load at once; the tasks of a second tell of it when that second is over. Until then a rung beside it
seems to be slower at rest, and a limit to break without a cause; as it goes, the same the other way round. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.estimator import Lesson, predict
from flyball.governor.state import LadderState, State

UNCOUNTED_S = 1.6  # a load that comes is counted after so long at the latest, at the first look then
LONG_S = 10.0  # over a longer period, its first second hardly shows in the answers' mean
PLAINLY = 0.2  # of what a sample was expected to be


def remembered(lessons: tuple[Lesson, ...], newest: Lesson, rules: Rules) -> tuple[Lesson, ...]:
    """With the newest, and without those that no jump to come can be about; but for one look, to see whether a rung was
    off before that already."""
    since_s = newest.at_s - _reach_s(rules) - rules.period_s
    return (*(one for one in lessons if one.at_s >= since_s), newest)


def excused(own: LadderState, state: State, rules: Rules) -> LadderState:
    """For a look at which contention jumped. Also of ladders that nobody looks at, because their rung is being changed
    for what that had taught."""
    since_s = (state.jumped_s or 0.0) - _reach_s(rules)
    slow, lessons = own.slow, own.lessons
    for rung in dict.fromkeys(one.rung for one in lessons):
        first = _first([one for one in lessons if one.rung == rung], state.jump, since_s)
        if first is not None:
            slow = {**slow, rung: first.before}
            lessons = tuple(one for one in lessons if one.rung != rung)
    left = own.left
    if state.jump > 0.0:
        left = {
            name: msgspec.structs.replace(one, contention=max(one.contention, state.contention))
            if one.cause == "latency" and one.at_s >= since_s
            else one
            for name, one in left.items()
        }
    return msgspec.structs.replace(own, slow=slow, lessons=lessons, left=left)


def _reach_s(rules: Rules) -> float:
    """How long before the jump what it explains can have been seen."""
    return UNCOUNTED_S + min(rules.period_s, LONG_S)


def _first(lessons: Sequence[Lesson], jump: float, since_s: float) -> Lesson | None:
    """The one from which on the jump explains them: the first that is off, unless the one before it, which is too old
    for that, was so already. Later ones need not be: beside a load a few answers may well not be interrupted."""
    # Beside a load that comes and goes from look to look every lesson counts.
    back = max((index for index, one in enumerate(lessons) if one.jump * jump < 0.0), default=-1)
    before = None
    for one in lessons[back + 1 :]:
        if one.at_s >= since_s and _is_off(one, jump):
            return None if before is not None and _is_off(before, jump) else one
        before = one
    return None


def _is_off(one: Lesson, jump: float) -> bool:
    """Whether it was plainly slower than expected, as more contention would explain, or plainly quicker, as less."""
    expected = predict(one.before, one.work_s, one.contention, one.at_s)[0]
    off = one.factor - expected
    return abs(off) > PLAINLY * expected and (off > 0.0) == (jump > 0.0)
