"""What the governor remembers of a ladder between two decisions.

State -> at(view) -> noted(checks) -> [policy decides] -> moved(...) or refused(...) -> State

Everything that outlives a decision is here. Frozen: every step returns a new value. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from flyball.config import Governor as Rules
from flyball.governor.constraints import Check
from flyball.governor.sources import Loss, Source, losses, sources
from flyball.governor.values import HARD, Constraint, Observation, View
from flyball.ports import Decision, Pin

CLIMBS_PER_HOUR = 30  # whatever the load does: every change of rung costs the opening of one
HOUR_S = 3600.0
FLAG_S = 60.0  # a breach before a longer silence says nothing of now; one answer in half a minute is still judged

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
    """`since_s` is when `active` became so. `flags` holds, newest last, when it could be told whether a limit was
    broken, and whether it was: of the last periods, and none that is too old. `sensed` is when the readings that the
    limits rest on were last there. `kept_s` is since when a limit has held without a break on the active rung,
    `proven` the last rung on which it did for a whole trial. `streak` counts the periods in a row in which a climb to
    `streak_for` looked safe, on `grounds`; `entered` are the grounds on which the active rung was climbed to ("" when
    it was not)."""

    active: str = ""
    since_s: float = 0.0
    looked_s: float | None = None
    flags: Mapping[Constraint, tuple[tuple[float, bool], ...]] = field(default_factory=dict)
    sensed: Mapping[Source, float] = field(default_factory=dict)
    kept_s: Mapping[Constraint, float] = field(default_factory=dict)
    proven: Mapping[Constraint, str] = field(default_factory=dict)
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
        state = replace(self, sensed={**self.sensed, **dict.fromkeys(sources(view.seen), view.now_s)})
        lost = {loss.constraint for loss in state.lost(view.seen, checks)}
        left = {name: _levelled(gone, view, rules) for name, gone in self.left.items()}
        mine = left.get(self.active)
        in_order = not any(c.broken for c in checks) and (mine is None or mine.cause not in lost)
        if mine is not None and in_order and view.now_s - self.since_s >= trial_s(mine.cause, mine, rules):
            del left[self.active]  # it has held its limits for long enough
        late = any(c.broken for c in checks if c.constraint == "latency")
        kept_s, proven = self._proving(view, checks, lost, rules)
        return replace(
            state,
            flags={c.constraint: self._flagged(c, view.now_s, rules) for c in checks},
            left=left,
            kept_s=kept_s,
            proven=proven,
            calm=self.calm if late else self._calmest(view.seen.p95_s),
        )

    def lost(self, seen: Observation, checks: Sequence[Check]) -> tuple[Loss, ...]:
        """The readings that were there once and are not now, of the limits that are set."""
        return losses(self.sensed, seen, frozenset(c.constraint for c in checks))

    def breaches(self, constraint: Constraint) -> int:
        return sum(broken for _, broken in self.flags.get(constraint, ()))

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
        if decision.action == "pin" and decision.target in left:
            return replace(state, entered="wait")  # it was left for a limit that is stronger than the pin
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

    def _flagged(self, check: Check, now_s: float, rules: Rules) -> tuple[tuple[float, bool], ...]:
        oldest_s = now_s - max(FLAG_S, rules.of_windows * max(rules.period_s, rules.window_s))
        fresh = tuple(flag for flag in self.flags.get(check.constraint, ()) if flag[0] >= oldest_s)
        return fresh if check.broken is None else (*fresh, (now_s, check.broken))[-rules.of_windows :]

    def _proving(
        self, view: View, checks: tuple[Check, ...], lost: set[Constraint], rules: Rules
    ) -> tuple[Mapping[Constraint, float], Mapping[Constraint, str]]:
        """`kept_s` and `proven` after this look. A breach disproves the active rung, and those above it with it."""
        names = [r.name for r in view.rungs]
        kept_s, proven = dict(self.kept_s), {c: r for c, r in self.proven.items() if r in names}
        for check in (c for c in checks if c.constraint in HARD):
            constraint = check.constraint
            if check.broken or check.broken is None or constraint in lost:
                kept_s.pop(constraint, None)
            if check.broken and constraint in proven and names.index(proven[constraint]) <= names.index(self.active):
                del proven[constraint]
            if check.broken is False and constraint not in lost:
                since_s = kept_s.setdefault(constraint, view.now_s)
                if view.now_s - since_s >= trial_s(constraint, None, rules):
                    proven[constraint] = self.active
        return kept_s, proven

    def _calmest(self, p95_s: float | None) -> Mapping[str, Calm]:
        before = self.calm.get(self.active)
        if p95_s is None or (before is not None and before.stay_s == self.since_s and before.p95_s <= p95_s):
            return self.calm
        return {**self.calm, self.active: Calm(p95_s=p95_s, stay_s=self.since_s)}

    def _entering(self, rung: str, now_s: float) -> State:
        return replace(
            self,
            active=rung,
            since_s=now_s,
            flags={},
            kept_s={},
            streak=0,
            streak_for="",
            grounds="",
            entered="",
            entered_c=None,
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
