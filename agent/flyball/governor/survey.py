"""Looks at one ladder and the machine.

Measured + Readings -> View

Reads through the ports only; decides nothing, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flyball.clock import Clock
from flyball.config import Governor as Rules
from flyball.governor.state import State
from flyball.governor.values import Observation, Rung, View
from flyball.ports import LadderStatus, LatencyWindow, Measured, Reading, Readings, RungStatus


def survey(ladder: Measured, readings: Readings, floor: float | None, rules: Rules, state: State, clock: Clock) -> View:
    """What `choose` needs to know now."""
    status = ladder.status()
    now_s = clock.monotonic_s()
    return View(
        ladder=status.name,
        now_s=now_s,
        wall_s=clock.wall_s(),
        active=status.active,
        rungs=tuple(rung(r) for r in status.rungs),
        seen=_observe(ladder, status, readings, rules, state, now_s),
        accuracy_floor=floor,
        error=status.error,
    )


def rung(status: RungStatus) -> Rung:
    return Rung(
        name=status.name,
        accuracy=status.accuracy,
        usable=status.state != "no-accelerator",
        failed=status.state == "failed",
        error=status.error,
        resident=status.state in ("active", "standby"),
        profiled_p50_s=status.profiled_p50_s,
        rss_bytes=status.rss_bytes,
        leave_alone_s=status.leave_alone_s,
    )


def _observe(
    ladder: Measured, status: LadderStatus, readings: Readings, rules: Rules, state: State, now_s: float
) -> Observation:
    # Requests that waited out the load, or the change itself, are answered in the first period of a stay: their
    # latency is the former rung's fault. Older answers of this rung belong to an earlier stay.
    stay_s = now_s - state.since_s - rules.period_s if status.active == state.active else 0.0
    since_look_s = rules.period_s if state.looked_s is None else now_s - state.looked_s
    window = _window(ladder, min(rules.window_s, stay_s))
    newest = _window(ladder, min(since_look_s, stay_s))
    latest = readings.latest()
    zones = [r for r in latest if r.quantity == "temperature" and math.isfinite(r.value)]
    hottest = max(zones, key=lambda r: r.value, default=None)
    memory = next((r.value for r in latest if r.quantity == "memory_available"), None)
    busy = next((r.value for r in latest if r.quantity == "cpu_utilization"), None)
    return Observation(
        window_s=rules.window_s if window is None else window.seconds,
        answers=0 if window is None else window.count,
        p50_s=None if window is None else window.p50_s,
        p95_s=None if window is None else window.p95_s,
        newest_p95_s=None if newest is None else newest.p95_s,
        temperature_c=None if hottest is None else hottest.value,
        hottest_zone="" if hottest is None else hottest.name,
        zones=_accounted_for(zones, readings, state),
        memory_available_bytes=memory,
        cpu_utilization=busy,
    )


def _accounted_for(zones: Sequence[Reading], readings: Readings, state: State) -> frozenset[str]:
    """The zones that are read now, and those once read whose sensor leaves them out and yet has nothing to complain
    of: they are switched off (the cv zones of Orin), which is no loss."""
    content = {h.sensor for h in readings.health() if h.state == "ok" and not h.reason}
    known = {zone for constraint, zone in state.sensed if constraint == "temperature"}
    off = {zone for zone in known if zone.partition("/")[0] in content}
    return frozenset({f"{r.sensor}/{r.name}" for r in zones} | off)


def _window(ladder: Measured, seconds: float) -> LatencyWindow | None:
    return ladder.window(seconds) if seconds > 0 else None
