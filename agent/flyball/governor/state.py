"""What the governor remembers between two decisions.

State -> perception.perceive -> [policy chooses] -> moved(...) or refused(...) -> State

Everything that outlives a decision is here: a State and a row of Views give the same decisions anywhere. Frozen, and
written as JSON into a recorded log. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from flyball.config import Governor as Rules
from flyball.governor import memory, thermal
from flyball.governor.estimator import CONTENDED, Lesson, SlowDown
from flyball.governor.values import Constraint, LadderView
from flyball.ports import Decision, Pin

CLIMB = "headroom"  # what binds when nothing but a better rung asks for the change
CLIMBS_PER_HOUR = 30  # whatever the load does: every change of rung costs the opening of one
HOUR_S = 3600.0
FLAG_S = 60.0  # a breach before a longer silence says nothing of now; one answer in half a minute is still judged
EASED_TASKS, EASED_SHARE = 0.5, 0.8  # what is clearly less: tasks per processor, and of the arrivals
LONGEST_TRIAL = 4.0  # times the first back-off
STAY_S = 60.0  # how long a stay is taken to last until one was seen


class Left(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A rung that was left because a limit broke, for `at_s` + `wait_s`: either the climb to it had to be taken back,
    and it is not gone back to, whatever is predicted of it, unless there is clearly less contention or there are fewer
    arrivals than then; or (`narrow`) the limit broke by little, or unforeseen, and only a prediction that is well
    within it will do. `failures` are climbs in a row that were taken back."""

    cause: Constraint
    at_s: float
    wait_s: float
    failures: int = 0
    narrow: bool = False
    contention: float = 0.0
    arrivals_per_s: float = 0.0
    before: Left | None = None  # what this one took the place of

    def eased(self, contention: float, arrivals_per_s: float) -> bool:
        if self.cause != "latency":
            return False
        return contention < self.contention - EASED_TASKS or arrivals_per_s < self.arrivals_per_s * EASED_SHARE


