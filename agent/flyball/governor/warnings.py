"""What is about to happen, told once when it is first expected and once when it no longer is.

Zones, Trend, limits -> expectations (kind, name, when, how surely) -> warn -> begun | ended -> event -> Event

memory_exhaustion_expected, throttling_expected. One begins when it has been expected within the horizon for some time,
and ends when it has not been expected within twice that horizon for a while; while its sensor is silent nothing is
known, and nothing is told. Pure; publishes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from flyball.events import Event
from flyball.governor import values
from flyball.governor.memory import Trend, exhaustion
from flyball.governor.thermal import Zone, crossing_confidence, now_c, time_to_s

Kind = Literal["memory_exhaustion_expected", "throttling_expected"]
MIB = 1 << 20


class Horizons(msgspec.Struct, frozen=True, kw_only=True):
    """How far ahead, how surely and for how long something must be expected until it is told. `memory_every_s`: the
    trend is looked at only so often, since it moves in minutes. `over_after_s`: so long it must be expected no longer
    until that is told; also how old an observation may be."""

    memory_s: float = 1320.0  # some leaks are foretold late: 22 minutes, so that 15 are left
    memory_every_s: float = 30.0
    memory_confidence: float = 0.7
    memory_hold_s: float = 60.0
    heat_s: float = 600.0
    heat_confidence: float = 0.7
    heat_hold_s: float = 20.0
    over_after_s: float = 120.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`zones_c`: where each zone is slowed down (or its limit from the configuration, the lower one). `reserve_bytes`:
    what is to stay available; None = no limit."""

    zones_c: Mapping[str, float] = {}
    reserve_bytes: float | None = None


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """`in_s` is None while it is not expected at all; `earliest_s` and `latest_s` are known for memory only.
    `confidence`, 0 to 1, is that it happens within twice `in_s`. `value` and `limit` are in C or bytes."""

    kind: Kind
    name: str
    t_s: float
    in_s: float | None
    earliest_s: float | None = None
    latest_s: float | None = None
    confidence: float
    value: float
    limit: float


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """`since_s`: since when it has been expected without a break; `last_s`: when it last was; `told`: it has begun."""

    since_s: float
    last_s: float
    told: bool = False


class State(msgspec.Struct, frozen=True, kw_only=True):
    """`pending` by "kind/name"; `looked_s`: when the trend of memory was last looked at."""

    pending: Mapping[str, Pending] = {}
    looked_s: float | None = None


class EarlyWarning(msgspec.Struct, frozen=True, kw_only=True):
    """Begun, or `ended`."""

    expected: Expected
    ended: bool = False


def limits_for(kept: Sequence[values.Limits], zones: Sequence[str], trips_c: Mapping[str, float]) -> Limits:
    """Of all ladders together: the lowest temperature of those and of the zone's own trip points, the largest
    reserve."""
    temperatures = [one.temperature_c for one in kept if one.temperature_c is not None]
    reserves = [one.memory_available_bytes for one in kept if one.memory_available_bytes is not None]
    zones_c = {}
    for zone in zones:
        known = [*temperatures, *([trips_c[zone]] if zone in trips_c else [])]
        if known:
            zones_c[zone] = min(known)
    return Limits(zones_c=zones_c, reserve_bytes=max(reserves, default=None))


def warn(
    state: State,
    now_s: float,
    zones: Mapping[str, Zone],
    trend: Trend | None,
    limits: Limits,
    horizons: Horizons = Horizons(),  # noqa: B008 - frozen
) -> tuple[State, tuple[EarlyWarning, ...]]:
    """What has begun and what has ended since the last call. `now_s` is monotonic, as the times of zones and trend."""
    pending = dict(state.pending)
    looked_s = state.looked_s
    if looked_s is not None and 0.0 <= now_s - looked_s < horizons.memory_every_s:
        trend = None
    if trend is not None:
        looked_s = now_s
    told = []
    for expected in expectations(zones, trend, limits, horizons):
        if not 0.0 <= now_s - expected.t_s <= horizons.over_after_s:
            continue  # silent: nothing about it begins or ends
        key = f"{expected.kind}/{expected.name}"
        before = pending.get(key)
        if before is not None and not before.told and now_s - before.last_s > horizons.over_after_s:
            before = None
        after = _followed(before, expected, now_s, horizons)
        if after is not None:
            pending[key] = after
        else:
            pending.pop(key, None)
        was_told, is_told = before is not None and before.told, after is not None and after.told
        if was_told != is_told:
            told.append(EarlyWarning(expected=expected, ended=was_told))
    return State(pending=pending, looked_s=looked_s), tuple(told)


