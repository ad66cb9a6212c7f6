"""What is to be expected of every rung, and what speaks against it.

View + Limits + State -> one Outlook per rung -> weaker(...) | stronger(...)

Down the ladder, latency is scaled by the ratio of the profiles. Up it cannot be: hand-over and decoding would be
scaled too, and no one factor holds: beside burners a model of 1.5 ms ran at 0.86 of its calm latency, one of 11 ms at
4.7 times its own (two cores), because the small one fits a slice of the scheduler. So a stronger rung is expected to
be what it was when it was calm, and one that was left for its latency is not climbed to while the processors are about
as busy as they were then. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyball.config import Governor as Rules
from flyball.governor.constraints import Check, duration, mebibytes, milliseconds
from flyball.governor.state import Grounds, Left, State
from flyball.governor.values import HARD, Limits, Rung, View
from flyball.ports import Candidate

CLEARLY = 0.75  # of the level at the breach: utilization wobbles by 10 to 15 % from second to second
TAIL = 1.3  # p95 over p50 of a rung that has never been active here
LONGEST_S = 1e9  # of a prediction, so that no ratio of odd profiles becomes infinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """`barred`: it may not be chosen at all. `unfit`: it would break a limit, or may do so. `grounds`: why a climb to
    it is thought safe when neither speaks against it."""

    rung: Rung
    predicted_p95_s: float | None = None
    barred: str = ""
    unfit: str = ""
    eases: bool = True  # whether it improves on one of the limits that are broken now
    grounds: Grounds = "free"

    def candidate(self) -> Candidate:
        return Candidate(
            rung=self.rung.name,
            accuracy=self.rung.accuracy,
            predicted_p95_s=self.predicted_p95_s,
            ruled_out_by=self.barred or self.unfit,
        )


def outlooks(
    view: View, active: Rung, limits: Limits, rules: Rules, state: State, checks: Sequence[Check]
) -> tuple[Outlook, ...]:
    """In the order of the rungs."""
    at = view.rungs.index(active)
    broken = tuple(c for c in checks if c.broken)
    result = []
    for index, rung in enumerate(view.rungs):
        if index == at:
            result.append(_active(view, rung, broken))
            continue
        barred = _barred(view, rung, state)
        if index > at:
            predicted_s = predict_below_s(active, rung, view.seen.p95_s)
            unfit = _unfit_below(rung, active, predicted_s, limits, broken)
            eases = _eases(rung, active, predicted_s, view.seen.p95_s, broken)
            result.append(Outlook(rung=rung, predicted_p95_s=predicted_s, barred=barred, unfit=unfit, eases=eases))
        else:
            predicted_s = predict_above_s(active, rung, view.seen.p50_s, state)
            result.append(_above(view, rung, predicted_s, limits, rules, state, barred))
    return tuple(result)


def predict_below_s(active: Rung, candidate: Rung, observed_p95_s: float | None) -> float | None:
    """p95 of a weaker rung: the active one's, scaled by the ratio of the profiles; None unless all three are known."""
    if observed_p95_s is None or not active.profiled_p50_s or not candidate.profiled_p50_s:
        return None
    return min(observed_p95_s * min(candidate.profiled_p50_s / active.profiled_p50_s, LONGEST_S), LONGEST_S)


def predict_above_s(active: Rung, candidate: Rung, observed_p50_s: float | None, state: State) -> float | None:
    """p95 of a stronger rung: what it was when calm; of one that never was active, its profile with a usual tail and
    what the active rung takes beyond its own profile. None without either."""
    calm = state.calm.get(candidate.name)
    if calm is not None:
        return calm.p95_s
    if observed_p50_s is None or not active.profiled_p50_s or not candidate.profiled_p50_s:
        return None
    beyond_s = max(0.0, observed_p50_s - active.profiled_p50_s)
    return min(candidate.profiled_p50_s * TAIL + beyond_s, LONGEST_S)


def weaker(below: Sequence[Outlook]) -> Outlook | None:
    """Of the rungs below the active one: the strongest that fits, else the weakest that eases what is broken."""
    allowed = [o for o in below if not o.barred]
    fitting = [o for o in allowed if not o.unfit]
    easing = [o for o in allowed if o.eases]
    return fitting[0] if fitting else easing[-1] if easing else None


