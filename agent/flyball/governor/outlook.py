"""What is to be expected of every rung: work, load, power, heat, memory; and what speaks against it.

View + State -> Scene -> Outlook of every rung -> judge(outlook, what else runs) -> fits, or the limit that breaks

A rung is predicted from its own slow-down at the present contention, never from another rung's. Texts are made only
when somebody reads them: a decision has two dozen outlooks, and most periods nobody does. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.governor import estimator, memory, thermal
from flyball.governor.constraints import duration, mebibytes, milliseconds
from flyball.governor.perception import clock_share, key
from flyball.governor.queueing import latency_s, missed
from flyball.governor.state import LadderState, State
from flyball.governor.values import Constraint, LadderView, Limits, Rung, View
from flyball.ports import Candidate

CLIMBING_W = 0.97  # of a power cap: what a climb may come to
LONG_RUN = 5.0  # horizons: by then a climb must still be cool enough
WELL_WITHIN = 0.4  # of the late answers that are allowed, after it was close; once more every time that it is again
CLIMBING_C = 1.0  # cooler than it may be when staying
RELIEF_C = 1.0  # less is not worth a step down
SHORT_S = 300.0  # with memory that lasts no longer, nothing is opened that takes more of it
EVENNESS, LEAST_EVEN = 1.3, 0.1  # times the dispersion that was counted, since counts scatter; and the least
CONTENDED = 0.5  # tasks per processor: below it a rung is near its profile
CONTENDED_SPREAD = 0.3  # where nobody measured it: work that is interrupted now and then
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
    # Filled in by `judge`, with what runs besides:
    missed: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    foreseen: Constraint | None = None  # what is predicted to break
    broken: Constraint | None = None  # that, or what is seen to
    excess: float = 0.0


def scene(view: View, state: State) -> Scene:
    machine = view.machine
    reserve = max((v.limits.memory_available_bytes or 0.0 for v in view.ladders), default=0.0)
    trend = memory.exhaustion(state.memory, reserve) if state.memory is not None else None
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
    rate = own.arrivals_per_s or 0.0
    found = []
    floor = ladder.limits.accuracy
    seen = _seen_here(ladder, own, around)
    # Kingman: the wait grows with the mean of both variations, of the arrivals and of the work.
    evenness = min(1.0, max(EVENNESS * own.dispersion, LEAST_EVEN))
    for index, rung in enumerate(ladder.rungs):
        barred = ""
        if not rung.usable or rung.leave_alone_s > 0.0 or rung.name in own.rests:
            barred = unavailable(rung, own, around.now_s)
        if not barred and floor is not None and rung.accuracy is not None and rung.accuracy < floor:
            barred = f"accuracy: {rung.accuracy:g} is below the floor {floor:g}"
        held, share = _held(own, rung, around) if rung.name in own.left else ("", 1.0)
        work_s = rung.work_s
        if work_s is None:
            found.append(Outlook(rung, index, None, 0.0, 0.0, 0.0, None, barred, held, share))
            continue
        slow = own.slow.get(key(rung))
        guess = None
        if len(seen) > 1 and not estimator.is_known(slow, around.contention):
            guess = estimator.between(work_s, seen)
        factor, var = guess or estimator.predict(slow, work_s, around.contention, around.now_s)
        mean_s = work_s * factor / around.clock
        spread = estimator.spread(slow, around.contention)
        if spread is None:
            spread = rung.spread if rung.spread is not None else USUAL_SPREAD
            if around.contention >= CONTENDED:
                spread = max(spread, CONTENDED_SPREAD)
        sd_s = math.sqrt(mean_s * mean_s * spread * spread + work_s * work_s * var)
        watts = None if rung.joules is None else rung.joules * min(rate, 1.0 / mean_s)
        square = rate * (mean_s * mean_s * evenness + sd_s * sd_s)
        found.append(Outlook(rung, index, mean_s, sd_s, rate * mean_s, square, watts, barred, held, share))
    return found


def _seen_here(ladder: LadderView, own: LadderState, around: Scene) -> list[tuple[float, float]]:
    """Work and factor of the rungs that ran at about this contention, while there is some."""
    if around.contention < CONTENDED:
        return []
    found = []
    for rung in ladder.rungs:
        slow = own.slow.get(key(rung))
        if rung.work_s is not None and estimator.is_known(slow, around.contention):
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
    least_w = sum(
        min((o.watts for o in one if o.watts is not None and not o.barred), default=0.0) for one in outlooks_of
    )
    around.heat = Heat(
        name,
        thermal.predict_c(zone, power_w, 0.0),
        thermal.predict_c(zone, power_w, horizon_s),
        later_c,
        thermal.rise_c(zone, 1.0, horizon_s),
        later_per_w,
        later_c + later_per_w * (1.0 + 2.0 * thermal.doubt(zone)) * (least_w - around.inference_w),
    )


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """A ladder's limits as `judge` compares with them; a pair holds for staying and for climbing."""

    slack_s: float | None  # for wait and work
    allowed: tuple[float, float]  # share of the answers that may be late
    tight_s: float  # slack of a climb, of which twice as many may be late
    later_c: tuple[float, float] | None  # what a zone may come to in the long run
    soon_c: float  # and within the horizon
    cap_w: tuple[float, float] | None
    cap: Constraint
    reserve: float | None  # bytes that have to be left beside a rung that is opened


NO_BOUNDS = Bounds(None, (1.0, 1.0), 0.0, None, math.inf, None, "power", None)


