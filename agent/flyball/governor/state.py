"""What the governor remembers of a ladder between two decisions.

State -> at(view) -> noted(checks) -> [policy decides] -> moved(...) or refused(...) -> State

Everything that outlives a decision is here. Frozen: every step returns a new value. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from flyball.config import Governor as Rules
from flyball.governor.constraints import Check
from flyball.governor.values import Constraint, Observation, View
from flyball.ports import Decision, Pin

CLIMBS_PER_HOUR = 30  # whatever the load does: every change of rung costs the opening of one
HOUR_S = 3600.0

# Why a climb was thought safe: never left, the load had fallen, or the wait was over and it is a try.
Grounds = Literal["", "free", "load", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A rung that was left because a limit broke. `level` is the highest processor utilization in the dwell time after
    that: the contention that it could not bear, seen from the rung below (whose own share is then the same as when
    it is compared). `failures` are climbs in a row that were taken back; `misled` says that one of them was made
    because the utilization had fallen, which is then no longer believed."""

    cause: Constraint
    at_s: float
    wait_s: float
    p95_s: float | None = None
    level: float | None = None
    failures: int = 0
    misled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """The lowest p95 within the limit in the last stay on a rung that had one. The last would not do: as a load sets
    in, it may be anything up to the limit, and would forbid the way back for good."""

    p95_s: float
    stay_s: float  # `since_s` of that stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A rung that could not be opened is left alone until `until_s`."""

    until_s: float
    failures: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """`since_s` is when `active` became so. `flags` holds, newest last, whether a limit was broken in the last
    periods in which that was known. `streak` counts the periods in a row in which a climb to `streak_for` looked
    safe, on `grounds`; `entered` are the grounds on which the active rung was climbed to ("" when it was not)."""

    active: str = ""
    since_s: float = 0.0
    looked_s: float | None = None
    flags: Mapping[Constraint, tuple[bool, ...]] = field(default_factory=dict)
    sensed: frozenset[Constraint] = frozenset()  # limits whose sensor has been seen working
    streak: int = 0
    streak_for: str = ""
    grounds: Grounds = ""
    entered: Grounds = ""
    entered_c: float | None = None  # temperature when heat made it step down to the active rung
    calm: Mapping[str, Calm] = field(default_factory=dict)
    left: Mapping[str, Left] = field(default_factory=dict)
    rests: Mapping[str, Rest] = field(default_factory=dict)
    climbs_s: tuple[float, ...] = ()  # in the last hour
    pin: Pin | None = None

    def at(self, view: View, rules: Rules) -> State:
        """Takes in what happened without the governor: another rung is active, one failed, a pin ran out."""
        now_s = view.now_s
        state = self if view.active == self.active else self._entering(view.active or "", now_s)
        if state.pin is not None and state.pin.until_s is not None and state.pin.until_s <= now_s:
            state = replace(state, pin=None)
        rests = {name: rest for name, rest in state.rests.items() if name != view.active}
        for rung in view.rungs:
            if rung.failed and rung.name not in rests and rung.name != view.active:
                rests[rung.name] = Rest(until_s=now_s + rules.climb_backoff_s, failures=0, error=rung.error)
        climbs_s = tuple(t for t in state.climbs_s if now_s - t < HOUR_S)
        return replace(state, rests=rests, climbs_s=climbs_s, looked_s=now_s)

    def noted(self, view: View, checks: tuple[Check, ...], rules: Rules) -> State:
        """Takes in which limits are broken now, and what that says about the rungs that were left."""
        flags = {
            c.constraint: self.flags.get(c.constraint, ())
            if c.broken is None
            else (*self.flags.get(c.constraint, ()), c.broken)[-rules.of_windows :]
            for c in checks
        }
        left = {name: _levelled(gone, view, rules) for name, gone in self.left.items()}
        mine = left.get(self.active)
        in_order = not any(c.broken for c in checks)
        if mine is not None and in_order and view.now_s - self.since_s >= trial_s(mine.cause, mine, rules):
            del left[self.active]  # it has held its limits for long enough
        known = frozenset(c.constraint for c in checks if c.broken is not None and c.constraint != "latency")
        late = any(c.broken for c in checks if c.constraint == "latency")
        return replace(
            self,
            flags=flags,
            left=left,
            sensed=self.sensed | known,
            calm=self.calm if late else self._calmest(view.seen.p95_s),
        )

    def lost(self, checks: tuple[Check, ...]) -> tuple[Check, ...]:
        """The limits whose sensor worked once and does not now."""
        return tuple(c for c in checks if c.broken is None and c.constraint in self.sensed)

    def breaches(self, constraint: Constraint) -> int:
        return sum(self.flags.get(constraint, ()))

    def climbing(self, rung: str, grounds: Grounds, safe: bool) -> State:
        """Counts a period in which the climb to `rung` looked safe, or starts anew."""
        if not safe:
            return replace(self, streak=0, streak_for=rung, grounds="")
        return replace(self, streak=self.streak + 1 if self.streak_for == rung else 1, streak_for=rung, grounds=grounds)

    def moved(self, decision: Decision, seen: Observation, rules: Rules, now_s: float) -> State:
        """After the switch that `decision` asked for."""
        left = dict(self.left)
        if decision.action == "down" and decision.binding in ("latency", "temperature", "memory"):
            cause: Constraint = decision.binding  # type: ignore[assignment]  # narrowed by the line above
            left[self.active] = self._leaving(cause, seen, rules, now_s)
        state = replace(self._entering(decision.target, now_s), left=left)
        if decision.action == "up":
            return replace(state, entered=self.grounds or "free", climbs_s=(*self.climbs_s, now_s))
        if decision.action == "down" and decision.binding == "temperature":
            return replace(state, entered_c=seen.temperature_c)
        return state

    def refused(self, target: str, error: str, rules: Rules, now_s: float) -> State:
        """After a switch to `target` that failed: it is left alone, twice as long at every failure in a row."""
        failures = self.rests[target].failures + 1 if target in self.rests else 1
        rest = Rest(until_s=now_s + _backoff_s(rules, failures - 1), failures=failures, error=error)
        return replace(self, rests={**self.rests, target: rest}, streak=0)

    def _calmest(self, p95_s: float | None) -> Mapping[str, Calm]:
        before = self.calm.get(self.active)
        if p95_s is None or (before is not None and before.stay_s == self.since_s and before.p95_s <= p95_s):
            return self.calm
        return {**self.calm, self.active: Calm(p95_s=p95_s, stay_s=self.since_s)}

    def _entering(self, rung: str, now_s: float) -> State:
        return replace(
            self, active=rung, since_s=now_s, flags={}, streak=0, streak_for="", grounds="", entered="", entered_c=None
        )

    def _leaving(self, cause: Constraint, seen: Observation, rules: Rules, now_s: float) -> Left:
        before = self.left.get(self.active)
        taken_back = self.entered != "" and now_s - self.since_s < trial_s(cause, before, rules)
        failures = (before.failures if before else 0) + 1 if taken_back else 0
        misled = taken_back and (self.entered == "load" or (before is not None and before.misled))
        return Left(
            cause=cause,
            at_s=now_s,
            wait_s=_backoff_s(rules, failures),
            p95_s=seen.p95_s,
            failures=failures,
            misled=misled,
        )


def trial_s(cause: Constraint, before: Left | None, rules: Rules) -> float:
    """How long a rung has to hold its limits until the climb to it counts as a success. Heat takes minutes to build
    up, a late answer only a few windows."""
    if cause == "temperature":
        return max(rules.climb_backoff_max_s, 2 * rules.dwell_s)
    return max(rules.climb_backoff_s, 2 * rules.dwell_s, before.wait_s if before is not None else 0.0)


def _backoff_s(rules: Rules, doublings: int) -> float:
    return min(rules.climb_backoff_s * 2.0 ** min(doublings, 30), rules.climb_backoff_max_s)


def _levelled(left: Left, view: View, rules: Rules) -> Left:
    utilization = view.seen.cpu_utilization
    since_s = view.now_s - left.at_s
    if utilization is None or left.cause != "latency" or since_s < 2 * rules.period_s:
        return left  # the first readings still cover the time before the step down
    if left.level is None or (since_s <= rules.dwell_s and utilization > left.level):
        return replace(left, level=utilization)
    return left
