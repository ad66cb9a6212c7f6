"""What is to be expected of every rung: work, load, watts, and of the machine: heat, memory.

View + State -> Scene -> Outlook of every rung -> judgement.py

A rung is predicted from its own slow-down at the present contention, never from another rung's. Judges nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import msgspec

from flyball.governor import estimator, memory, thermal
from flyball.governor.constraints import duration
from flyball.governor.estimator import CONTENDED, CONTENDED_SPREAD, unseen
from flyball.governor.perception import clock_share, keys
from flyball.governor.state import LadderState, State
from flyball.governor.values import Constraint, LadderView, Rung, View

LONG_RUN = 5.0  # horizons: by then a climb must still be cool enough
WELL_WITHIN = 0.4  # of the late answers that are allowed, after it was close; once more every time that it is again
EVENNESS, LEAST_EVEN = 1.3, 0.1  # times the dispersion that was counted, since counts scatter; and the least
USUAL_SPREAD = 0.1  # of the work, where it was never measured


class Heat(msgspec.Struct, frozen=True, gc=False):
    """Of the zone that gets hottest: what it comes to within the horizon and in the long run if nothing changes, by how
    much a watt moves each, and the least that it may come to with every ladder on the rung that takes least: as long as
    nobody knows what a watt does, it may do much."""

    zone: str
    now_c: float
    soon_c: float
    later_c: float
    soon_per_w: float
    later_per_w: float
    coolest_c: float


class Scene(msgspec.Struct, kw_only=True):
    """What all ladders share at this moment. `inference_w` is of the active rungs, as their outlooks have it; it and
    the heat are filled in by `warm`."""

    now_s: float
    contention: float
    clock: float
    cpus: int
    base_w: float | None
    available_bytes: float | None
    exhausted_s: float | None
    inference_w: float = 0.0
    heat: Heat | None = None


class Outlook(msgspec.Struct, gc=False):
    """Of one rung. `work_s` is None where its profile is not known. `watts` is what its inferences take at the present
    arrivals. `barred`: it may not be chosen at all; `held`: not climbed to yet."""

    rung: Rung
    index: int
    work_s: float | None
    sd_s: float
    load: float
    square: float
    watts: float | None
    barred: str
    held: str
    share: float = 1.0  # of what a climb may come to: less where it turned out to be close
    failing: float = 0.0  # by how much a limit is seen to break here, whatever is predicted
    tests: tuple[tuple[float, float, float], ...] = ()  # of the deadline: judgement.py keeps them
    # Filled in by `judge`, with what runs besides:
    missed: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    foreseen: Constraint | None = None  # what is predicted to break
    broken: Constraint | None = None  # that, or what is seen to
    excess: float = 0.0


def scene(view: View, state: State) -> Scene:
    machine = view.machine
    trend = None
    if state.memory is not None:
        reserve = max([v.limits.memory_available_bytes or 0.0 for v in view.ladders], default=0.0)
        trend = memory.exhaustion(state.memory, reserve)
    return Scene(
        now_s=view.now_s,
        contention=state.contention,
        clock=clock_share(machine),
        cpus=max(1, machine.cpus),
        base_w=state.base_w if machine.power_w is not None else None,
        available_bytes=machine.memory_available_bytes,
        exhausted_s=None if trend is None else trend.in_s,
    )


def outlooks(ladder: LadderView, own: LadderState, around: Scene) -> list[Outlook]:
    """In the order of the rungs."""
    rate, floor = own.arrivals_per_s or 0.0, ladder.limits.accuracy
    contention, clock, now_s = around.contention, around.clock, around.now_s
    least_spread = CONTENDED_SPREAD if contention >= CONTENDED else 0.0
    # Kingman: the wait grows with the mean of both variations, of the arrivals and of the work.
    evenness = min(1.0, max(EVENNESS * own.dispersion, LEAST_EVEN))
    slows = [own.slow.get(of) for of in keys(ladder.rungs)] if own.slow else ()
    # Between two others lies something, beside one nothing.
    seen = _seen_here(ladder.rungs, slows, around) if contention >= CONTENDED and len(own.slow) > 1 else ()
    rests, left, index, found = own.rests, own.left, -1, []
    for rung in ladder.rungs:
        index += 1
        barred, held, share = "", "", 1.0
        if not rung.usable or rung.leave_alone_s > 0.0 or (rests and rung.name in rests):
            barred = unavailable(rung, own, now_s)
        if floor is not None and not barred and rung.accuracy is not None and rung.accuracy < floor:
            barred = f"accuracy: {rung.accuracy:g} is below the floor {floor:g}"
        if left and rung.name in left:
            held, share = _held(own, rung, around)
        work_s = rung.work_s
        if work_s is None:
            found.append(Outlook(rung, index, None, 0.0, 0.0, 0.0, None, barred, held, share))
            continue
        slow = slows[index] if slows else None
        spread = guess = None
        if len(seen) > 1 and (slow is None or not estimator.is_known(slow, contention)):
            guess = estimator.between(work_s, seen)
            if guess is not None and slow is not None:
                least = estimator.with_less(slow, work_s, contention, now_s)
                if guess[0] + sqrt(guess[1]) < least:  # by more than the guess's own doubt: a cold cache is not enough
                    guess = None  # it suffers more than its neighbours, and will not suffer less now
        if guess is not None:
            factor, var = guess
        elif slow is None:
            factor, var = unseen(work_s, contention)
        else:
            factor, var = estimator.predict(slow, work_s, contention, now_s)
        usual = USUAL_SPREAD if rung.spread is None else rung.spread
        if slow is not None:
            spread = estimator.spread(slow, contention, usual, now_s)
        if spread is None:
            spread = usual if usual > least_spread else least_spread
        mean_s = work_s * factor / clock
        load = rate * mean_s
        mean_s2 = mean_s * mean_s
        var_s2 = mean_s2 * spread * spread + work_s * work_s * var
        joules = rung.joules
        watts = None if joules is None else joules * (rate if load < 1.0 else 1.0 / mean_s)
        square = rate * (mean_s2 * evenness + var_s2)
        found.append(Outlook(rung, index, mean_s, sqrt(var_s2), load, square, watts, barred, held, share))
    return found


def _seen_here(
    rungs: Sequence[Rung], slows: Sequence[estimator.SlowDown | None], around: Scene
) -> Sequence[tuple[float, float]]:
    """Work and factor of the rungs that ran at about this contention."""
    found = []
    for rung, slow in zip(rungs, slows, strict=True):
        if slow is not None and rung.work_s is not None and estimator.is_known(slow, around.contention):
            found.append((rung.work_s, estimator.predict(slow, rung.work_s, around.contention, around.now_s)[0]))
    return found


def warm(
    around: Scene, view: View, state: State, active: Sequence[Outlook], outlooks_of: Sequence[Sequence[Outlook]],
    horizon_s: float,
) -> None:  # fmt: skip
    """Fills in the heat. The power is what the active rungs are expected to take: a meter, and a model that smooths it,
    are late after a switch."""
    around.inference_w = sum(o.watts or 0.0 for o in active)
    power_w = None if around.base_w is None else around.base_w + around.inference_w
    hottest: tuple[float, str, thermal.Zone] | None = None
    for name in view.machine.zones:
        zone = state.zones.get(name)
        if zone is not None:
            later_c = thermal.predict_c(zone, power_w, LONG_RUN * horizon_s)
            if hottest is None or later_c > hottest[0]:
                hottest = (later_c, name, zone)
    if hottest is None:
        return
    later_c, name, zone = hottest
    later_per_w = thermal.rise_c(zone, 1.0, LONG_RUN * horizon_s)
    least_w = 0.0
    for one in outlooks_of:
        takes = [w for o in one if (w := o.watts) is not None and not o.barred]
        if takes:
            least_w += min(takes)
    around.heat = Heat(
        name,
        thermal.predict_c(zone, power_w, 0.0),
        thermal.predict_c(zone, power_w, horizon_s),
        later_c,
        thermal.rise_c(zone, 1.0, horizon_s),
        later_per_w,
        later_c + later_per_w * (1.0 + 2.0 * thermal.doubt(zone)) * (least_w - around.inference_w),
    )


def unavailable(rung: Rung, own: LadderState, now_s: float) -> str:
    """Why the rung cannot be had now, whoever asks for it; empty when it can."""
    if not rung.usable:
        return rung.error or "it cannot run on this machine"
    if rung.leave_alone_s > 0:
        why = rung.error or "no reason given"
        return f"it failed ({why}); the engine asks to leave it alone for another {duration(rung.leave_alone_s)}"
    rest = own.rests.get(rung.name)
    if rest is not None and rest.until_s > now_s:
        wait = duration(rest.until_s - now_s)
        return f"it failed ({rest.error or 'no reason given'}); tried again in {wait} at the earliest"
    return ""


def _held(own: LadderState, rung: Rung, around: Scene) -> tuple[str, float]:
    """Why the rung is not climbed to yet, "" when it may be; and what share of the limit it may then come to."""
    left, now_s = own.left[rung.name], around.now_s
    ready_s = left.at_s + left.wait_s
    if now_s >= ready_s or left.eased(around.contention, own.arrivals_per_s or 0.0):
        return "", 1.0
    if left.narrow and rung.work_s is not None:  # of what nobody measured, nothing is predicted
        return "", WELL_WITHIN ** (1 + min(left.failures, 10))
    times = f", taken back {left.failures} times in a row" if left.failures else ""
    text = (
        f"{left.cause}: left {duration(now_s - left.at_s)} ago{times}; considered again in {duration(ready_s - now_s)}"
    )
    return text, 1.0