class Rest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A rung that could not be opened is left alone until `until_s`."""

    until_s: float
    failures: int
    error: str


class Opening(msgspec.Struct, frozen=True, gc=False):
    """A change of rung that was begun: the memory that it is going to take, when, and what bound."""

    takes_bytes: float
    since_s: float
    cause: str = ""


class LadderState(msgspec.Struct, frozen=True, kw_only=True):
    """Of one ladder.

    `since_s` is when `active` became so, `entered` whether that was a climb of the governor's own, and `calm` the
    contention then. `flags` holds, newest last, when it could be told whether a limit was broken, and whether it was.
    `kept_s` is since when a limit has held without a break on the active rung, `proven` the last rung on which it did
    for a whole trial. `streak` counts the periods in a row in which `streak_for` looked safe. `slow` is what each rung
    suffers, by "rung@accelerator". `arrivals_per_s` is smoothed, but for what chance does not explain; `overheads_s`
    is what an answer takes beyond wait and work, calm and contended. `stay_s` is how long stays on a rung have lasted,
    smoothed."""

    active: str = ""
    since_s: float = 0.0
    entered: bool = False
    calm: float = 0.0
    flags: Mapping[Constraint, tuple[tuple[float, bool], ...]] = {}
    kept_s: Mapping[Constraint, float] = {}
    proven: Mapping[Constraint, str] = {}
    stepped_for: str = ""  # what bound when it was changed to the active rung
    streak: int = 0
    streak_for: str = ""
    left: Mapping[str, Left] = {}
    rests: Mapping[str, Rest] = {}
    climbs_s: tuple[float, ...] = ()  # in the last hour
    pin: Pin | None = None
    slow: Mapping[str, SlowDown] = {}
    lessons: tuple[Lesson, ...] = ()  # of the last seconds (onset.py)
    arrivals_per_s: float | None = None
    entered_c: float | None = None  # of the hottest zone when heat made it step down to the active rung
    paced: int = 0  # looks at its arrivals since their pace changed
    late: float | None = None  # share of the last hundreds of requests on the active rung
    late_of: int = 0
    arrivals_off: float = 0.0  # the newest count, in standard deviations
    dispersion: float = 1.0  # of the counts: 1 at random, near 0 from a camera that sends one after the other
    dispersion_of: float = 0.0  # looks that it rests on, 30 at the most
    overheads_s: tuple[float, float] = (0.0, 0.0)
    counted_per_s: float | None = None  # the newest count of arrivals
    stay_s: float = STAY_S
    since_rules: Mapping[str, float] = {}  # of the configuration's rules: since when each condition has held
    firing: tuple[str, ...] = ()

    def breaches(self, constraint: Constraint) -> int:
        return sum(broken for _, broken in self.flags.get(constraint, ()))

    def overhead_s(self, contention: float) -> float:
        calm_s, contended_s = self.overheads_s
        return calm_s if contention < CONTENDED else max(calm_s, contended_s)

    def entering(self, rung: str, now_s: float, contention: float = 0.0, climbed: bool = False) -> LadderState:
        stayed_s = now_s - self.since_s
        mean_s = self.stay_s if not self.active or stayed_s <= 0 else 0.7 * self.stay_s + 0.3 * min(stayed_s, HOUR_S)
        return msgspec.structs.replace(
            self,
            active=rung,
            since_s=now_s,
            entered=climbed,
            calm=contention,
            flags={},
            kept_s={},
            stepped_for="",
            streak=0,
            streak_for="",
            late=None,
            late_of=0,
            entered_c=None,
            stay_s=mean_s,
        )


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Of the machine and all its ladders. `contention` is smoothed; `rose_s` and `fell_s` are when it last became
    plainly more and less, not by chance. `power_w` is what the machine takes, smoothed, and `base_w` that without the
    ladders' own inferences. `sensed` is when the readings that the limits rest on were last there, as "constraint" or
    "constraint/zone". `opening` are the changes of rung that were begun, by ladder, from the decision until the ladder
    is looked at again."""

    looked_s: float | None = None
    contention: float = 0.0
    rose_s: float | None = None
    fell_s: float | None = None
    base_w: float | None = None
    power_w: float | None = None
    zones: Mapping[str, thermal.Zone] = {}
    memory: memory.Trend | None = None
    sensed: Mapping[str, float] = {}
    ladders: Mapping[str, LadderState] = {}
    opening: Mapping[str, Opening] = {}

    def of(self, ladder: str) -> LadderState:
        return self.ladders.get(ladder) or LadderState()

    def having(self, ladder: str, state: LadderState) -> State:
        return msgspec.structs.replace(self, ladders={**self.ladders, ladder: state})

    def pinned(self, ladder: str, pin: Pin | None) -> State:
        return self.having(ladder, msgspec.structs.replace(self.of(ladder), pin=pin))

    def restarted(self, now_s: float) -> State:
        """After the clock went back: no time that is remembered means anything. What was ordered is kept, and that
        there were climbs."""
        kept = {
            name: LadderState(pin=own.pin, climbs_s=(now_s,) * len(own.climbs_s)) for name, own in self.ladders.items()
        }
        return State(ladders=kept)

    def begun(self, ladder: str, takes_bytes: float, now_s: float) -> State:
        """A change of its rung that somebody asked for between two looks."""
        return msgspec.structs.replace(self, opening={**self.opening, ladder: Opening(takes_bytes, now_s, "pin")})

    def moved(self, decision: Decision, now_s: float, rules: Rules) -> State:
        """After the switch that `decision` asked for."""
        before = self.of(decision.ladder)
        left = dict(before.left)
        forced = decision.binding in ("latency", "temperature", "memory", "power", "energy")
        if forced and decision.action in ("down", "up"):
            gone = _leaving(before, decision, self.contention, rules, now_s)
            if gone is not None:
                left[before.active] = gone
        # The quickest or thriftiest rung may stand anywhere in the ladder: there, a climb may lead down.
        climbed = decision.binding == CLIMB or (decision.action == "up" and not forced)
        # What a pin brings back and heat takes again waits longer every time, too, but an order is not rationed.
        after = before.entering(decision.target, now_s, self.contention, climbed or decision.action == "pin")
        # A limit that asks for a rung further up counts too, but for what takes a climb back: two limits in turn would
        # else move it to and fro without end.
        counts = climbed or (decision.action == "up" and not before.entered)
        climbs_s = (*before.climbs_s, now_s) if counts else before.climbs_s
        if decision.binding == "temperature" and self.zones:
            hottest_c = max(thermal.now_c(zone) for zone in self.zones.values())
            after = msgspec.structs.replace(after, entered_c=hottest_c)
        return self.having(
            decision.ladder, msgspec.structs.replace(after, left=left, climbs_s=climbs_s, stepped_for=decision.binding)
        )

    def refused(self, decision: Decision, error: str, now_s: float, rules: Rules) -> State:
        """After a switch that failed: its target is left alone, twice as long at every failure in a row."""
        before = self.of(decision.ladder)
        failures = before.rests[decision.target].failures + 1 if decision.target in before.rests else 1
        rest = Rest(until_s=now_s + backoff_s(rules, failures - 1), failures=failures, error=error)
        rests = {**before.rests, decision.target: rest}
        return self.having(decision.ladder, msgspec.structs.replace(before, rests=rests, streak=0, streak_for=""))


