"""The rules of the configuration, applied to what the law wants.

View + verdict -> rules that fire -> verdict, perhaps another, and what is to be told

A rule may step down, hold or ask for a rung; the accuracy floor, a rung that cannot be had and the limits of
temperature and memory stand above it, the law's own wish below it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.governor import hysteresis
from flyball.governor.hysteresis import Verdict
from flyball.governor.joint import Party
from flyball.governor.outlook import Outlook
from flyball.governor.perception import key
from flyball.governor.rules import Action, Facts, Fired, Rule, evaluate, first_possible
from flyball.governor.state import CLIMB, CLIMBS_PER_HOUR, LadderState
from flyball.governor.values import HARD, LadderView, View

RULE = "rule"
REMOTE = "remote"


def facts(view: View, ladder: LadderView, own: LadderState) -> Facts:
    """As `rules.facts.FACTS` lists them; None where nobody knows."""
    seen, machine = ladder.seen, view.machine
    rung = next((r for r in ladder.rungs if r.name == ladder.active), None)
    slow = None
    if rung is not None and rung.work_s and seen.work_mean_s is not None and key(rung) in own.slow:
        slow = seen.work_mean_s / rung.work_s
    return {
        "latency_p50": seen.p50_s,
        "latency_p95": seen.p95_s,
        "latency_p99": seen.p99_s,
        "late": seen.window_late,
        "queue": float(seen.pending),
        "arrivals": seen.arrivals_per_s,
        "throughput": seen.answers_per_s,
        "cpu": machine.cpu_utilization,
        "gpu": machine.gpu_utilization,
        "runnable": machine.contention,
        "memory_available": machine.memory_available_bytes,
        "memory_pressure": machine.memory_pressure,
        "cpu_pressure": machine.cpu_pressure,
        "temperature": machine.zones or None,
        "power": machine.power_w,
        "slow_down": slow,
        "throttled": True if machine.throttled else False if machine.tells_throttling else None,
        "under_voltage": machine.under_voltage,
        "clock": machine.clock,
        "accuracy": None if rung is None else rung.accuracy,
        "load_score": machine.load_score,
        "hour": machine.hour,
    }


def apply(
    party: Party, own: LadderState, verdict: Verdict, rules: Sequence[Rule], view: View, settings: Rules,
    forbids: Callable[[Outlook], str],
) -> tuple[Verdict, LadderState, str]:  # fmt: skip
    """The verdict after the rules, and a notice where one wants to be told (once, when it begins to fire). `forbids`
    says which limit of temperature or memory stands against a stronger rung."""
    ladder, now_s = party.ladder, view.now_s
    fired, since = evaluate(rules, facts(view, ladder, own), own.since_rules, now_s)
    firing = tuple(f.rule.text for f in fired)
    notices = [f.why for f in fired if f.rule.text not in own.firing and _tells(f, party)]
    own = msgspec.structs.replace(own, since_rules=dict(since), firing=firing)
    # A rule that holds has the last word, wherever it stands.
    for one in sorted(fired, key=lambda f: any(a.kind == "hold" for a in f.actions)):
        verdict = _applied(party, own, verdict, one, settings, now_s, forbids)
    return verdict, own, "; ".join(notices)


def _tells(one: Fired, party: Party) -> bool:
    chosen = _possible(party, one)
    return chosen is not None and chosen.kind == "notify"


def _possible(party: Party, one: Fired) -> Action | None:
    rungs = [o.rung.name for o in party.outlooks if not o.barred or o.index == party.active]
    remote = [o.rung.name for o in party.outlooks if o.rung.accelerator.startswith(REMOTE) and not o.barred]
    return first_possible(one.actions, rungs, party.ladder.active, remote)


def _applied(
    party: Party, own: LadderState, verdict: Verdict, one: Fired, settings: Rules, now_s: float,
    forbids: Callable[[Outlook], str],
) -> Verdict:  # fmt: skip
    action = _possible(party, one)
    climbs = verdict.action != "stay" and verdict.binding == CLIMB
    if action is None and climbs and any(a.kind == "step_down" for a in one.actions):
        return Verdict(reason=f"held by a rule: {one.why}; there is nothing weaker to step down to", binding=RULE)
    if action is None or action.kind == "notify":
        return verdict
    here = party.outlooks[party.active]
    forced = verdict.action != "stay" and verdict.binding in HARD
    if action.kind == "hold":
        if not climbs:
            return verdict
        return Verdict(reason=f"{verdict.reason}; but held by a rule: {one.why}", binding=RULE)
    if forced:
        return verdict
    allowed = [o for o in party.outlooks if not o.barred]
    if action.kind == "rung":
        target = next((o for o in allowed if o.rung.name == action.rung), None)
    elif action.kind == "step_down":
        below = [o for o in allowed if o.index > here.index]
        target = below[0] if below else None
    elif action.kind == "step_up":
        above = [o for o in allowed if o.index < here.index and not o.held]
        target = above[-1] if above else None
    else:
        target = next((o for o in allowed if o.rung.accelerator.startswith(REMOTE)), None)
    if target is None or target.index == here.index:
        return Verdict(reason=f"held by a rule: {one.why}", binding=RULE) if climbs else verdict
    if verdict.action == "down" and target.index < _index(party, verdict.target):
        return verdict  # the law goes further down than the rule asks for
    standing = forbids(target)
    if standing:
        reason = f"a rule: {one.why}; {target.rung.name} once a limit allows it: {standing}"
        return Verdict(reason=reason, binding=standing.partition(":")[0])
    if now_s - own.since_s < settings.dwell_s:
        if verdict.action != "stay" and not climbs:
            return verdict  # a limit does not wait for the rule's turn
        return Verdict(reason=f"{one.why}; {hysteresis.dwelling(own, settings, now_s)}", binding=RULE)
    direction = "down" if target.index > here.index else "up"
    if direction == "up" and len(own.climbs_s) >= CLIMBS_PER_HOUR:
        text = f"{CLIMBS_PER_HOUR} climbs in an hour are allowed, and were made"
        return Verdict(reason=f"a rule: {one.why}; but {text}", binding="climbs")
    reason = f"a rule: {one.why}; {hysteresis.expected(target, party.ladder)}"
    return Verdict(action=direction, target=target.rung.name, reason=reason, binding=RULE)  # type: ignore[arg-type]


def _index(party: Party, rung: str) -> int:
    return next((o.index for o in party.outlooks if o.rung.name == rung), party.active)
