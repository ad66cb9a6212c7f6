"""The law: which rung a ladder should have now, and why. Pure: values and `now` in, a decision and a new state out.

broken limits -> k of n periods -> step down;  N clear periods -> step up;  between two changes a dwell

    down   to the strongest lower rung that is predicted to fit, not below the accuracy floor
    up     one rung, when it is predicted to stay under headroom x limit, and the processor is clearly less busy than
           it was when latency last forced a step down (or, as a probe, after a back-off that doubles with every climb
           that had to be taken back)

Why the processor is looked at: one slow-down factor does not fit all rungs. Beside burners a 1.5 ms model ran at 0.86
of its calm latency while an 11 ms model took 4.7 times its own (measured on two cores), so a small rung's calm says
nothing about the big one. "Not known" is neither good nor bad news: without latencies nothing moves because of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from flyball.config import Governor as Settings
from flyball.governor.view import Bounds, Observation, RungView, Seen, State
from flyball.ports import Candidate, Decision

LATENCY, HEAT, MEMORY = "latency", "temperature", "memory"
CPU_RELIEF = 0.15  # of all cores: "clearly less busy" than at the breach
_TAIL = 1.3  # p95 over p50 of a rung that has not been seen calm


def choose(
    ladder: str,
    rungs: Sequence[RungView],
    observed: Observation,
    limits: Bounds,
    settings: Settings,
    state: State,
    now_s: float,
    wall_s: float,
) -> tuple[Decision, State]:
    """`rungs` are in the ladder's order, strongest first, and hold `state.active`."""
    broken = broken_limit(observed, limits)
    state = _remember(state, observed, broken, settings)
    candidates = tuple(_candidate(rung, rungs, observed, limits, settings, state) for rung in rungs)
    (target, action, reason, binding), clear = _move(rungs, candidates, observed, limits, settings, state, now_s)
    state = msgspec.structs.replace(state, clear=clear)
    decision = Decision(
        ladder=ladder,
        t_s=now_s,
        wall_s=wall_s,
        action=action,
        source=state.active,
        target=target,
        reason=reason,
        binding=binding,
        inputs=_inputs(observed),
        candidates=candidates,
    )
    return decision, state


def moved(state: State, decision: Decision, observed: Observation, settings: Settings, now_s: float) -> State:
    """The state after the change that `decision` asked for has been made."""
    if decision.action == "up":
        return msgspec.structs.replace(
            state,
            active=decision.target,
            since_s=now_s,
            broken=(),
            clear=0,
            climbed_to=decision.target,
            climbed_s=now_s,
        )
    failures, breach_cpu, breach_s = state.failures, state.breach_cpu, state.breach_s
    if decision.binding == LATENCY:
        taken_back = state.climbed_to == decision.source and now_s - state.climbed_s < _proving_s(settings)
        failures = failures + 1 if taken_back else 0
        breach_cpu, breach_s = observed.cpu, now_s
    return msgspec.structs.replace(
        state,
        active=decision.target,
        since_s=now_s,
        broken=(),
        clear=0,
        climbed_to="",
        failures=failures,
        breach_cpu=breach_cpu,
        breach_s=breach_s,
    )


def broken_limit(observed: Observation, limits: Bounds) -> str:
    """The constraint that is broken now, "" when none is. What is not known breaks nothing."""
    p95_s = observed.window.p95_s
    if limits.latency_p95_s is not None and p95_s is not None and p95_s > limits.latency_p95_s:
        return LATENCY
    heat, available = observed.temperature_c, observed.memory_available_bytes
    if limits.temperature_c is not None and heat is not None and heat > limits.temperature_c:
        return HEAT
    if (
        limits.memory_available_bytes is not None
        and available is not None
        and available < limits.memory_available_bytes
    ):
        return MEMORY
    return ""


def _remember(state: State, observed: Observation, broken: str, settings: Settings) -> State:
    window = observed.window
    seen = dict(state.seen)
    if not broken and window.p50_s is not None and window.p95_s is not None:
        seen[state.active] = Seen(p50_s=window.p50_s, p95_s=window.p95_s)
    history = (*state.broken, broken)[-settings.of_windows :]
    return msgspec.structs.replace(state, broken=history, seen=seen)


