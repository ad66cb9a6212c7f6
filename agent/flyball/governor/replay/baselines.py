"""The policies that the governor is compared with. All see the same View and nothing else.

View -> Static | Threshold | Pid | Path -> Decision

Rungs are tried in the declared order, one step at a time; those that no accelerator can run are passed over. None of
them knows heat, memory or power: that is what they are compared for. Path follows rungs that were chosen beforehand
(the oracle's).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flyball.governor.replay.policies import decided
from flyball.governor.values import LadderView, View
from flyball.ports import Decision


class Hysteresis(msgspec.Struct, frozen=True, kw_only=True):
    """Down when the 95th percentile was above `down` of the deadline in `down_windows` periods in a row, up when it was
    below `up` of it in `up_windows`; never twice within `dwell_s`. The plain threshold is the same without patience."""

    down: float = 1.0
    up: float = 0.5
    down_windows: int = 2
    up_windows: int = 10
    dwell_s: float = 10.0


PLAIN = Hysteresis(down=1.0, up=0.5, down_windows=1, up_windows=1, dwell_s=0.0)


class _Heedless:
    """What came of a decision shows in the next View."""

    def moved(self, decision: Decision, now_s: float) -> None: ...

    def refused(self, decision: Decision, error: str, now_s: float) -> None: ...


class Static(_Heedless):
    """One rung, whatever happens; when it was lost, it is gone back to as soon as it can be run again."""

    def __init__(self, rung: str) -> None:
        self._rung = rung

    def decide(self, view: View) -> Decision:
        (ladder,) = view.ladders
        usable = self._rung in usable_rungs(ladder)
        return decided(view, ladder, self._rung if usable else ladder.active or "", "as told")


class Threshold(_Heedless):
    """On the measured 95th percentile against the deadline, with the patience of `rule`."""

    def __init__(self, rule: Hysteresis = PLAIN) -> None:
        self._rule = rule
        self._above = self._below = 0
        self._moved_s = float("-inf")
        self._active: str | None = None

    def decide(self, view: View) -> Decision:
        (ladder,) = view.ladders
        rule = self._rule
        if ladder.active != self._active:
            self._active, self._above, self._below = ladder.active, 0, 0
        ratio = pressed(ladder)
        self._above = self._above + 1 if ratio is not None and ratio > rule.down else 0
        self._below = self._below + 1 if ratio is not None and ratio < rule.up else 0
        resting = view.now_s - self._moved_s < rule.dwell_s
        step = 0 if resting else 1 if self._above >= rule.down_windows else -1 if self._below >= rule.up_windows else 0
        return decided(view, ladder, stepped(ladder, step), f"p95 at {ratio or 0.0:.2f} of the deadline")

    def moved(self, decision: Decision, now_s: float) -> None:
        self._moved_s = now_s


class Pid(_Heedless):
    """Its error is 1 less p95 over deadline less the margin; its output, 0 to 1, is quantized to the usable rungs."""

    def __init__(self, p: float = 0.3, i: float = 0.05, d: float = 0.1, margin: float = 0.25) -> None:
        self._gains, self._margin = (p, i, d), margin
        self._sum, self._before = 1.0, 0.0

    def decide(self, view: View) -> Decision:
        (ladder,) = view.ladders
        usable = usable_rungs(ladder)
        ratio = pressed(ladder)
        if ratio is None or not usable:
            return decided(view, ladder, ladder.active or "", "nothing was measured")
        p, i, d = self._gains
        error = min(max(1.0 - self._margin - ratio, -1.0), 1.0)
        self._sum = min(max(self._sum + i * error, 0.0), 1.0)  # bounded: it does not wind up
        output = min(max(self._sum + p * error + d * (error - self._before), 0.0), 1.0)
        self._before = error
        place = round((1.0 - output) * (len(usable) - 1))
        return decided(view, ladder, usable[place], f"output {output:.2f}")


class Path(_Heedless):
    """The rung for each period, chosen beforehand: `rungs[i]` for the one that begins at `first_s` + i x `period_s`."""

    def __init__(self, rungs: Sequence[str], first_s: float, period_s: float) -> None:
        self._rungs, self._first_s, self._period_s = rungs, first_s, period_s

    def decide(self, view: View) -> Decision:
        (ladder,) = view.ladders
        i = min(round((view.now_s - self._first_s) / self._period_s), len(self._rungs) - 1)
        wanted = self._rungs[i]
        return decided(view, ladder, wanted if wanted in usable_rungs(ladder) else ladder.active or "", "foreseen")


def pressed(ladder: LadderView) -> float | None:
    """The 95th percentile over the deadline; at least 2 where most of the newest were late or refused."""
    seen, limit_s = ladder.seen, ladder.limits.deadline_s
    if limit_s is None:
        return None
    ratio = seen.p95_s / limit_s if seen.p95_s is not None else None
    if seen.late is not None and seen.late > 0.5:
        return max(ratio or 0.0, 2.0)
    return ratio


def usable_rungs(ladder: LadderView) -> list[str]:
    return [rung.name for rung in ladder.rungs if rung.usable]


def stepped(ladder: LadderView, steps: int) -> str:
    """So many usable rungs further down (negative: up) than the active one; the end of the ladder is the end."""
    usable = usable_rungs(ladder)
    if not steps or ladder.active not in usable:
        return ladder.active or ""
    return usable[min(max(usable.index(ladder.active) + steps, 0), len(usable) - 1)]
