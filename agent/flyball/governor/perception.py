"""What a look teaches: slow-downs, heat, memory, arrivals, and which limits are broken now.

View + State -> perceive -> State

Decides nothing. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.governor import estimator, memory, onset, thermal
from flyball.governor.constraints import Check, check
from flyball.governor.estimator import CONTENDED
from flyball.governor.sources import CONTENTION, HOLD_S, losses, sources
from flyball.governor.state import FLAG_S, HOUR_S, LadderState, Rest, State, settled, trial_s
from flyball.governor.values import HARD, Constraint, LadderView, Machine, Rung, View

RAMPING = 0.8  # of the highest clock: below it, on an idle machine, an answer measures the ramp and not the rung
IDLE = 0.5
CALM_TASKS = 0.5
SMOOTHED = 0.2  # share of the newest sample of power
# Share of the newest sample: of arrivals and of contention that chance explains, and of other contention.
SLOW, STEADY, QUICK = 0.04, 0.2, 0.9
ODD_TASKS = 0.8  # per processor: counted tasks differ by less from look to look
ODD_SD, TWICE_SD = 4.0, 2.7  # of a Poisson count, once and in two looks in a row
SLOWEST = 0.01  # of the highest clock
ODD_COUNT, EVEN = 4.0, 0.25  # times the usual dispersion, which is taken for no less
MOST_RANDOM = 1.5  # beyond that arrivals are taken to be random all the same
EVENNESS_OF = 30.0  # looks, after which it is known how evenly requests come
BELIEVED = 4  # looks, as many as what was known before of how counts scatter is worth
LATE_OF = 600  # requests over which the share of late ones is remembered
FEW = 3  # answers of which the spread says something


def key(rung: Rung) -> str:
    """Of a rung's slow-down: the same rung on another accelerator is another thing."""
    return f"{rung.name}@{rung.accelerator}"


def keys(rungs: Sequence[Rung]) -> list[str]:
    """The same of a row of rungs: asked of every rung in every period."""
    return [f"{rung.name}@{rung.accelerator}" for rung in rungs]


def perceive(view: View, rules: Rules, state: State) -> State:
    machine, now_s = view.machine, view.now_s
    contention, rose_s, fell_s = state.contention, state.rose_s, state.fell_s
    if machine.contention is not None:
        off = machine.contention - contention
        if abs(off) > ODD_TASKS and state.looked_s is not None and state.sensed.get(CONTENTION) == state.looked_s:
            rose_s, fell_s = (now_s, fell_s) if off > 0.0 else (rose_s, now_s)
        share = 1.0 if state.looked_s is None else QUICK if abs(off) > ODD_TASKS else STEADY
        contention += share * off
    elif now_s - state.sensed.get(CONTENTION, -math.inf) > HOLD_S:
        contention = 0.0  # where nobody counts tasks, what they do shows up in the rungs' slow-downs at rest
    zones = dict(state.zones)
    for name, temp_c in machine.zones.items():
        zone = thermal.observe(zones.get(name), now_s, temp_c, machine.power_w)
        if zone is not None:
            zones[name] = zone
    here = sources(machine)
    trend = state.memory
    if machine.memory_available_bytes is not None:
        trend = memory.observe(trend, now_s, machine.memory_available_bytes, machine.memory_pressure)
    after = msgspec.structs.replace(
        state,
        looked_s=now_s,
        contention=contention,
        rose_s=rose_s,
        fell_s=fell_s,
        zones=zones,
        memory=trend,
        sensed={**state.sensed, **dict.fromkeys(here, now_s)},
        power_w=_smoothed(machine.power_w, state.power_w),
        base_w=_base_w(view, state),
    )
    if now_s not in (rose_s, fell_s):
        return after
    ladders = {name: onset.excused(own, after, rules) for name, own in state.ladders.items()}
    return msgspec.structs.replace(after, ladders=ladders)