def _candidate(
    rung: RungView,
    rungs: Sequence[RungView],
    observed: Observation,
    limits: Bounds,
    settings: Settings,
    state: State,
) -> Candidate:
    names = [r.name for r in rungs]
    active = rungs[names.index(state.active)]
    stronger = names.index(rung.name) < names.index(state.active)
    predicted_s = _predict(rung, active, observed, state, stronger)
    why = rung.why_not
    if not why and _below_floor(rung, limits):
        why = f"accuracy {_percent(rung.accuracy)} is below the floor of {_percent(limits.accuracy_floor)}"
    if not why and limits.latency_p95_s is not None and predicted_s is not None:
        allowed_s = limits.latency_p95_s * (settings.headroom if stronger else 1.0)
        if predicted_s > allowed_s:
            of = f"{settings.headroom:.0%} of the limit" if stronger else "the limit"
            why = f"predicted p95 {_ms(predicted_s)} over {of} ({_ms(allowed_s)})"
    return Candidate(rung=rung.name, accuracy=rung.accuracy, predicted_p95_s=predicted_s, ruled_out_by=why)


def _predict(rung: RungView, active: RungView, observed: Observation, state: State, stronger: bool) -> float | None:
    """p95 of `rung` under what the machine does now; None without a basis.

    Down: the active rung's p95 by the ratio of the profiles (pessimistic for small rungs, which suffer less). Up: the
    p95 that the rung had when it was last calm; one that was never active: its profile with a usual tail, and what
    the active rung takes beyond its own profile (hand-over, decoding).
    """
    p50_s, p95_s = observed.window.p50_s, observed.window.p95_s
    if rung.name == active.name:
        return p95_s
    if p50_s is None or p95_s is None:
        return None
    if not stronger:
        if rung.profiled_p50_s is None or not active.profiled_p50_s:
            return None
        return p95_s * min(1.0, rung.profiled_p50_s / active.profiled_p50_s)
    if rung.name in state.seen:
        return state.seen[rung.name].p95_s
    if rung.profiled_p50_s is None:
        return None
    beyond_s = max(0.0, p50_s - active.profiled_p50_s) if active.profiled_p50_s is not None else 0.0
    return rung.profiled_p50_s * _TAIL + beyond_s


Move = tuple[str, Literal["stay", "down", "up"], str, str]  # target, action, reason, binding


def _move(
    rungs: Sequence[RungView],
    candidates: Sequence[Candidate],
    observed: Observation,
    limits: Bounds,
    settings: Settings,
    state: State,
    now_s: float,
) -> tuple[Move, int]:
    """The move, and the new count of clear periods."""
    broken = state.broken[-1]
    if broken:
        return _down(rungs, candidates, observed, limits, settings, state, now_s, broken), 0
    at = [r.name for r in rungs].index(state.active)
    stronger = [c for c in candidates[:at] if not _closed(c, rungs)]
    if not stronger:
        return (state.active, "stay", "within the limits on the strongest rung that can run", ""), 0
    target = stronger[-1]
    why_not = _unsafe(target, observed, limits, settings, state, now_s)
    if why_not:
        return (state.active, "stay", f"{target.rung} is stronger, but {why_not}", LATENCY), 0
    clear = state.clear + 1
    left_s = state.since_s + settings.dwell_s - now_s
    if clear < settings.up_windows or left_s > 0:
        waiting = f"{clear} of {settings.up_windows} calm periods" + (
            f", {left_s:.0f} s of dwell left" if left_s > 0 else ""
        )
        return (state.active, "stay", f"{target.rung} would fit; waiting ({waiting})", ""), clear
    fits = "no latency limit is set"
    if limits.latency_p95_s is not None and target.predicted_p95_s is not None:
        fits = f"its p95 is predicted at {_ms(target.predicted_p95_s)} of {_ms(limits.latency_p95_s)} allowed"
    return (target.rung, "up", f"{clear} calm periods in a row; {target.rung} fits again: {fits}", ""), clear