def stronger(above: Sequence[Outlook]) -> Outlook | None:
    """Of the rungs above the active one: the nearest that may be chosen at all."""
    allowed = [o for o in above if not o.barred]
    return allowed[-1] if allowed else None


def left_for_hard(above: Sequence[Outlook], state: State) -> Outlook | None:
    """The nearest rung above that was left for heat or memory and whose latency is remembered: what says whether it
    may be tried again does not rest on answers."""
    for outlook in reversed(above):
        left = state.left.get(outlook.rung.name)
        if not outlook.barred and left is not None and left.cause in HARD and outlook.rung.name in state.calm:
            return outlook
    return None


def against_pin(
    view: View, active: Rung, wanted: Rung, limits: Limits, rules: Rules, state: State, checks: Sequence[Check]
) -> str:
    """Which limit of temperature or memory forbids the change to a stronger rung that somebody asks for; the text
    begins with its name. A rung that such a limit made it leave needs the same ease as a climb by itself."""
    if view.rungs.index(wanted) >= view.rungs.index(active):
        return ""
    hard = [c for c in checks if c.constraint in HARD]
    broken = [f"{c.constraint}: {c.text}" for c in hard if c.broken]
    lost = [f"{loss.constraint}: {loss.text()}" for loss in state.lost(view.seen, checks)]
    against = (*broken, *lost, _too_big(view, wanted, limits, rules))
    left = state.left.get(wanted.name)
    if left is not None and left.cause in HARD:
        against = (*against, _too_hot(view, limits, rules), _held(view, left)[1])
    return next((text for text in against if text), "")


def below_floor(rung: Rung, floor: float | None) -> str:
    """Why the ladder's accuracy floor forbids the rung; empty when it does not. A rung whose accuracy is not stated is
    not below: the floor is about figures."""
    if floor is None or rung.accuracy is None or rung.accuracy >= floor:
        return ""
    return f"accuracy {rung.accuracy:g} is below the ladder's floor {floor:g}"


def _active(view: View, rung: Rung, broken: Sequence[Check]) -> Outlook:
    barred = below_floor(rung, view.accuracy_floor)
    unfit = "; ".join(c.text for c in broken)
    return Outlook(rung=rung, predicted_p95_s=view.seen.p95_s, barred=barred, unfit=unfit)


def _barred(view: View, rung: Rung, state: State) -> str:
    if not rung.usable:
        return unavailable(view, rung, state)
    return below_floor(rung, view.accuracy_floor) or unavailable(view, rung, state)


def unavailable(view: View, rung: Rung, state: State) -> str:
    """Why the rung cannot be had now, whoever asks for it; empty when it can."""
    if not rung.usable:
        return rung.error or "it cannot run on this machine"
    if rung.leave_alone_s > 0:
        why = rung.error or "no reason given"
        return f"it failed ({why}); the engine asks to leave it alone for another {duration(rung.leave_alone_s)}"
    rest = state.rests.get(rung.name)
    if rest is not None and rest.until_s > view.now_s:
        wait = duration(rest.until_s - view.now_s)
        return f"it failed ({rest.error or 'no reason given'}); tried again in {wait} at the earliest"
    return ""


def _unfit_below(rung: Rung, active: Rung, predicted_s: float | None, limits: Limits, broken: Sequence[Check]) -> str:
    if limits.latency_p95_s is not None and predicted_s is not None and predicted_s > limits.latency_p95_s:
        return f"latency: predicted {milliseconds(predicted_s)}, limit {milliseconds(limits.latency_p95_s)}"
    if any(c.constraint == "memory" for c in broken) and not _is_smaller(rung, active):
        return f"memory: takes {mebibytes(rung.rss_bytes or 0)}, no less than {active.name}"
    return ""