def perceive_ladder(
    ladder: LadderView, view: View, rules: Rules, state: State, before: LadderState
) -> tuple[LadderState, tuple[Check, ...]]:
    """Takes in what happened to one ladder, with or without the governor."""
    now_s = view.now_s
    own = before if ladder.active == before.active else before.entering(ladder.active or "", now_s, state.contention)
    pin = own.pin
    if pin is not None and pin.until_s is not None and pin.until_s <= now_s:
        pin = None
    rests = {name: rest for name, rest in own.rests.items() if name != ladder.active}
    for rung in ladder.rungs:
        if rung.failed and rung.name not in rests and rung.name != ladder.active:
            rests[rung.name] = Rest(until_s=now_s + rules.climb_backoff_s, failures=0, error=rung.error)
    checks = check(view.machine, ladder, rules, state.power_w)
    arrivals_per_s, off, paced = _arrivals(ladder, own, rules)
    late, late_of = _late(ladder, own)
    slow, lessons = _slowed(ladder, view, own, rules, state)
    dispersion, dispersion_of = _dispersion(own, ladder.seen.arrivals_per_s, arrivals_per_s, paced, rules)
    return msgspec.structs.replace(
        own,
        pin=pin,
        rests=rests,
        climbs_s=tuple(t for t in own.climbs_s if now_s - t < HOUR_S),
        flags={c.constraint: _flagged(own, c, now_s, rules) for c in checks},
        slow=slow,
        lessons=lessons,
        arrivals_per_s=arrivals_per_s,
        arrivals_off=off,
        paced=paced,
        counted_per_s=ladder.seen.arrivals_per_s,
        dispersion=dispersion,
        dispersion_of=dispersion_of,
        late=late,
        late_of=late_of,
        overheads_s=_overheads(ladder, view, own, rules, state),
        **_proving(ladder, view.machine, checks, state, own, rules, now_s),
    ), checks


def _slowed(
    ladder: LadderView, view: View, own: LadderState, rules: Rules, state: State
) -> tuple[Mapping[str, estimator.SlowDown], tuple[estimator.Lesson, ...]]:
    """What every rung suffers, after the newest answers; and what the last of them have taught."""
    seen, machine, slow, contention = ladder.seen, view.machine, own.slow, state.contention
    rung = next((r for r in ladder.rungs if r.name == ladder.active), None)
    if rung is None or rung.work_s is None or seen.work_mean_s is None or not seen.answers:
        return slow, own.lessons
    if settled(own, ladder, rules, view.now_s) < 0 or _ramping(machine, contention):
        return slow, own.lessons
    clock = clock_share(machine)
    std = None
    if seen.work_std_s is not None and seen.answers >= FEW:
        std = seen.work_std_s / rung.work_s * clock
    usual = rung.spread if rung.spread is not None else 0.1
    sample = estimator.Sample(seen.work_mean_s / rung.work_s * clock, std, seen.answers, usual)
    name = key(rung)
    before = slow.get(name) or estimator.SlowDown()
    lesson = estimator.Lesson(name, before, rung.work_s, contention, sample.factor, view.now_s)
    taught = estimator.observe(before, rung.work_s, contention, sample, view.now_s)
    return {**slow, name: taught}, onset.remembered(own.lessons, lesson, rules)


def clock_share(machine: Machine) -> float:
    """By how much a throttled clock is below the highest: every rung shares that, so it is kept out of slow-downs."""
    return min(max(machine.clock, SLOWEST), 1.0) if machine.throttled and machine.clock else 1.0


def _ramping(machine: Machine, contention: float) -> bool:
    if machine.clock is None or machine.throttled or contention >= CALM_TASKS:
        return False
    return machine.clock < RAMPING and (machine.cpu_utilization is None or machine.cpu_utilization < IDLE)


def _arrivals(ladder: LadderView, own: LadderState, rules: Rules) -> tuple[float | None, float, int]:
    """Their pace, smoothed; by how many standard deviations the newest count was off; and how many looks it rests on.
    A jump that is no chance begins anew: a tenth of the former pace would pass for chance, for half a minute."""
    now, before, paced = ladder.seen.arrivals_per_s, own.arrivals_per_s, own.paced
    if now is None or before is None:
        return (now if now is not None else before), 0.0, paced + (now is not None)
    # Of a count at random, and of the mean of those before it.
    chance = math.sqrt(max(before, 1.0) / rules.period_s * (1.0 + 1.0 / max(paced, 1)))
    off = (now - before) / chance
    again = own.arrivals_off * off > 0.0 and abs(own.arrivals_off) > TWICE_SD and abs(off) > TWICE_SD
    if again or abs(off) > ODD_SD:
        return now, off, 1
    return before + max(SLOW, 1.0 / (paced + 1)) * (now - before), off, paced + 1


def _dispersion(
    own: LadderState, now: float | None, arrivals_per_s: float | None, paced: int, rules: Rules
) -> tuple[float, float]:
    """Of the counts, from one to the next, so that a mean which is still being learnt does not look like chance; and on
    how many looks that rests. What was known of another pace counts as much as a few looks, and one odd count as a few
    usual ones. Silence is not even, and a look at which less than one was to be expected tells less."""
    before, counted = own.dispersion, own.counted_per_s
    if now is None or counted is None or arrivals_per_s is None or now == counted == 0.0:
        return before, own.dispersion_of
    expected = max(arrivals_per_s, own.arrivals_per_s or 0.0) * rules.period_s
    off = (now - counted) * rules.period_s
    newest = min(off * off / (2.0 * expected), ODD_COUNT * max(before, EVEN)) if expected > 0.0 else before
    telling = min(expected, 1.0)
    share = max(SLOW, 1.0 / (BELIEVED + paced - 1)) * telling
    return min(before + share * (newest - before), MOST_RANDOM), min(own.dispersion_of + telling, EVENNESS_OF)


