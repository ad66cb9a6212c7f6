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

SECOND_S = 1.6  # of counts has to be over, and what chance of the moments of reading adds; then comes a look
COUNTED_S = 2.1  # sensors that are read once a second were seen to take 2.08 s, however often somebody looks
LONG_S = 10.0  # over a longer period, a load's first second hardly shows in the answers' mean
PLAINLY = 0.2  # of what a sample was expected to be


def remembered(lessons: tuple[Lesson, ...], newest: Lesson, rules: Rules) -> tuple[Lesson, ...]:
    """With the newest, and without those that no jump to come can be about; but for the last one of every rung before
    those, which tells whether it was off already."""
    since_s = newest.at_s - _reach_s(rules)
    if not lessons or lessons[0].at_s >= since_s:
        return (*lessons, newest)
    older = {one.rung: one for one in lessons if since_s - LONG_S <= one.at_s < since_s}
    return (*older.values(), *(one for one in lessons if one.at_s >= since_s), newest)


def excused(own: LadderState, state: State, rules: Rules) -> LadderState:
    """For a look at which contention jumped. Also of ladders that nobody looks at, because their rung is being changed
    for what that had taught."""
    now_s = state.looked_s or 0.0
    rose = state.rose_s == now_s
    turned_s = state.fell_s if rose else state.rose_s
    slow, lessons, left = dict(own.slow), own.lessons, dict(own.left)
    for rung in dict.fromkeys(one.rung for one in lessons):
        # Beside a load that comes and goes from look to look every lesson counts.
        its = [one for one in lessons if one.rung == rung and (turned_s is None or one.at_s > turned_s)]
        first = _first(its, rose, now_s - _reach_s(rules))
        if first is None:
            continue
        if first.before.work_s:
            slow[rung] = first.before
        else:
            del slow[rung]  # nothing was known
        lessons = tuple(one for one in lessons if one.rung != rung)
        name = rung.rpartition("@")[0]
        mark = left.get(name)
        if rose and mark is not None and mark.cause == "latency" and mark.at_s >= first.at_s:
            del left[name]  # the load broke it: no fault of the rung
            if mark.before is not None:
                left[name] = mark.before
    return msgspec.structs.replace(own, slow=slow, lessons=lessons, left=left)


def _reach_s(rules: Rules) -> float:
    """How long before the jump what it explains can have been seen."""
    return max(COUNTED_S, SECOND_S + min(rules.period_s, LONG_S))


def _first(lessons: Sequence[Lesson], rose: bool, since_s: float) -> Lesson | None:
    """The one from which on the jump explains them: the first that is off, unless the one before it, which is too old
    for that, was so already. Later ones need not be: beside a load a few answers may well not be interrupted."""
    before = None
    for one in lessons:
        if one.at_s >= since_s and _is_off(one, rose):
            return None if before is not None and _is_off(before, rose) else one
        before = one
    return None


def _is_off(one: Lesson, rose: bool) -> bool:
    """Whether it was plainly slower than expected, as more contention would explain, or plainly quicker, as less."""
    expected = predict(one.before, one.work_s, one.contention, one.at_s)[0]
    off = one.factor - expected
    return abs(off) > PLAINLY * expected and (off > 0.0) == rose
