"""The law: predict every rung, choose for all ladders together, and say why.

decide(View, Rules, State) -> perceive -> outlooks -> joint.settle -> hysteresis -> (Decisions, State)

Pure: no clock, no log, no I/O; the same values give the same decisions. The state that comes back has taken in what was
seen; that a switch was made or failed is for the caller to add (State.moved, State.refused).

Of the rungs that are predicted to keep every limit, the most accurate is wanted (or the one that takes least energy, or
the quickest: `mode`). A pin stands above that, and the limits of temperature and memory above a pin, but for force.
Never below the accuracy floor, never up on data that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from flyball.config import Governor as Rules
from flyball.governor import hysteresis
from flyball.governor.constraints import Check
from flyball.governor.explanation import explained
from flyball.governor.hysteresis import Verdict
from flyball.governor.joint import Party, busy, judge_beside, settle, worth
from flyball.governor.judgement import against, bounds
from flyball.governor.opening import admit, begun, elsewhere, taken, under_way
from flyball.governor.orders import forbidden, held_at, overruled, pinned
from flyball.governor.outlook import Outlook, Scene, outlooks, scene, warm
from flyball.governor.perception import perceive, perceive_ladder
from flyball.governor.retreat import SENSOR, bereft
from flyball.governor.rules import Rule
from flyball.governor.sources import Loss, losses
from flyball.governor.state import LadderState, State
from flyball.governor.thresholds import apply
from flyball.governor.turns import SHARED, take_turns
from flyball.governor.values import HARD, Constraint, LadderView, View
from flyball.ports import Decision

NO_RULES: Mapping[str, Sequence[Rule]] = {}
EVERY: frozenset[Constraint] = frozenset({"latency", "temperature", "memory", "power", "energy"})
GRACE_S, GRACE_C = 30.0, 1.0  # after a step down for heat, which shows only then
JUST_C = 0.5  # over what a zone may come to


def decide(
    view: View, rules: Rules, state: State, thresholds: Mapping[str, Sequence[Rule]] = NO_RULES
) -> tuple[tuple[Decision, ...], State]:
    """What to do with every ladder now, in the order of the view. `thresholds` are the configuration's rules for each.
    `acted` and `error` are left for the caller."""
    if state.looked_s is not None and view.now_s < state.looked_s:
        state = state.restarted(view.now_s)
    opening = elsewhere(view, state)
    state = perceive(view, rules, state)
    before = state.ladders
    looked: list[tuple[LadderState, tuple[Check, ...]]] = []
    for ladder in view.ladders:
        looked.append(perceive_ladder(ladder, view, rules, state, before.get(ladder.name) or LadderState()))
    state = msgspec.structs.replace(
        state,
        opening=opening,
        ladders={**before, **{v.name: own for v, (own, _) in zip(view.ladders, looked, strict=True)}},
    )
    decisions, after, parties, around = choose(view, rules, state, [checks for _, checks in looked], thresholds)
    opening = {**opening, **begun(decisions, parties, view.now_s)}
    decisions = [
        explained(decision, view, ladder, state, party, around)
        for decision, ladder, party in zip(decisions, view.ladders, parties, strict=True)
    ]
    return tuple(decisions), msgspec.structs.replace(state, opening=opening, ladders={**before, **after})


def choose(
    view: View,
    rules: Rules,
    state: State,
    checks: Sequence[Sequence[Check]],
    thresholds: Mapping[str, Sequence[Rule]] = NO_RULES,
) -> tuple[list[Decision], dict[str, LadderState], list[Party | None], Scene]:
    """The choice itself, after the observation was taken in; how every rung looked comes with it, for `explained`."""
    around = scene(view, state)
    parties: list[Party | None] = []
    for ladder in view.ladders:
        own, active = state.ladders[ladder.name], ladder.active_index()
        parties.append(None if active is None else Party(ladder, own, outlooks(ladder, own, around), active))
    here = [party for party in parties if party is not None]
    warm(around, view, state, [p.outlooks[p.active] for p in here], [p.outlooks for p in here], rules.horizon_s)
    for party, its in zip(parties, checks, strict=True):
        if party is not None:
            party.kept = bounds(party.ladder.limits, party.own.overhead_s(around.contention), rules, around)
            party.seen = [c for c in its if c.broken]
            _restrain(party, party.seen, rules, around)
    settle(here, around, rules.mode)
    gone: Sequence[Loss] = ()
    if state.sensed and min(state.sensed.values()) < view.now_s:
        gone = losses(state.sensed, view.machine, EVERY)
    verdicts, after, shared = [], {}, False
    for ladder, found, its in zip(view.ladders, parties, checks, strict=True):
        if found is None:
            why = ladder.error or (
                "it is being loaded" if ladder.active is None else f"{ladder.active!r} is no rung of it"
            )
            verdict, own = Verdict(reason=f"no rung is active: {why}"), state.ladders[ladder.name]
        else:
            if gone:
                found.lost = tuple(loss for loss in gone if any(c.constraint == loss.constraint for c in its))
            verdict, own = _verdict(found, view, rules, its, around)
        after[ladder.name] = own
        verdicts.append(verdict)
        shared = shared or (verdict.action != "stay" and verdict.binding in SHARED)
    if shared:
        verdicts = take_turns(parties, verdicts, view, state, rules)
    changing, opening_bytes = (under_way(state, view.now_s), taken(state)) if state.opening else ("", 0.0)
    decisions = []
    for ladder, found, verdict, its in zip(view.ladders, parties, verdicts, checks, strict=True):
        notice = ""
        its_rules = thresholds.get(ladder.name) if thresholds else None
        if found is not None and its_rules and found.own.pin is None:
            forbids = partial(forbidden, found, rules, its, around, found.lost)
            own = after[ladder.name]
            verdict, after[ladder.name], notice = apply(found, own, verdict, its_rules, view, rules, forbids)
        if found is not None and verdict.action != "stay":
            verdict, opening_bytes = admit(found, verdict, opening_bytes, changing)
        decisions.append(_decision(view, ladder, verdict, notice))
    return decisions, after, parties, around


def _restrain(party: Party, broken: Sequence[Check], rules: Rules, around: Scene) -> None:
    """What no prediction can undo: a pin, and a limit that is seen to break whatever was thought."""
    own, pin = party.own, party.own.pin
    if pin is not None or rules.mode == "pinned":
        hard = _hard(own, broken, rules)
        if pin is None and not hard:
            party.fixed = party.active
            return
        if pin is not None and not overruled(pin, party, hard):
            index = next((i for i, o in enumerate(party.outlooks) if o.rung.name == pin.rung), None)
            party.fixed = party.active if index is None else index
            return
    breaking = hysteresis.ripe(own, broken, rules) if broken else []
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


def _hard(own: LadderState, checks: Sequence[Check], rules: Rules) -> list[Check]:
    """What stands above a pin: one odd reading does not, or the law would choose by latency meanwhile."""
    return [c for c in hysteresis.ripe(own, checks, rules) if c.constraint in HARD]


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
    party: Party, view: View, rules: Rules, checks: Sequence[Check], around: Scene
) -> tuple[Verdict, LadderState]:
    ladder, own, now_s, lost = party.ladder, party.own, view.now_s, party.lost
    here, target = party.outlooks[party.active], party.chosen()
    pin = own.pin
    broken = party.seen
    hard = _hard(own, broken, rules) if pin is not None else []
    if pin is not None and not overruled(pin, party, hard):
        verdict = pinned(party, view, rules, pin, checks, around, lost)
        if not pin.force and lost:
            verdict = bereft(party, now_s, rules, lost, verdict)
        return verdict, _still(own)
    breaking = [c for c in hysteresis.ripe(own, broken, rules) if not _easing(c, around, party)] if broken else ()
    if breaking:
        why = "; ".join(hysteresis.counted(c, own, rules, now_s) for c in breaking)
        foreseen = here.foreseen is not None
        verdict = hysteresis.down(
            ladder, own, here, target, why, breaking[0].constraint, rules, now_s, unforeseen=not foreseen
        )
        own = _still(own)
    elif here.barred:
        verdict, own = _off_floor(party, rules, now_s, here, target), _still(own)
    elif hysteresis.proved(ladder, own) and not _better(target, here, rules) and target.index != here.index:
        why = f"{own.late:.1%} of the last {own.late_of} answers were late"
        foreseen = here.foreseen is not None
        verdict = hysteresis.down(ladder, own, here, target, why, "latency", rules, now_s, unforeseen=not foreseen)
        own = _still(own)
    elif here.broken is not None and target.index != here.index and not _better(target, here, rules):
        why = against(here, ladder.limits, around)
        certain = hysteresis.certain(here, ladder)
        doubted = hysteresis.by_wait_alone(here, busy(party, here), own, ladder)
        if not certain and hysteresis.many_more(ladder, here, target, rules.mode):
            verdict, own = hysteresis.climb(ladder, own, here, target, rules, rules.mode, now_s, seen=True)
        elif not certain and hysteresis.disproved(here, ladder, own):
            verdict, own = _content(party, around, rules), _still(own)
        elif doubted:
            verdict, own = Verdict(reason=doubted, binding="latency"), _still(own)
        elif here.foreseen == "temperature" and own.entered_c is not None and _cools(around, party):
            verdict = Verdict(reason=f"{why}; but falling since the last step down", binding="temperature")
            own = _still(own)
        elif certain or (own.streak_for == "-" and own.streak + 1 >= hysteresis.DOUBTED):
            narrow = here.broken == "latency" and (here.missed or 0.0) < hysteresis.CLOSE
            verdict = hysteresis.down(ladder, own, here, target, why, here.broken, rules, now_s, narrow=narrow)
            own = _still(own)
        else:
            streak = own.streak + 1 if own.streak_for == "-" else 1
            own = msgspec.structs.replace(own, streak=streak, streak_for="-")
            verdict = Verdict(reason=f"{why}; {hysteresis.DOUBTED} such periods make it step down", binding=here.broken)
    elif broken:
        text = "; ".join(hysteresis.counted(c, own, rules, now_s) for c in broken)
        coming = f"{rules.down_windows} make it step down"
        if all(_easing(c, around, party) for c in broken):
            coming = "it gets cooler by itself"
        verdict, own = Verdict(reason=f"{text}; {coming}", binding=broken[0].constraint), _still(own)
    elif lost:
        verdict, own = Verdict(reason="the limits hold that can be told", binding=SENSOR), _still(own)
    elif target.index == here.index:
        verdict, own = _content(party, around, rules), _still(own)
    elif last := [constraint for constraint, flags in own.flags.items() if flags and flags[-1][1]]:
        why = f"{' and '.join(last)}: broken when it was last seen, and nothing is known of it now"
        verdict, own = Verdict(reason=why, binding=last[0]), _still(own)
    else:
        verdict, own = hysteresis.climb(ladder, own, here, target, rules, rules.mode, now_s)
    if pin is not None:
        above = f"but a limit of {hard[0].constraint} stands above it"
        verdict = msgspec.structs.replace(verdict, reason=f"{held_at(pin, now_s)}, {above}: {verdict.reason}")
    if lost:
        verdict = bereft(party, now_s, rules, lost, verdict)
    return verdict, own


def _still(own: LadderState) -> LadderState:
    """A row of safe periods, or of doubtful ones, ends."""
    return msgspec.structs.replace(own, streak=0, streak_for="") if own.streak else own


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
    judge_beside(party, nearest, around, climbs=True)
    why = against(nearest, party.ladder.limits, around)
    if not why:
        why = "the other ladders need what it would take"
        if nearest.missed:
            why = f"latency: {nearest.missed:.1%} of its answers would be late, which costs more than it is better"
    return Verdict(reason=f"{nearest.rung.name} is next: {why}", binding=why.partition(":")[0])


def against_order(view: View, rules: Rules, state: State, name: str, rung: str) -> str:
    """Which limit of temperature or memory forbids to take that rung of the ladder now, whoever asks; empty when none
    does."""
    ladder = next((v for v in view.ladders if v.name == name), None)
    if ladder is None:
        return ""
    state = perceive(view, rules, state)
    own, checks = perceive_ladder(ladder, view, rules, state, state.of(name))
    state = state.having(name, own)
    around = scene(view, state)
    active = ladder.active_index()
    found = outlooks(ladder, own, around)
    wanted = next((o for o in found if o.rung.name == rung), None)
    if active is None or wanted is None or wanted.index == active:
        return ""
    warm(around, view, state, [found[active]], [found], rules.horizon_s)
    lost = losses(state.sensed, view.machine, frozenset(c.constraint for c in checks))
    return forbidden(Party(ladder, own, found, active), rules, checks, around, lost, wanted)


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


def _decision(view: View, ladder: LadderView, verdict: Verdict, notice: str) -> Decision:
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
    )
