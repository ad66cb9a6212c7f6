"""Which limits a rung would keep, and what speaks against it.

Outlook + Limits + what else runs -> judge -> fits, or the limit that breaks -> against, in words -> Candidate

Texts are made only when somebody reads them: a decision has two dozen outlooks, and most periods nobody does. Pure.
"""

from __future__ import annotations

import math

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.constraints import duration, mebibytes, milliseconds
from flyball.governor.outlook import Outlook, Scene
from flyball.governor.queueing import by_work, latency_s, waiting
from flyball.governor.values import Constraint, Limits
from flyball.ports import Candidate

CLIMBING_W = 0.97  # of a power cap: what a climb may come to
CLIMBING_C = 1.0  # cooler than it may be when staying
RELIEF_C = 1.0  # less is not worth a step down
SHORT_S = 300.0  # with memory that lasts no longer, nothing is opened that takes more of it
NOTHING = -1.0  # not even what takes no memory


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """A ladder's limits as `judge` compares with them; a pair holds for staying and for climbing."""

    slack_s: float | None  # for wait and work
    allowed: tuple[float, float]  # share of the answers that may be late
    tight_s: float  # slack of a climb, of which twice as many may be late
    later_c: tuple[float, float] | None  # what a zone may come to in the long run
    soon_c: float  # and within the horizon
    cap_w: tuple[float, float] | None
    cap: Constraint
    room_bytes: float  # for a rung that is opened; nothing, with memory that is running out


NO_BOUNDS = Bounds(None, (1.0, 1.0), 0.0, None, math.inf, None, "power", math.inf)


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
    return Bounds(
        slack_s,
        (late, late * rules.headroom),
        0.0 if slack_s is None else slack_s * rules.headroom,
        later_c,
        soon_c,
        None if cap_w is None or around.base_w is None else (cap_w, cap_w * CLIMBING_W),
        cap,  # type: ignore[arg-type]  # one of the two above
        _room_bytes(limits.memory_available_bytes, rules, around),
    )


def judge(one: Outlook, kept: Bounds, around: Scene, load: float, square: float, other_w: float, climbs: bool) -> bool:
    """Whether the rung keeps every limit, with other work of this load on its accelerator and inferences of `other_w`
    watts elsewhere. A climb is judged with headroom, and by the heat in the long run. Fills in what is predicted. For
    one outlook, `kept` and `climbs` have to be the same every time."""
    broken: Constraint | None = None
    excess = 0.0
    if kept.slack_s is not None and one.work_s is not None:
        tests = one.tests or _tests(one, kept, climbs)
        load, square = load + one.load, square + one.square
        alone, slack_s, allowed = tests[0]
        share = one.missed = waiting(alone, slack_s, one.sd_s, load, square)
        if share > allowed:
            broken, excess = "latency", share - allowed
        elif climbs:
            alone, slack_s, twice = tests[1]
            if alone > twice or waiting(alone, slack_s, one.sd_s, load, square) > twice:
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
    if climbs and (one.rung.rss_bytes or 0.0) > kept.room_bytes and not one.rung.resident:
        broken = "memory"
        excess += 10.0
    one.foreseen = broken
    if one.failing > 0.0:
        broken, excess = broken or "latency", max(excess, one.failing)
    one.broken, one.excess = broken, excess
    return broken is None


def breaks(
    one: Outlook, kept: Bounds, around: Scene, load: float, square: float, other_w: float, climbs: bool
) -> Constraint | None:
    """What `judge` would say is broken, and nothing filled in: the dearest question comes last."""
    if climbs and (one.rung.rss_bytes or 0.0) > kept.room_bytes and not one.rung.resident:
        return "memory"
    watts = one.watts
    if kept.later_c is not None and (heat := around.heat) is not None:
        delta_w = 0.0 if watts is None else other_w + watts - around.inference_w
        too_hot = heat.later_c + heat.later_per_w * delta_w > kept.later_c[climbs]
        if too_hot or heat.soon_c + heat.soon_per_w * delta_w > kept.soon_c:
            return "temperature"
    if kept.cap_w is not None and watts is not None and (base_w := around.base_w) is not None:  # noqa: SIM102
        if base_w + other_w + watts > kept.cap_w[climbs]:
            return kept.cap
    if one.failing > 0.0:
        return "latency"
    tests = one.tests or _tests(one, kept, climbs)
    load += one.load
    square += one.square
    for alone, slack_s, allowed in tests:
        if alone > allowed or waiting(alone, slack_s, one.sd_s, load, square) > allowed:
            return "latency"
    return None


def _tests(one: Outlook, kept: Bounds, climbs: bool) -> tuple[tuple[float, float, float], ...]:
    """(late without any wait, what its work leaves of the deadline, share that is allowed), each to be passed. They are
    kept, since what else runs is all that changes in a search."""
    work_s = one.work_s
    if kept.slack_s is None or work_s is None:
        return ()
    allowed = kept.allowed[1] * one.share if climbs else kept.allowed[0]
    first = by_work(kept.slack_s, work_s, one.sd_s), kept.slack_s - work_s, allowed
    one.tests = (first,)
    if climbs and first[0] <= allowed:
        one.tests = first, (by_work(kept.tight_s, work_s, one.sd_s), kept.tight_s - work_s, 2.0 * allowed)
    return one.tests


def _room_bytes(reserve: float | None, rules: Rules, around: Scene) -> float:
    """What opening a rung may take, so that what has to be left is left, now and, with memory running out, soon."""
    if reserve is None:
        return math.inf
    if around.exhausted_s is not None and around.exhausted_s < SHORT_S:
        return NOTHING
    return math.inf if around.available_bytes is None else around.available_bytes - reserve / rules.headroom


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