def _eases(
    rung: Rung, active: Rung, predicted_s: float | None, observed_s: float | None, broken: Sequence[Check]
) -> bool:
    quicker = predicted_s is None or observed_s is None or predicted_s < observed_s
    helps = {"latency": quicker, "memory": _is_smaller(rung, active), "temperature": True}
    return any(helps[c.constraint] for c in broken)


def _is_smaller(rung: Rung, active: Rung) -> bool:
    """In memory; what is not known is given a try."""
    return rung.rss_bytes is None or active.rss_bytes is None or rung.rss_bytes < active.rss_bytes


def _above(
    view: View,
    rung: Rung,
    predicted_s: float | None,
    limits: Limits,
    rules: Rules,
    state: State,
    barred: str,
) -> Outlook:
    barred = barred or _dominated(view, rung, state)
    unfit = _too_slow(view, predicted_s, limits, rules) or _too_hot(view, limits, rules)
    unfit = unfit or _too_big(view, rung, limits, rules)
    grounds: Grounds = "free"
    left = state.left.get(rung.name)
    if left is not None:
        grounds, held = _held(view, left)
        unfit = unfit or held
    return Outlook(rung=rung, predicted_p95_s=predicted_s, barred=barred, unfit=unfit, grounds=grounds)


def _dominated(view: View, rung: Rung, state: State) -> str:
    """A rung that a stronger one outruns is no step on the way up (INT8 is slower than FP32 on some devices)."""
    for other in view.rungs[: view.rungs.index(rung)]:
        outruns = other.profiled_p50_s and rung.profiled_p50_s and other.profiled_p50_s <= rung.profiled_p50_s
        if outruns and not _barred(view, other, state):
            return f"{other.name} is stronger and no slower"
    return ""


def _too_slow(view: View, predicted_s: float | None, limits: Limits, rules: Rules) -> str:
    if limits.latency_p95_s is None:
        return ""
    allowed_s = limits.latency_p95_s * rules.headroom
    share = f"{rules.headroom:.0%} of the limit is {milliseconds(allowed_s)}"
    if predicted_s is not None:
        return f"latency: predicted {milliseconds(predicted_s)}, {share}" if predicted_s > allowed_s else ""
    now_s = view.seen.p95_s
    if now_s is not None and now_s > allowed_s:
        return f"latency: not measured yet, {milliseconds(now_s)} already now, {share}"
    return ""


def _too_hot(view: View, limits: Limits, rules: Rules) -> str:
    temp_c = view.seen.temperature_c
    if limits.temperature_c is None or temp_c is None:
        return ""
    allowed_c = limits.temperature_c - 2 * rules.temperature_margin_c
    return f"temperature: {temp_c:.1f} °C, climbs up to {allowed_c:.1f} °C" if temp_c > allowed_c else ""


def _too_big(view: View, rung: Rung, limits: Limits, rules: Rules) -> str:
    available = view.seen.memory_available_bytes
    if limits.memory_available_bytes is None or available is None:
        return ""
    rest = available - (0.0 if rung.resident or rung.rss_bytes is None else rung.rss_bytes)
    needed = limits.memory_available_bytes / rules.headroom
    if rest >= needed:
        return ""
    return f"memory: would leave {mebibytes(max(rest, 0.0))} available, climbs down to {mebibytes(needed)}"


def _held(view: View, left: Left) -> tuple[Grounds, str]:
    """The grounds on which a rung that was left may be tried again, or why not yet."""
    ready_s = left.at_s + left.wait_s
    busy = view.seen.cpu_utilization
    telling = left.cause == "latency" and not left.misled and left.level is not None and busy is not None
    if telling and (busy or 0.0) <= (left.level or 0.0) * CLEARLY:
        return "load", ""
    if view.now_s >= ready_s:
        return "wait", ""
    ago, wait = duration(view.now_s - left.at_s), duration(ready_s - view.now_s)
    text = f"{left.cause}: left {ago} ago"
    if left.p95_s is not None and left.cause == "latency":
        text += f" at {milliseconds(left.p95_s)}"
    if left.failures:
        text += f", taken back {left.failures} times in a row"
    if telling:
        text += f"; processors {busy:.0%} busy, {left.level:.0%} after that"
    return "", f"{text}; considered again in {wait}"