def _late(ladder: LadderView, own: LadderState) -> tuple[float | None, int]:
    """The share over the last hundreds, and over how many."""
    seen = ladder.seen
    if seen.late is None or not seen.answers:
        return own.late, own.late_of
    count = min(own.late_of + seen.answers, LATE_OF)
    before = own.late if own.late is not None else seen.late
    return before + (seen.late - before) * min(seen.answers / count, 1.0), count


def _overheads(ladder: LadderView, view: View, own: LadderState, rules: Rules, state: State) -> tuple[float, float]:
    """Hand-over and replying, calm and contended, told only while there is hardly a queue, and not while the window
    still holds answers from before a load came or went."""
    seen, (calm_s, contended_s) = ladder.seen, own.overheads_s
    if seen.p50_s is None or seen.work_mean_s is None or settled(own, ladder, rules, view.now_s) < rules.window_s:
        return own.overheads_s
    if (own.arrivals_per_s or 0.0) * seen.work_mean_s > 0.3:
        return own.overheads_s
    if any(t is not None and view.now_s - t <= rules.window_s + rules.period_s for t in (state.rose_s, state.fell_s)):
        return own.overheads_s
    now_s = max(0.0, seen.p50_s - seen.work_mean_s)
    if state.contention < CONTENDED:
        return calm_s + 0.1 * (now_s - calm_s), contended_s
    return calm_s, contended_s + 0.1 * (now_s - contended_s)


def _base_w(view: View, state: State) -> float | None:
    """What the machine takes without the inferences of its active rungs."""
    power_w = view.machine.power_w
    if power_w is None:
        return state.base_w
    for ladder in view.ladders:
        rung = next((r for r in ladder.rungs if r.name == ladder.active), None)
        if rung is not None and rung.joules is not None:
            # What is refused takes no energy.
            power_w -= rung.joules * (_first(ladder.seen.answers_per_s, ladder.seen.arrivals_per_s) or 0.0)
    return _smoothed(max(power_w, 0.0), state.base_w)


def _first(one: float | None, other: float | None) -> float | None:
    return other if one is None else one


def _smoothed(power_w: float | None, before: float | None) -> float | None:
    """Power wavers with every request; what a cap means is the mean."""
    if power_w is None or before is None:
        return power_w
    return before + SMOOTHED * (power_w - before)


def _flagged(own: LadderState, c: Check, now_s: float, rules: Rules) -> tuple[tuple[float, bool], ...]:
    oldest_s = now_s - max(FLAG_S, rules.of_windows * max(rules.period_s, rules.window_s))
    fresh = tuple(flag for flag in own.flags.get(c.constraint, ()) if flag[0] >= oldest_s)
    return fresh if c.broken is None else (*fresh, (now_s, c.broken))[-rules.of_windows :]


def _proving(
    ladder: LadderView,
    machine: Machine,
    checks: tuple[Check, ...],
    state: State,
    own: LadderState,
    rules: Rules,
    now_s: float,
) -> dict[str, object]:
    """`kept_s`, `proven` and `left` after this look. A breach disproves the active rung, and those above it with it."""
    names = [r.name for r in ladder.rungs]
    lost = {loss.constraint for loss in losses(state.sensed, machine, frozenset(c.constraint for c in checks))}
    kept_s: dict[Constraint, float] = dict(own.kept_s)
    proven = {c: r for c, r in own.proven.items() if r in names}
    for c in (c for c in checks if c.constraint in HARD and own.active in names):
        constraint = c.constraint
        if c.broken or c.broken is None or constraint in lost:
            kept_s.pop(constraint, None)
        if c.broken and constraint in proven and names.index(proven[constraint]) <= names.index(own.active):
            del proven[constraint]
        if c.broken is False and constraint not in lost:
            since_s = kept_s.setdefault(constraint, now_s)
            if now_s - since_s >= trial_s(constraint, None, rules):
                proven[constraint] = own.active
    left = dict(own.left)
    mine = left.get(own.active)
    in_order = mine is not None and mine.cause not in lost and not any(c.broken for c in checks)
    if mine is not None and in_order and now_s - own.since_s >= trial_s(mine.cause, mine, rules):
        del left[own.active]  # it has held its limits for long enough
    return {"kept_s": kept_s, "proven": proven, "left": left}