def _down(
    rungs: Sequence[RungView],
    candidates: Sequence[Candidate],
    observed: Observation,
    limits: Bounds,
    settings: Settings,
    state: State,
    now_s: float,
    broken: str,
) -> Move:
    words = _broken_words(broken, observed, limits)
    count = sum(b == broken for b in state.broken)
    if count < settings.down_windows:
        return state.active, "stay", f"{words}, in {count} of the last {len(state.broken)} periods; waiting", broken
    left_s = state.since_s + settings.dwell_s - now_s
    if left_s > 0:
        return state.active, "stay", f"{words}; {left_s:.0f} s of dwell left", broken
    at = [r.name for r in rungs].index(state.active)
    lower = [
        (rung, candidate)
        for rung, candidate in zip(rungs[at + 1 :], candidates[at + 1 :], strict=True)
        if not rung.why_not and not _below_floor(rung, limits)
    ]
    if broken == MEMORY:
        own = rungs[at].resident_bytes
        smaller = [(r, c) for r, c in lower if own is None or r.resident_bytes is None or r.resident_bytes < own]
        lower = smaller or lower
    if not lower:
        return state.active, "stay", f"{words}, but no lower rung is allowed", broken
    fitting = [(r, c) for r, c in lower if not c.ruled_out_by]
    _, target = (fitting or lower[-1:])[0] if broken == LATENCY else lower[0]
    predicted = ""
    if target.predicted_p95_s is not None:
        predicted = f"; {target.rung} is predicted at {_ms(target.predicted_p95_s)}"
    periods = f"in {count} of the last {len(state.broken)} periods"
    return target.rung, "down", f"{words} {periods}{predicted}", broken


def _unsafe(
    target: Candidate, observed: Observation, limits: Bounds, settings: Settings, state: State, now_s: float
) -> str:
    """Why a step up to `target` should not be made now; "" when it is safe."""
    if target.ruled_out_by:
        return target.ruled_out_by
    if limits.latency_p95_s is not None and target.predicted_p95_s is None:
        return "its latency cannot be predicted without answers to measure"
    heat = observed.temperature_c
    cool_c = None if limits.temperature_c is None else limits.temperature_c - settings.temperature_margin_c
    if heat is not None and cool_c is not None and heat > cool_c:
        return f"it is still {heat:.0f} C in {observed.zone or 'the hottest zone'}, and has to fall to {cool_c:.0f} C"
    if state.breach_s is None:
        return ""
    wait_s = min(settings.climb_backoff_s * 2.0 ** min(state.failures, 30), settings.climb_backoff_max_s)
    left_s = state.breach_s + wait_s - now_s
    if left_s <= 0:
        return ""
    if state.breach_cpu is None or observed.cpu is None:
        return f"latency broke the limit {now_s - state.breach_s:.0f} s ago; {left_s:.0f} s until the next try"
    if state.failures == 0 and observed.cpu <= state.breach_cpu - CPU_RELIEF:
        return ""
    return (
        f"the processor is {observed.cpu:.0%} busy, {state.breach_cpu:.0%} when latency broke the limit; "
        f"{left_s:.0f} s until the next try"
    )


def _closed(candidate: Candidate, rungs: Sequence[RungView]) -> bool:
    return any(r.why_not for r in rungs if r.name == candidate.rung)


def _below_floor(rung: RungView, limits: Bounds) -> bool:
    """A rung of unknown accuracy is not below: a floor needs figures to be meant."""
    return limits.accuracy_floor is not None and rung.accuracy is not None and rung.accuracy < limits.accuracy_floor


def _proving_s(settings: Settings) -> float:
    """How long after a climb a breach counts as the climb's fault: until its own windows could have shown it, twice."""
    return 2 * (settings.dwell_s + settings.window_s + settings.of_windows * settings.period_s)


def _inputs(observed: Observation) -> dict[str, float]:
    """What was known; what was not is absent."""
    window = observed.window
    known = {
        "answers": float(window.count),
        "latency_p50_s": window.p50_s,
        "latency_p95_s": window.p95_s,
        "cpu_utilization": observed.cpu,
        "memory_available_bytes": observed.memory_available_bytes,
        "temperature_c": observed.temperature_c,
    }
    return {name: value for name, value in known.items() if value is not None}


def _broken_words(broken: str, observed: Observation, limits: Bounds) -> str:
    if broken == LATENCY:
        return f"latency p95 {_ms(observed.window.p95_s)} over the limit {_ms(limits.latency_p95_s)}"
    if broken == HEAT:
        zone = observed.zone or "the hottest zone"
        return f"{zone} at {observed.temperature_c:.0f} C, limit less margin {limits.temperature_c:.0f} C"
    available, limit = observed.memory_available_bytes or 0.0, limits.memory_available_bytes or 0.0
    return f"{available / (1 << 20):.0f} MiB of memory available, limit {limit / (1 << 20):.0f} MiB"


def _ms(value_s: float | None) -> str:
    return "unknown" if value_s is None else f"{value_s * 1e3:.1f} ms"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
