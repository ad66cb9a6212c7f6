"""The law: predict every rung, choose for all ladders together, and say why.

decide(View, Rules, State) -> perceive -> outlooks -> joint.settle -> hysteresis -> (Decisions, State)

Pure: no clock, no log, no I/O; the same values give the same decisions. The state that comes back has taken in what was
seen; that a switch was made or failed is for the caller to add (State.moved, State.refused).

Of the rungs that are predicted to keep every limit, the most accurate is wanted (or the one that takes least energy, or
the quickest: `mode`). A pin stands above that, and the limits of temperature and memory above a pin, but for force.
Never below the accuracy floor, never up on data that is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from flyball.config import Governor as Rules
from flyball.governor import hysteresis
from flyball.governor.constraints import Check, duration
from flyball.governor.hysteresis import Verdict
from flyball.governor.joint import Party, settle, worth
from flyball.governor.outlook import (
    Outlook,
    Scene,
    against,
    bounds,
    candidate,
    judge,
    outlooks,
    scene,
    unavailable,
    warm,
)
from flyball.governor.perception import perceive, perceive_ladder
from flyball.governor.rules import Rule
from flyball.governor.sources import HOLD_S, Loss, losses
from flyball.governor.state import LadderState, State
from flyball.governor.thresholds import apply
from flyball.governor.values import HARD, LadderView, View
from flyball.ports import Decision, Pin

NO_RULES: Mapping[str, Sequence[Rule]] = {}
GRACE_S, GRACE_C = 30.0, 1.0  # after a step down for heat, which shows only then
JUST_C = 0.5  # over what a zone may come to
SENSOR = "sensor"  # binds where a limit cannot be told because its reading is lost


def decide(
    view: View, rules: Rules, state: State, thresholds: Mapping[str, Sequence[Rule]] = NO_RULES
) -> tuple[tuple[Decision, ...], State]:
    """What to do with every ladder now, in the order of the view. `thresholds` are the configuration's rules for each.
    `acted` and `error` are left for the caller."""
    before = state.ladders
    state = perceive(view, rules, state)
    looked: list[tuple[LadderState, tuple[Check, ...]]] = []
    for ladder in view.ladders:
        looked.append(perceive_ladder(ladder, view, rules, state, before.get(ladder.name) or LadderState()))
    state = msgspec.structs.replace(
        state, ladders={v.name: own for v, (own, _) in zip(view.ladders, looked, strict=True)}
    )
    decisions, after, parties, around = choose(view, rules, state, [checks for _, checks in looked], thresholds)
    decisions = [_explained(decision, party, around) for decision, party in zip(decisions, parties, strict=True)]
    others = {name: own for name, own in before.items() if name not in after}  # whose rung is being changed
    return tuple(decisions), msgspec.structs.replace(state, ladders={**others, **after})


def choose(
    view: View,
    rules: Rules,
    state: State,
    checks: Sequence[Sequence[Check]],
    thresholds: Mapping[str, Sequence[Rule]] = NO_RULES,
) -> tuple[list[Decision], dict[str, LadderState], list[Party | None], Scene]:
    """The choice itself, after the observation was taken in; how every rung looked comes with it, for `_explained`."""
    around = scene(view, state)
    parties: list[Party | None] = []
    for ladder in view.ladders:
        own = state.ladders[ladder.name]
        active = next((i for i, r in enumerate(ladder.rungs) if r.name == ladder.active), None)
        parties.append(None if active is None else Party(ladder, own, outlooks(ladder, own, around), active))
    here = [party for party in parties if party is not None]
    warm(around, view, state, [p.outlooks[p.active] for p in here], [p.outlooks for p in here], rules.horizon_s)
    for party, its in zip(parties, checks, strict=True):
        if party is not None:
            party.kept = bounds(party.ladder.limits, party.own.overhead_s, rules, around)
            _restrain(party, its, rules, around)
    settle(here, around, rules.mode)
    decisions, after = [], {}
    for ladder, found, its in zip(view.ladders, parties, checks, strict=True):
        if found is None:
            why = ladder.error or (
                "it is being loaded" if ladder.active is None else f"{ladder.active!r} is no rung of it"
            )
            verdict, own = Verdict(reason=f"no rung is active: {why}"), state.ladders[ladder.name]
        else:
            verdict, own = _verdict(found, view, rules, state, its, around)
        notice = ""
        if found is not None and thresholds.get(ladder.name) and own.pin is None:
            lost = losses(state.sensed, view.machine, frozenset(c.constraint for c in its))
            forbids = partial(_against_order, found, rules, its, around, lost)
            verdict, own, notice = apply(found, own, verdict, thresholds[ladder.name], view, rules, forbids)
        after[ladder.name] = own
        decisions.append(_decision(view, ladder, verdict, state, notice))
    return decisions, after, parties, around


def _restrain(party: Party, checks: Sequence[Check], rules: Rules, around: Scene) -> None:
    """What no prediction can undo: a pin, and a limit that is seen to break whatever was thought."""
    own, pin = party.own, party.own.pin
    hard = [c for c in checks if c.broken and c.constraint in HARD]
    if pin is None and rules.mode == "pinned" and not hysteresis.ripe(own, hard, rules):
        party.fixed = party.active
        return
    if pin is not None and not _overruled(pin, party, hard):
        index = next((i for i, o in enumerate(party.outlooks) if o.rung.name == pin.rung), None)
        party.fixed = party.active if index is None else index
        return
    breaking = hysteresis.ripe(own, checks, rules)
    if breaking and any(not _easing(c, around, party) for c in breaking):
        here = party.outlooks[party.active]
        for one in party.outlooks:
            if one.index != here.index and not _eases(one, here, breaking):
                one.barred = one.barred or f"{breaking[0].constraint}: would not ease what is broken now"
        here.held = f"{breaking[0].constraint}: it is broken now"
        late = party.ladder.seen.window_late or 0.0
        here.failing = max(late if c.constraint == "latency" else 10.0 for c in breaking)
    elif hysteresis.proved(party.ladder, own):
        party.outlooks[party.active].failing = own.late or 0.0


def _easing(c: Check, around: Scene, party: Party) -> bool:
    """Whether a margin of heat that is broken may be left to itself, as heat flows slowly."""
    return c.constraint == "temperature" and c.bearable and _cools(around, party)


def _cools(around: Scene, party: Party) -> bool:
    """After a step down for heat: while it has got cooler since, and the limit itself is not near. Before: while it is
    only just too hot and expected to come back."""
    heat, kept, entered_c = around.heat, party.kept, party.own.entered_c
    if heat is None or kept.later_c is None or heat.soon_c > kept.soon_c:
        return False
    if entered_c is not None:
        fresh = around.now_s - party.own.since_s < GRACE_S
        return heat.now_c < entered_c + (GRACE_C if fresh else 0.0)
    return heat.later_c <= kept.later_c[0] and heat.now_c < kept.later_c[0] + JUST_C


def _eases(one: Outlook, here: Outlook, broken: Sequence[Check]) -> bool:
    """Whether the rung improves on one of the limits that are broken now. What is not known is given a try."""
    if one.index < here.index and one.work_s is None:
        return False
    quicker = one.work_s is None or here.work_s is None or one.work_s < here.work_s
    mine, others = one.rung.rss_bytes, here.rung.rss_bytes
    smaller = mine is None or others is None or mine < others
    cooler = quicker if one.watts is None or here.watts is None else one.watts < here.watts
    helps = {"latency": quicker, "memory": smaller, "temperature": cooler, "power": cooler, "energy": cooler}
    return any(helps[c.constraint] for c in broken)


def _verdict(
    party: Party, view: View, rules: Rules, state: State, checks: Sequence[Check], around: Scene
) -> tuple[Verdict, LadderState]:
    ladder, own, now_s = party.ladder, party.own, view.now_s
    here, target = party.outlooks[party.active], party.chosen()
    limited = frozenset(c.constraint for c in checks)
    lost = losses(state.sensed, view.machine, limited)
    still = msgspec.structs.replace(own, streak=0, streak_for="") if own.streak else own
    pin = own.pin
    hard = [c for c in checks if c.broken and c.constraint in HARD]
    if pin is not None and not _overruled(pin, party, hard):
        verdict = _pinned(party, view, rules, state, pin, checks, around, lost)
        if not pin.force and lost:
            verdict = _bereft(party, view, rules, lost, verdict)
        return verdict, still
    breaking = [c for c in hysteresis.ripe(own, checks, rules) if not _easing(c, around, party)]
    broken = [c for c in checks if c.broken]
    if breaking:
        why = "; ".join(hysteresis.counted(c, own, rules, now_s) for c in breaking)
        foreseen = here.foreseen is not None
        verdict = hysteresis.down(
            ladder, own, here, target, why, breaking[0].constraint, rules, now_s, unforeseen=not foreseen
        )
        own = still
    elif here.barred:
        verdict, own = _off_floor(party, rules, now_s, here, target), still
    elif hysteresis.proved(ladder, own) and not _better(target, here, rules) and target.index != here.index:
        why = f"{own.late:.1%} of the last {own.late_of} answers were late"
        verdict, own = hysteresis.down(ladder, own, here, target, why, "latency", rules, now_s, unforeseen=True), still
    elif here.broken is not None and target.index != here.index and not _better(target, here, rules):
        why = against(here, ladder.limits, around)
        certain = hysteresis.certain(here, ladder)
        if not certain and hysteresis.disproved(here, ladder, own):
            verdict, own = _content(party, around, rules), still
        elif here.foreseen == "temperature" and own.entered_c is not None and _cools(around, party):
            verdict, own = Verdict(reason=f"{why}; but falling since the last step down", binding="temperature"), still
        elif certain or (own.streak_for == "-" and own.streak + 1 >= hysteresis.DOUBTED):
            narrow = here.broken == "latency" and (here.missed or 0.0) < hysteresis.CLOSE
            verdict = hysteresis.down(ladder, own, here, target, why, here.broken, rules, now_s, narrow=narrow)
            own = still
        else:
            streak = own.streak + 1 if own.streak_for == "-" else 1
            own = msgspec.structs.replace(own, streak=streak, streak_for="-")
            verdict = Verdict(reason=f"{why}; {hysteresis.DOUBTED} such periods make it step down", binding=here.broken)
    elif broken:
        text = "; ".join(hysteresis.counted(c, own, rules, now_s) for c in broken)
        coming = f"{rules.down_windows} make it step down"
        if all(_easing(c, around, party) for c in broken):
            coming = "it gets cooler by itself"
        verdict, own = Verdict(reason=f"{text}; {coming}", binding=broken[0].constraint), still
    elif lost:
        verdict, own = Verdict(reason="the limits hold that can be told", binding=SENSOR), still
    elif target.index == here.index:
        verdict, own = _content(party, around, rules), still
    else:
        verdict, own = hysteresis.climb(ladder, own, here, target, rules, rules.mode, now_s)
    if pin is not None:
        above = f"but a limit of {hard[0].constraint} stands above it"
        verdict = msgspec.structs.replace(verdict, reason=f"{_held_at(pin, now_s)}, {above}: {verdict.reason}")
    if lost:
        verdict = _bereft(party, view, rules, lost, verdict)
    return verdict, own


def _overruled(pin: Pin, party: Party, hard: Sequence[Check]) -> bool:
    """Whether the limits of `hard`, broken now, stand above the pin: not when it asks for a weaker rung, which eases
    them."""
    index = next((o.index for o in party.outlooks if o.rung.name == pin.rung), party.active)
    return bool(hard) and not pin.force and index <= party.active


def _better(one: Outlook, other: Outlook, rules: Rules) -> bool:
    return (worth(one, rules.mode), -one.index) > (worth(other, rules.mode), -other.index)


def _content(party: Party, around: Scene, rules: Rules) -> Verdict:
    """Nothing better can be had; what stands in the way of the next better one binds."""
    here = party.outlooks[party.active]
    if rules.mode == "pinned":
        return Verdict(reason=f"held at {here.rung.name}: the mode is pinned", binding="pin")
    better = [o for o in party.outlooks if worth(o, rules.mode) > worth(here, rules.mode)]
    if not better:
        return Verdict(reason="the limits hold at the best rung")
    nearest = min(better, key=lambda o: worth(o, rules.mode))
    why = against(nearest, party.ladder.limits, around)
    if not why:
        why = "the other ladders need what it would take"
        if nearest.missed:
            why = f"latency: {nearest.missed:.1%} of its answers would be late, which costs more than it is better"
    return Verdict(reason=f"{nearest.rung.name} is next: {why}", binding=why.partition(":")[0])


def _held_at(pin: Pin, now_s: float) -> str:
    until = " until released" if pin.until_s is None else f" for another {duration(pin.until_s - now_s)}"
    return f"held at {pin.rung} by a pin{until}"


def _pinned(
    party: Party, view: View, rules: Rules, state: State, pin: Pin, checks: Sequence[Check], around: Scene,
    lost: Sequence[Loss],
) -> Verdict:  # fmt: skip
    held, ladder = _held_at(pin, view.now_s), party.ladder
    if ladder.active == pin.rung:
        over = "; ".join(c.text for c in checks if c.broken)
        return Verdict(reason=f"{held}, although {over}" if over else held, binding="pin")
    wanted = next((o for o in party.outlooks if o.rung.name == pin.rung), None)
    if wanted is None:
        return Verdict(reason=f"{held}, but the ladder has no such rung", binding="pin")
    unfit = unavailable(wanted.rung, party.own, view.now_s)
    if unfit:
        return Verdict(reason=f"{held}, which cannot be had: {unfit}", binding="pin")
    standing = "" if pin.force else _against_order(party, rules, checks, around, lost, wanted)
    if standing:
        return Verdict(reason=f"{held}, once a limit allows it: {standing}", binding=standing.partition(":")[0])
    return Verdict(action="pin", target=pin.rung, reason=f"{held}; {ladder.active} was active", binding="pin")


def against_order(view: View, rules: Rules, state: State, name: str, rung: str) -> str:
    """Which limit of temperature or memory forbids to take that rung of the ladder now, whoever asks; empty when none
    does."""
    ladder = next((v for v in view.ladders if v.name == name), None)
    if ladder is None:
        return ""
    before = state.ladders.get(name) or LadderState()
    state = perceive(view, rules, state)
    own, checks = perceive_ladder(ladder, view, rules, state, before)
    state = state.having(name, own)
    around = scene(view, state)
    active = next((i for i, r in enumerate(ladder.rungs) if r.name == ladder.active), None)
    found = outlooks(ladder, own, around)
    wanted = next((o for o in found if o.rung.name == rung), None)
    if active is None or wanted is None or wanted.index == active:
        return ""
    warm(around, view, state, [found[active]], [found], rules.horizon_s)
    lost = losses(state.sensed, view.machine, frozenset(c.constraint for c in checks))
    return _against_order(Party(ladder, own, found, active), rules, checks, around, lost, wanted)


def _against_order(
    party: Party, rules: Rules, checks: Sequence[Check], around: Scene, lost: Sequence[Loss], wanted: Outlook
) -> str:
    """Which limit of temperature or memory forbids the change to a stronger rung that somebody asks for; the text
    begins with its name."""
    if wanted.index >= party.active:
        return ""
    broken = next((f"{c.constraint}: {c.text}" for c in checks if c.broken and c.constraint in HARD), "")
    if broken:
        return broken
    gone = next((f"{loss.constraint}: {loss.text()}" for loss in lost if loss.constraint in HARD), "")
    if gone:
        return gone
    left = party.own.left.get(wanted.rung.name)
    if left is not None and left.cause in HARD and wanted.held:
        return wanted.held
    judge(wanted, bounds(party.ladder.limits, 0.0, rules, around), around, 0.0, 0.0, 0.0, climbs=True)
    return against(wanted, party.ladder.limits, around) if wanted.broken in HARD else ""


def _off_floor(party: Party, rules: Rules, now_s: float, here: Outlook, target: Outlook) -> Verdict:
    """The active rung is one that the governor may not choose (it was started with, or the engine fell back to it)."""
    if target.index == here.index or target.barred:
        return Verdict(reason=f"{here.rung.name}: {here.barred}; no other rung can be had", binding="accuracy")
    if now_s - party.own.since_s < rules.dwell_s:
        reason = f"{here.rung.name}: {here.barred}; {hysteresis.dwelling(party.own, rules, now_s)}"
        return Verdict(reason=reason, binding="accuracy")
    reason = f"{here.rung.name}: {here.barred}; {hysteresis.expected(target, party.ladder)}"
    action = "up" if target.index < here.index else "down"
    return Verdict(action=action, target=target.rung.name, reason=reason, binding="accuracy")  # type: ignore[arg-type]


def _bereft(party: Party, view: View, rules: Rules, lost: Sequence[Loss], verdict: Verdict) -> Verdict:
    """What a limit whose reading is lost still asks for: no climb, and after a while the last rung on which it was
    proven to hold."""
    text = " and ".join(loss.text() for loss in lost)
    now_s, names = view.now_s, [o.rung.name for o in party.outlooks]
    retreats = [(HOLD_S - (now_s - loss.since_s), *_retreat(party, loss, names)) for loss in lost]
    wanted = [retreat for retreat in retreats if retreat[1]]
    due = [retreat for retreat in wanted if retreat[0] <= 0]
    # The weakest of those that are due, else the one that is due first.
    wait_s, target, why = (
        max(due, key=lambda retreat: names.index(retreat[1])) if due else min(wanted, default=(math.inf, "", ""))
    )
    if verdict.action != "stay" and not (due and names.index(target) > names.index(verdict.target)):
        return msgspec.structs.replace(verdict, reason=f"{verdict.reason}; besides, {text}")
    if not wanted:
        return msgspec.structs.replace(verdict, reason=f"{verdict.reason}; {text}: no climb until it is back")
    if wait_s > 0:
        reason = f"{verdict.reason}; {text}: no climb until it is back, and in {duration(wait_s)} down to {why}"
        return msgspec.structs.replace(verdict, reason=reason)
    if now_s - party.own.since_s < rules.dwell_s:
        reason = f"{text}: down to {why}; {hysteresis.dwelling(party.own, rules, now_s)}"
        return Verdict(reason=reason, binding=SENSOR)
    return Verdict(
        action="down", target=target, reason=f"{text} for {duration(HOLD_S - wait_s)}: down to {why}", binding=SENSOR
    )


def _retreat(party: Party, loss: Loss, names: Sequence[str]) -> tuple[str, str]:
    """The rung to go to for a reading that is lost, and why that one; "" when it need not go anywhere."""
    allowed = [o.rung.name for o in party.outlooks[party.active + 1 :] if not o.barred]
    proven = party.own.proven.get(loss.constraint)
    if loss.constraint not in HARD or not allowed:
        return "", ""
    if proven is not None and proven in names and names.index(proven) <= party.active:
        return "", ""
    if proven is None or proven not in names:
        return allowed[-1], f"{allowed[-1]}, the weakest, as none was proven to keep the limit of {loss.constraint}"
    if proven in allowed:
        return proven, f"{proven}, the last one proven to keep the limit of {loss.constraint}"
    weaker = [name for name in allowed if names.index(name) > names.index(proven)]
    target = weaker[0] if weaker else allowed[-1]
    return target, f"{target}, as {proven}, the last one proven to keep the limit of {loss.constraint}, cannot be had"


def _decision(view: View, ladder: LadderView, verdict: Verdict, state: State, notice: str) -> Decision:
    source = ladder.active or ""
    return Decision(
        ladder=ladder.name,
        t_s=view.now_s,
        wall_s=view.wall_s,
        action=verdict.action,
        source=source,
        target=verdict.target or source,
        reason=verdict.reason,
        binding=verdict.binding,
        notice=notice,
        unforeseen=verdict.unforeseen,
        narrow=verdict.narrow,
        inputs=_inputs(view, ladder, state),
    )


def _explained(decision: Decision, party: Party | None, around: Scene) -> Decision:
    if party is None:
        return decision
    limits = party.ladder.limits
    return msgspec.structs.replace(decision, candidates=tuple(candidate(o, limits, around) for o in party.outlooks))


def _inputs(view: View, ladder: LadderView, state: State) -> dict[str, float]:
    """What is known; what is not is absent."""
    seen, machine, limits, own = ladder.seen, view.machine, ladder.limits, state.ladders[ladder.name]
    figures: dict[str, float | None] = {
        "answers": float(seen.answers),
        "arrivals_per_s": own.arrivals_per_s,
        "latency_p50_s": seen.p50_s,
        "latency_p95_s": seen.p95_s,
        "work_mean_s": seen.work_mean_s,
        "late": seen.window_late,
        "contention": state.contention if machine.contention is not None else None,
        "cpu_utilization": machine.cpu_utilization,
        "memory_available_bytes": machine.memory_available_bytes,
        "temperature_c": max(machine.zones.values(), default=None),
        "power_w": machine.power_w,
        "limit_deadline_s": limits.deadline_s,
        "limit_memory_available_bytes": limits.memory_available_bytes,
        "limit_temperature_c": limits.temperature_c,
        "limit_power_w": limits.power_w,
    }
    return {name: value for name, value in figures.items() if value is not None}