def bounds(limits: Limits, overhead_s: float, rules: Rules, around: Scene) -> Bounds:
    late, margin_c = 1.0 - limits.quantile, rules.temperature_margin_c
    slack_s = None if limits.deadline_s is None else limits.deadline_s - overhead_s
    later_c, soon_c = None, math.inf
    if limits.temperature_c is not None and around.heat is not None:
        # Where no rung can keep the margin, another degree is not worth what it costs, short of the limit.
        soon_c = limits.temperature_c - min(RELIEF_C, margin_c)
        stay_c = max(limits.temperature_c - margin_c, min(soon_c, around.heat.coolest_c + RELIEF_C))
        later_c = (stay_c, stay_c - CLIMBING_C)
    cap, cap_w = "power", limits.power_w
    if limits.energy_j_per_h is not None:
        hourly_w = limits.energy_j_per_h / 3600.0
        if cap_w is None or hourly_w < cap_w:
            cap, cap_w = "energy", hourly_w
    reserve = limits.memory_available_bytes
    return Bounds(
        slack_s,
        (late, late * rules.headroom),
        0.0 if slack_s is None else slack_s * rules.headroom,
        later_c,
        soon_c,
        None if cap_w is None or around.base_w is None else (cap_w, cap_w * CLIMBING_W),
        cap,  # type: ignore[arg-type]  # one of the two above
        None if reserve is None else reserve / rules.headroom,
    )


def judge(one: Outlook, kept: Bounds, around: Scene, load: float, square: float, other_w: float, climbs: bool) -> bool:
    """Whether the rung keeps every limit, with other work of this load on its accelerator and inferences of `other_w`
    watts elsewhere. A climb is judged with headroom, and by the heat in the long run."""
    broken: Constraint | None = None
    excess = 0.0
    if kept.slack_s is not None and one.work_s is not None:
        load, square = load + one.load, square + one.square
        share = one.missed = missed(kept.slack_s, one.work_s, one.sd_s, load, square)
        allowed = kept.allowed[climbs] * (one.share if climbs else 1.0)
        if share > allowed:
            broken, excess = "latency", share - allowed
        elif climbs and missed(kept.tight_s, one.work_s, one.sd_s, load, square) > 2.0 * allowed:
            broken, excess = "latency", allowed
    watts = one.watts
    if watts is not None and around.base_w is not None:
        one.power_w = power_w = around.base_w + other_w + watts
        if kept.cap_w is not None and power_w > kept.cap_w[climbs]:
            broken = kept.cap
            excess += 1.0 + power_w / max(kept.cap_w[climbs], 1e-3)
    heat = around.heat
    if kept.later_c is not None and heat is not None:
        delta_w = 0.0 if watts is None else other_w + watts - around.inference_w
        one.temperature_c = temp_c = heat.later_c + heat.later_per_w * delta_w
        if temp_c > kept.later_c[climbs] or heat.soon_c + heat.soon_per_w * delta_w > kept.soon_c:
            broken = "temperature"
            excess += 10.0 + temp_c / 100.0
    if climbs and not one.rung.resident and kept.reserve is not None and _lacks_memory(one.rung, kept.reserve, around):
        broken = "memory"
        excess += 10.0
    one.foreseen = broken
    if one.failing > 0.0:
        broken, excess = broken or "latency", max(excess, one.failing)
    one.broken, one.excess = broken, excess
    return broken is None


def _lacks_memory(rung: Rung, reserve: float, around: Scene) -> bool:
    """Whether opening it would take what has to be left, now or, with memory running out, soon."""
    if around.exhausted_s is not None and around.exhausted_s < SHORT_S:
        return True
    return around.available_bytes is not None and around.available_bytes - (rung.rss_bytes or 0.0) < reserve


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


def against(one: Outlook, limits: Limits, around: Scene) -> str:
    """What rules the rung out, in words that begin with the constraint; empty when nothing does."""
    if one.barred or one.foreseen is None:
        return one.barred or one.held
    if one.foreseen == "latency" and limits.deadline_s is not None:
        late = f"{one.missed:.0%} predicted later than {milliseconds(limits.deadline_s)}"
        return f"latency: {late}, {1 - limits.quantile:.0%} allowed"
    if one.foreseen == "temperature" and limits.temperature_c is not None:
        where = f" ({around.heat.zone})" if around.heat is not None else ""
        return f"temperature: {one.temperature_c:.1f} °C predicted{where}, limit {limits.temperature_c:g} °C"
    if one.foreseen == "memory":
        if around.exhausted_s is not None and around.exhausted_s < SHORT_S:
            return f"memory: it is running out, in {duration(around.exhausted_s)}"
        needed, rest = one.rung.rss_bytes or 0.0, around.available_bytes or 0.0
        return f"memory: needs {mebibytes(needed)} of {mebibytes(rest)} that are available"
    cap_w = limits.power_w if one.foreseen == "power" else (limits.energy_j_per_h or 0.0) / 3600.0
    return f"{one.foreseen}: {one.power_w:.2f} W predicted, limit {cap_w:.2f} W"


def candidate(one: Outlook, limits: Limits, around: Scene) -> Candidate:
    quantile_s = None
    if one.work_s is not None:
        quantile_s = latency_s(limits.quantile, one.work_s, one.sd_s, one.load, one.square)
    return Candidate(
        rung=one.rung.name,
        accuracy=one.rung.accuracy,
        predicted_p95_s=quantile_s,
        predicted_late=one.missed,
        predicted_power_w=one.power_w,
        predicted_temperature_c=one.temperature_c,
        ruled_out_by=against(one, limits, around),
    )


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