def trial_s(cause: Constraint, before: Left | None, rules: Rules) -> float:
    """How long a rung has to hold its limits until the climb to it counts as a success. Heat takes minutes to build
    up, a late answer only a few windows."""
    if cause in ("temperature", "energy"):
        return max(rules.climb_backoff_max_s, 2 * rules.dwell_s)
    waited_s = min(before.wait_s, LONGEST_TRIAL * rules.climb_backoff_s) if before is not None else 0.0
    return max(rules.climb_backoff_s, 2 * rules.dwell_s, waited_s)


def backoff_s(rules: Rules, doublings: int) -> float:
    return min(rules.climb_backoff_s * 2.0 ** min(doublings, 30), rules.climb_backoff_max_s)


def settled(state: LadderState, ladder: LadderView, rules: Rules, now_s: float) -> float:
    """How long the active rung has been answering what was measured: the first period of a stay holds requests that
    waited out the change. Negative before that."""
    return now_s - state.since_s - rules.period_s if ladder.active == state.active else -1.0


def _leaving(state: LadderState, decision: Decision, contention: float, rules: Rules, now_s: float) -> Left | None:
    """Whether the law is to wait before it goes back. Contention that came up since the climb is no fault of the
    climb: when it has gone, the estimator says so."""
    cause: Constraint = decision.binding  # type: ignore[assignment]  # the caller has looked
    before = state.left.get(state.active)
    taken_back = state.entered and now_s - state.since_s < trial_s(cause, before, rules)
    grown = cause == "latency" and contention > state.calm + 0.5
    if taken_back and not grown:
        failures, narrow = (before.failures if before is not None else 0) + 1, before is not None and before.narrow
    elif (decision.unforeseen or decision.narrow) and not grown:
        narrow = cause == "latency"
        failures = 0 if before is None else before.failures + narrow
    else:
        return None
    # What was close stays close until something changes: `eased` sees that.
    wait_s = HOUR_S if narrow else backoff_s(rules, failures)
    return Left(
        cause=cause, at_s=now_s, wait_s=wait_s, failures=failures, narrow=narrow, contention=contention,
        arrivals_per_s=state.arrivals_per_s or 0.0,
        before=None if before is None else msgspec.structs.replace(before, before=None),
    )  # fmt: skip


Action = Literal["stay", "down", "up", "pin"]