def _followed(before: Pending | None, expected: Expected, now_s: float, horizons: Horizons) -> Pending | None:
    told = before is not None and before.told
    memory = expected.kind == "memory_exhaustion_expected"
    reach_s = (horizons.memory_s if memory else horizons.heat_s) * (2.0 if told else 1.0)
    wanted = (horizons.memory_confidence if memory else horizons.heat_confidence) * (0.5 if told else 1.0)
    hold_s = horizons.memory_hold_s if memory else horizons.heat_hold_s
    if expected.in_s is not None and expected.in_s <= reach_s and expected.confidence >= wanted:
        since_s = now_s if before is None else before.since_s
        return Pending(since_s=since_s, last_s=now_s, told=told or now_s - since_s >= hold_s)
    if before is not None and told and now_s - before.last_s < horizons.over_after_s:
        return before
    return None


def expectations(
    zones: Mapping[str, Zone], trend: Trend | None, limits: Limits, horizons: Horizons
) -> Iterator[Expected]:
    """One for every zone with a limit, and one for memory where it has a reserve; expected now or not."""
    for name, limit_c in limits.zones_c.items():
        if name in zones:
            yield _heat(name, zones[name], limit_c, horizons)
    if trend is not None and limits.reserve_bytes is not None:
        forecast = exhaustion(trend, limits.reserve_bytes)
        yield Expected(
            kind="memory_exhaustion_expected",
            name="memory",
            t_s=trend.t_s,
            in_s=forecast.in_s if forecast else None,
            earliest_s=forecast.earliest_s if forecast else None,
            latest_s=forecast.latest_s if forecast else None,
            confidence=forecast.confidence if forecast else 0.0,
            value=trend.low,
            limit=limits.reserve_bytes,
        )


def event(warning: EarlyWarning, now_s: float) -> Event:
    """For the log and the spool. What has ended is of the same kind with `_over` behind."""
    e = warning.expected
    if e.kind == "memory_exhaustion_expected":
        now, limit = f"{e.value / MIB:.0f} MiB of memory are available", f"the reserve of {e.limit / MIB:.0f} MiB"
    else:
        now, limit = f"{e.name} is at {e.value:.1f} C", f"its limit of {e.limit:.1f} C"
    if warning.ended:
        message = f"{now}; {limit} is no longer expected to be reached soon"
    else:
        when = f"in {_minutes(e.in_s)}" if e.in_s else "now"
        message = f"{now}; {limit} is expected to be reached {when} (confidence {e.confidence:.0%})"
    return Event(
        kind=f"{e.kind}_over" if warning.ended else e.kind,
        t_s=now_s,
        message=message,
        severity="info" if warning.ended else "warning",
        detail={
            "name": e.name,
            "value": e.value,
            "limit": e.limit,
            "in_s": e.in_s,
            "earliest_s": e.earliest_s,
            "latest_s": e.latest_s,
            "confidence": round(e.confidence, 3),
        },
    )


def _heat(name: str, zone: Zone, limit_c: float, horizons: Horizons) -> Expected:
    in_s = time_to_s(zone, limit_c)
    within_s = horizons.heat_s if in_s is None else max(2.0 * in_s, 60.0)
    return Expected(
        kind="throttling_expected",
        name=name,
        t_s=zone.t_s,
        in_s=in_s,
        confidence=crossing_confidence(zone, limit_c, within_s),
        value=now_c(zone),
        limit=limit_c,
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60.0:.0f} min" if seconds >= 90.0 else f"{seconds:.0f} s"
