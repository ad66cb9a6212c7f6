"""The law: thresholds with hysteresis, and a reason for everything.

choose(View, Limits, Rules, State) -> (Decision, State)

Pure: no clock, no log, no I/O; the same values give the same decision. The state that comes back has taken in what was
seen; that a switch was made or failed is for the caller to add (State.moved, State.refused).

Down at once when a limit was broken in k of the last n periods, to the strongest rung that is predicted to fit. Up by
one rung after a row of periods in which that looked safe. Never twice within the dwell time, never below the accuracy
floor, never on data that is missing.

A pin stands above all of that but the limits of temperature and memory; those it beats only by force.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flyball.config import Governor as Rules
from flyball.governor import forecast
from flyball.governor.constraints import Check, check, duration, milliseconds
from flyball.governor.forecast import Outlook
from flyball.governor.sources import HOLD_S, Loss
from flyball.governor.state import CLIMBS_PER_HOUR, State
from flyball.governor.values import HARD, Limits, View
from flyball.ports import Decision, Pin

SENSOR = "sensor"  # binds where a limit cannot be told because its reading is lost


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    action: Literal["stay", "down", "up", "pin"] = "stay"
    target: str = ""  # "" = where it is
    reason: str
    binding: str = ""


def choose(view: View, limits: Limits, rules: Rules, state: State) -> tuple[Decision, State]:
    """What to do with one ladder now. `acted` and `error` of the decision are left for the caller to fill in."""
    state = state.at(view, rules)
    active = next((r for r in view.rungs if r.name == view.active), None)
    if active is None:
        why = view.error or ("it is being loaded" if view.active is None else f"{view.active!r} is not a rung of it")
        return _decision(view, limits, _Verdict(reason=f"no rung is active: {why}"), ()), state
    checks = check(view.seen, limits, rules)
    state = state.noted(view, checks, rules)
    all_outlooks = forecast.outlooks(view, active, limits, rules, state, checks)
    at = view.rungs.index(active)
    above, here, below = all_outlooks[:at], all_outlooks[at], all_outlooks[at + 1 :]
    pin, lost = state.pin, state.lost(view.seen, checks)
    if pin is not None:
        state = state.climbing("", "", safe=False)
        verdict = _pinned(view, limits, rules, state, pin, checks, all_outlooks)
    elif here.barred:
        state = state.climbing("", "", safe=False)
        verdict = _off_floor(view, rules, state, here, all_outlooks)
    elif any(c.broken for c in checks):
        state = state.climbing("", "", safe=False)
        verdict = _broken(view, rules, state, checks, below)
    elif lost:
        state = state.climbing("", "", safe=False)
        verdict = _Verdict(reason="the limits hold that can be told", binding=SENSOR)
    elif limits.latency_p95_s is not None and view.seen.newest_p95_s is None:
        verdict, state = _idle(view, rules, state, above)
    else:
        verdict, state = _climb(view, rules, state, above)
    if lost and not (pin is not None and pin.force):
        verdict = _bereft(view, rules, state, lost, verdict, below)
    return _decision(view, limits, verdict, all_outlooks), state


def against(view: View, limits: Limits, rules: Rules, state: State, rung: str) -> str:
    """Which limit of temperature or memory forbids to go to that rung now, whoever asks; empty when none does."""
    by_name = {r.name: r for r in view.rungs}
    active, wanted = by_name.get(view.active or ""), by_name.get(rung)
    if active is None or wanted is None or wanted is active:
        return ""
    return forecast.against_pin(view, active, wanted, limits, rules, state, check(view.seen, limits, rules))


def _pinned(
    view: View,
    limits: Limits,
    rules: Rules,
    state: State,
    pin: Pin,
    checks: Sequence[Check],
    outlooks: Sequence[Outlook],
) -> _Verdict:
    held = f"held at {pin.rung} by a pin"
    held += " until released" if pin.until_s is None else f" for another {duration(pin.until_s - view.now_s)}"
    at = next(i for i, o in enumerate(outlooks) if o.rung.name == view.active)
    hard = [] if pin.force else [c for c in checks if c.broken and c.constraint in HARD]
    if hard:
        down = _broken(view, rules, state, hard, outlooks[at + 1 :])
        if down.action == "down":
            reason = f"{held}, but a limit of {down.binding} stands above it: {down.reason}"
            return _Verdict(action="down", target=down.target, reason=reason, binding=down.binding)
    if view.active == pin.rung:
        over = "; ".join(c.text for c in checks if c.broken)
        return _Verdict(reason=f"{held}, although {over}" if over else held, binding="pin")
    wanted = next((o for o in outlooks if o.rung.name == pin.rung), None)
    if wanted is None:
        return _Verdict(reason=f"{held}, but the ladder has no such rung", binding="pin")
    unfit = forecast.unavailable(view, wanted.rung, state)
    if unfit:
        return _Verdict(reason=f"{held}, which cannot be had: {unfit}", binding="pin")
    against = forecast.against_pin(view, outlooks[at].rung, wanted.rung, limits, rules, state, checks)
    if against and not pin.force:
        return _Verdict(reason=f"{held}, once a limit allows it: {against}", binding=against.partition(":")[0])
    return _Verdict(action="pin", target=pin.rung, reason=f"{held}; {view.active} was active", binding="pin")


def _off_floor(view: View, rules: Rules, state: State, here: Outlook, outlooks: Sequence[Outlook]) -> _Verdict:
    """The active rung is one that the governor may not choose (it was started with, or the engine fell back to it)."""
    allowed = [o for o in outlooks if not o.barred]
    if not allowed:
        return _Verdict(reason=f"{here.rung.name}: {here.barred}; no other rung can be had", binding="accuracy")
    target = allowed[-1].rung  # the weakest of them is the safest step; from there it climbs as usual
    if view.now_s - state.since_s < rules.dwell_s:
        return _Verdict(reason=f"{here.rung.name}: {here.barred}; {_dwelling(view, rules, state)}", binding="accuracy")
    up = view.rungs.index(target) < view.rungs.index(here.rung)
    reason = f"{here.rung.name}: {here.barred}; {target.name} is the weakest rung that is allowed"
    return _Verdict(action="up" if up else "down", target=target.name, reason=reason, binding="accuracy")


def _broken(view: View, rules: Rules, state: State, checks: Sequence[Check], below: Sequence[Outlook]) -> _Verdict:
    broken = [c for c in checks if c.broken]
    ripe = [c for c in broken if state.breaches(c.constraint) >= rules.down_windows]
    if not ripe:
        text = "; ".join(_counted(view, c, rules, state) for c in broken)
        return _Verdict(reason=f"{text}; {rules.down_windows} make it step down", binding=broken[0].constraint)
    urgent = [c for c in ripe if not _cools(c, view, state)]
    if not urgent:
        reason = f"{ripe[0].text}, and falling since the last step down"
        return _Verdict(reason=reason, binding=ripe[0].constraint)
    text, binding = "; ".join(_counted(view, c, rules, state) for c in urgent), urgent[0].constraint
    target = forecast.weaker(below)
    if target is None:
        return _Verdict(reason=f"{text}; no weaker rung that is allowed would ease that", binding=binding)
    if view.now_s - state.since_s < rules.dwell_s:
        return _Verdict(reason=f"{text}; {_dwelling(view, rules, state)}", binding=binding)
    return _Verdict(action="down", target=target.rung.name, reason=f"{text}; {_expected(target)}", binding=binding)


def _bereft(
    view: View, rules: Rules, state: State, lost: Sequence[Loss], verdict: _Verdict, below: Sequence[Outlook]
) -> _Verdict:
    """What a limit whose reading is lost still asks for: no climb, and after a while the last rung on which it was
    proven to hold."""
    text = " and ".join(loss.text() for loss in lost)
    retreats = [(HOLD_S - (view.now_s - loss.since_s), *_retreat(view, state, loss, below)) for loss in lost]
    wanted = [retreat for retreat in retreats if retreat[1]]
    due = [retreat for retreat in wanted if retreat[0] <= 0]
    names = [r.name for r in view.rungs]
    # The weakest of those that are due, else the one that is due first.
    wait_s, target, why = (
        max(due, key=lambda retreat: names.index(retreat[1])) if due else min(wanted, default=(math.inf, "", ""))
    )
    if verdict.action != "stay" and not (due and names.index(target) > names.index(verdict.target)):
        return replace(verdict, reason=f"{verdict.reason}; besides, {text}")
    if not wanted:
        return replace(verdict, reason=f"{verdict.reason}; {text}: no climb until it is back")
    if wait_s > 0:
        reason = f"{verdict.reason}; {text}: no climb until it is back, and in {duration(wait_s)} down to {why}"
        return replace(verdict, reason=reason)
    if view.now_s - state.since_s < rules.dwell_s:
        reason = f"{text}: down to {why}; {_dwelling(view, rules, state)}"
        return _Verdict(reason=reason, binding=SENSOR)
    reason = f"{text} for {duration(HOLD_S - wait_s)}: down to {why}"
    return _Verdict(action="down", target=target, reason=reason, binding=SENSOR)


def _retreat(view: View, state: State, loss: Loss, below: Sequence[Outlook]) -> tuple[str, str]:
    """The rung to go to for a reading that is lost, and why that one; "" when it need not go anywhere."""
    allowed = [o.rung.name for o in below if not o.barred]
    names = [r.name for r in view.rungs]
    proven = state.proven.get(loss.constraint)
    if not allowed or (proven is not None and names.index(proven) <= names.index(view.active or "")):
        return "", ""
    if proven is None:
        return allowed[-1], f"{allowed[-1]}, the weakest, as none was proven to keep the limit of {loss.constraint}"
    if proven in allowed:
        return proven, f"{proven}, the last one proven to keep the limit of {loss.constraint}"
    weaker = [name for name in allowed if names.index(name) > names.index(proven)]
    target = weaker[0] if weaker else allowed[-1]
    return target, f"{target}, as {proven}, the last one proven to keep the limit of {loss.constraint}, cannot be had"


def _idle(view: View, rules: Rules, state: State, above: Sequence[Outlook]) -> tuple[_Verdict, State]:
    """Without answers latency speaks for nothing; but heat and memory that have eased are told by their own sensors."""
    back = forecast.left_for_hard(above, state)
    if back is None:
        return _Verdict(reason="no new answers: latency is unknown, which speaks for nothing"), state
    return _climb(view, rules, state, (back,))


def _climb(view: View, rules: Rules, state: State, above: Sequence[Outlook]) -> tuple[_Verdict, State]:
    next_up = forecast.stronger(above)
    if next_up is None:
        reason = (
            "the limits hold, and no stronger rung can be had" if above else "the limits hold at the strongest rung"
        )
        return _Verdict(reason=reason), state.climbing("", "", safe=False)
    name = next_up.rung.name
    if next_up.unfit:
        binding = next_up.unfit.partition(":")[0]
        return _Verdict(reason=f"{name} is next: {next_up.unfit}", binding=binding), state.climbing(
            name, "", safe=False
        )
    state = state.climbing(name, next_up.grounds, safe=True)
    text = f"{_expected(next_up)}; safe in {min(state.streak, rules.up_windows)} of {rules.up_windows} periods"
    if state.streak < rules.up_windows:
        return _Verdict(reason=text, binding="headroom"), state
    if view.now_s - state.since_s < rules.dwell_s:
        return _Verdict(reason=f"{text}; {_dwelling(view, rules, state)}", binding="dwell"), state
    if len(state.climbs_s) >= CLIMBS_PER_HOUR:
        reason = f"{text}; but there were {len(state.climbs_s)} climbs in the last hour, and that many are allowed"
        return _Verdict(reason=reason, binding="climbs"), state
    if next_up.grounds == "load":
        text += "; the processors are clearly less busy than when it was left"
    elif next_up.grounds == "wait":
        text += "; the wait since it was left is over"
    return _Verdict(action="up", target=name, reason=text, binding="headroom"), state


def _cools(broken: Check, view: View, state: State) -> bool:
    """Heat flows slowly: after a step down for it, the next one waits while it gets cooler below the limit itself."""
    if broken.constraint != "temperature" or not broken.bearable or state.entered_c is None:
        return False
    return view.seen.temperature_c is not None and view.seen.temperature_c < state.entered_c


def _counted(view: View, broken: Check, rules: Rules, state: State) -> str:
    text = f"{broken.text} in {state.breaches(broken.constraint)} of the last {rules.of_windows} periods"
    span_s = view.now_s - state.flags[broken.constraint][0][0]
    if span_s < (rules.of_windows + 0.5) * rules.period_s:
        return text
    what = "answers" if broken.constraint == "latency" else "a reading"
    return f"{text} with {what}, {duration(span_s)} in all"


def _dwelling(view: View, rules: Rules, state: State) -> str:
    return f"the last change was {duration(view.now_s - state.since_s)} ago, and dwell_s is {rules.dwell_s:g}"


def _expected(outlook: Outlook) -> str:
    name = outlook.rung.name
    if outlook.predicted_p95_s is None:
        return f"{name} is next, its latency here is not known yet"
    said = f"{name} is predicted at {milliseconds(outlook.predicted_p95_s)}"
    return f"{said}, the weakest that eases it" if outlook.unfit else said


def _decision(view: View, limits: Limits, verdict: _Verdict, outlooks: Sequence[Outlook]) -> Decision:
    source = view.active or ""
    return Decision(
        ladder=view.ladder,
        t_s=view.now_s,
        wall_s=view.wall_s,
        action=verdict.action,
        source=source,
        target=verdict.target or source,
        reason=verdict.reason,
        binding=verdict.binding,
        inputs=_inputs(view, limits),
        candidates=tuple(o.candidate() for o in outlooks),
    )


def _inputs(view: View, limits: Limits) -> dict[str, float]:
    """What is known; what is not is absent."""
    seen = view.seen
    figures: dict[str, float | None] = {
        "answers": float(seen.answers),
        "latency_p50_s": seen.p50_s,
        "latency_p95_s": seen.p95_s,
        "cpu_utilization": seen.cpu_utilization,
        "memory_available_bytes": seen.memory_available_bytes,
        "temperature_c": seen.temperature_c,
        "limit_latency_p95_s": limits.latency_p95_s,
        "limit_memory_available_bytes": limits.memory_available_bytes,
        "limit_temperature_c": limits.temperature_c,
    }
    return {name: value for name, value in figures.items() if value is not None}
