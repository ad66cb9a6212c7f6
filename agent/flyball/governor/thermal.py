"""How one thermal zone heats up and cools down, learnt while it does.

temperature, power -> observe -> Zone -> predict_c | rise_c | time_to_s | sd_c | crossing_confidence

A first-order (RC) model of the zone's body, tau dT/dt = E + R * P - T, with E the effective ambient (all heat that the
power does not explain) and R in K/W; the sensor sits in a die that is D * P hotter than the body, within seconds. How
slow a body is, nobody knows beforehand: a bank of Kalman filters, one for each time constant, estimates T, E, R and D
side by side, and the one whose predictions came true best lately speaks for the zone. Plain floats and no clock: a
recorded log gives the same numbers again. Never reads a sensor, never decides.
"""

from __future__ import annotations

from math import erfc, exp, isfinite, log, sqrt

import msgspec

from flyball.governor.thermal_bank import (
    DIE_S,
    DIE_SHARE,
    DRAW_C2,
    NOISE_C2,
    TAUS_S,
    Filter,
    first,
    resumed,
    stepped,
    variance_c2,
)

GAP_S = 180.0  # after a longer silence the temperature is taken as it is read
AHEAD_S = 45.0  # predictions so far ahead are checked against what came, and the filter that makes the best speaks
CHECK_SHARE = 0.12  # of each check in the running mean: some six minutes
PREFERRED = 0.85  # of the best filter's mean square error: what another must reach before it takes over
SMOOTH_S = 10.0  # of the power "as it is": a single sample says little
PLAUSIBLE_C = (-90.0, 250.0)
PLAUSIBLE_W = (0.0, 5000.0)
OUTLIER_SIGMA = 5.0
OUTLIER_C = 6.0  # nothing nearer than this is an outlier: a processor's die gains some degrees within a second
AGAIN_C = 4.0  # a second odd sample so near to the first is believed
SEEN = 2.0  # of the time looked on, at most: the time constant of the filter that speaks, or the first one's
FIRST = 4  # of the time constants, until something is learnt
LEAST_STRETCH, MOST_STRETCH = 0.1, 100.0


class Zone(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of one zone. `best` is the index of the filter that speaks for it. `power_w` is the power as it is,
    smoothed; while `blind` (unknown now) the last that was known, None when none ever was. `die_w` is what the die
    feels of it. `odd_c` is a sample that was not believed. At `due_s` the predictions made `AHEAD_S` before meet what
    came, as they did `checks` times; `promised_c2` is the variance that the best one was given, `stretch` how much
    larger its square errors were lately."""

    t_s: float
    samples: int
    best: int
    filters: tuple[Filter, ...]
    prior_kw: float
    die_w: float
    due_s: float
    promised_c2: float
    power_w: float | None = None
    blind: bool = True
    odd_c: float | None = None
    checks: int = 0
    stretch: float = 1.0


def observe(model: Zone | None, t_s: float, temperature_c: float, power_w: float | None) -> Zone | None:
    """The zone after one sample; `t_s` is monotonic, `power_w` the mean since the last sample, None when unknown.

    Samples that are not finite, not plausible or not newer than the last leave the model as it is (None while there is
    none yet). An outlier is believed when the next sample repeats it."""
    if not (isfinite(t_s) and PLAUSIBLE_C[0] <= temperature_c <= PLAUSIBLE_C[1]):
        return model
    if power_w is not None and not PLAUSIBLE_W[0] <= power_w <= PLAUSIBLE_W[1]:
        power_w = None
    if model is None:
        return _begin(t_s, temperature_c, power_w)
    dt_s = t_s - model.t_s
    if not dt_s > 0.0:
        return model
    if power_w is not None and model.power_w is None:
        model = _sighted(model, power_w)
    if dt_s > GAP_S:
        return _resumed(model, t_s, temperature_c, power_w)
    far_c = abs(temperature_c - now_c(model))
    if far_c > OUTLIER_C and far_c > _credible_c(model, dt_s, power_w):
        if model.odd_c is None or abs(model.odd_c - temperature_c) > AGAIN_C:
            return msgspec.structs.replace(model, odd_c=temperature_c)
        return _resumed(model, t_s, temperature_c, power_w)
    return _step(model, t_s, temperature_c, power_w)


def now_c(zone: Zone) -> float:
    """The temperature at the last sample, freed of noise and of the sensor's steps."""
    best = zone.filters[zone.best]
    return best.body_c + best.die_kw * zone.die_w


def predict_c(zone: Zone, power_w: float | None, horizon_s: float) -> float:
    """The temperature after `horizon_s` at a mean power of `power_w` from now on; None (or what is no power) = as it
    is."""
    best = zone.filters[zone.best]
    if not horizon_s > 0.0:
        return now_c(zone)
    power_w = _power_w(zone, power_w)
    body_c = best.body_c + (best.ambient_c + best.r_kw * power_w - best.body_c) * (1.0 - exp(-horizon_s / best.tau_s))
    return body_c + best.die_kw * (power_w + (zone.die_w - power_w) * exp(-horizon_s / DIE_S))


def rise_c(zone: Zone, delta_w: float, horizon_s: float) -> float:
    """By how much it will be hotter after `horizon_s` (not negative) than it would have been, when the power changes by
    `delta_w` now. Negative for less power."""
    best = zone.filters[zone.best]
    body_kw = best.r_kw * (1.0 - exp(-horizon_s / best.tau_s))
    return delta_w * (body_kw + best.die_kw * (1.0 - exp(-horizon_s / DIE_S)))


def doubt(zone: Zone) -> float:
    """The standard deviation of R, as a share of it: 1 at first, little once the power has changed."""
    best = zone.filters[zone.best]
    return sqrt(max(best.rr, 0.0)) / best.r_kw if best.r_kw > 0.0 else 1.0


def time_to_s(zone: Zone, limit_c: float, power_w: float | None = None) -> float | None:
    """Seconds until the zone is at `limit_c` at that power (None = as it is); 0 when it is there already, None when it
    settles below. To the nearest second or so: the die is taken to have followed the power."""
    if now_c(zone) >= limit_c:
        return 0.0
    best = zone.filters[zone.best]
    power_w = _power_w(zone, power_w)
    from_c = best.body_c + best.die_kw * power_w
    settled_c = best.ambient_c + (best.r_kw + best.die_kw) * power_w
    if from_c >= limit_c:
        return DIE_S
    if not settled_c > limit_c:
        return None
    return best.tau_s * log((settled_c - from_c) / (settled_c - limit_c))


def sd_c(zone: Zone, horizon_s: float) -> float:
    """The standard deviation of what `predict_c` says: the filter's covariance and process noise, stretched by how much
    worse its last predictions turned out than it held possible."""
    best = zone.filters[zone.best]
    return sqrt(zone.stretch * variance_c2(best, _power_w(zone, None), zone.die_w, horizon_s, zone.blind))


def crossing_confidence(zone: Zone, limit_c: float, horizon_s: float, power_w: float | None = None) -> float:
    """The probability, 0 to 1, that the zone is at `limit_c` or above now or after `horizon_s`, at that power."""
    now = _above(now_c(zone) - limit_c, sd_c(zone, 0.0))
    return max(now, _above(predict_c(zone, power_w, horizon_s) - limit_c, sd_c(zone, horizon_s)))


def _above(margin_c: float, deviation_c: float) -> float:
    if not deviation_c > 0.0:
        return 1.0 if margin_c >= 0.0 else 0.0
    return 0.5 * erfc(-margin_c / (deviation_c * sqrt(2.0)))


def _power_w(zone: Zone, power_w: float | None) -> float:
    if zone.power_w is None:
        return 0.0  # never known: what it heats is part of the ambient
    return zone.power_w if power_w is None or not isfinite(power_w) else power_w


def _credible_c(zone: Zone, dt_s: float, power_w: float | None) -> float:
    """How far from the last temperature a sample may be."""
    best = zone.filters[zone.best]
    u = _power_w(zone, power_w)
    drive_c = abs(best.ambient_c + best.r_kw * u - best.body_c) * (1.0 - exp(-dt_s / best.tau_s))
    sigma_c = sqrt(max(best.tt, 0.0) + NOISE_C2 + DRAW_C2 * dt_s)
    die_kw = max(best.die_kw, 2.0 * DIE_SHARE * zone.prior_kw)  # not learnt yet, it may be large
    return OUTLIER_SIGMA * sigma_c + 2.0 * (drive_c + die_kw * abs(u - zone.die_w))


def _step(model: Zone, t_s: float, temperature_c: float, power_w: float | None) -> Zone:
    dt_s = t_s - model.t_s
    blind = power_w is None
    smooth_w = model.power_w
    if power_w is not None and smooth_w is not None:
        smooth_w += (power_w - smooth_w) * (1.0 - exp(-dt_s / SMOOTH_S))
    u = power_w if power_w is not None else model.power_w or 0.0
    w = model.die_w + (u - model.die_w) * (1.0 - exp(-dt_s / DIE_S))
    due = t_s >= model.due_s
    share: float | None = None
    if due:  # the first check is of what was thought before anything was learnt: it counts for nothing
        share = max(1.0 / (model.checks + 1.0), CHECK_SHARE) if model.checks else 0.0
    after = Zone(
        t_s=t_s,
        samples=model.samples + 1,
        best=model.best,
        filters=stepped(model.filters, dt_s, temperature_c, u, w, blind=blind, prior=model.prior_kw, check_share=share),
        prior_kw=model.prior_kw,
        die_w=w,
        due_s=model.due_s,
        promised_c2=model.promised_c2,
        power_w=smooth_w,
        blind=blind,
        checks=model.checks,
        stretch=model.stretch,
    )
    return after if share is None else _checked(after, model.filters[model.best].error_c2, share, u)


def _checked(zone: Zone, was_c2: float, share: float, u: float) -> Zone:
    """With the best filter chosen anew, and the next check set. `was_c2` was the best one's mean square error."""
    errors_c2 = [f.error_c2 for f in zone.filters]
    stretch, best = zone.stretch, zone.best
    if share > 0.0:
        missed_c2 = max((errors_c2[best] - was_c2) / share + was_c2, 0.0)
        stretch += CHECK_SHARE * (min(missed_c2 / zone.promised_c2, MOST_STRETCH) - stretch)
        least_c2 = min(e for f, e in zip(zone.filters, errors_c2, strict=True) if f.tau_s <= _proven_s(zone.checks))
        if least_c2 < PREFERRED * errors_c2[best]:
            best = errors_c2.index(least_c2)
    return msgspec.structs.replace(
        zone,
        best=best,
        due_s=zone.t_s + AHEAD_S,
        promised_c2=_promised_c2(zone.filters[best], u, zone.die_w, zone.blind),
        checks=zone.checks + 1,
        stretch=max(stretch, LEAST_STRETCH),
    )


def _proven_s(checks: int) -> float:
    """The longest time constant that may speak: within a small part of its own, a slow body with any E and R at all
    looks like a fast one, and says nothing of where heating ends."""
    return max(TAUS_S[FIRST], SEEN * AHEAD_S * checks)


def _promised_c2(f: Filter, u: float, w: float, blind: bool) -> float:
    return variance_c2(f, u, w, AHEAD_S, blind) + NOISE_C2


def _begin(t_s: float, temperature_c: float, power_w: float | None) -> Zone:
    u = power_w or 0.0
    filters = first(temperature_c, power_w)
    return Zone(
        t_s=t_s,
        samples=1,
        best=FIRST,
        filters=filters,
        prior_kw=filters[FIRST].r_kw,
        die_w=u,
        due_s=t_s + AHEAD_S,
        promised_c2=_promised_c2(filters[FIRST], u, u, power_w is None),
        power_w=power_w,
        blind=power_w is None,
    )


def _sighted(model: Zone, power_w: float) -> Zone:
    """The first power that is known: what it heats was part of the ambient until now."""
    fresh = _begin(model.t_s, now_c(model), power_w)
    return msgspec.structs.replace(fresh, samples=model.samples, odd_c=model.odd_c)


def _resumed(model: Zone, t_s: float, temperature_c: float, power_w: float | None) -> Zone:
    u, blind = _power_w(model, power_w), power_w is None
    filters = resumed(model.filters, t_s - model.t_s, temperature_c, u, blind=blind)
    return msgspec.structs.replace(
        model,
        t_s=t_s,
        samples=model.samples + 1,
        filters=filters,
        die_w=u,
        due_s=t_s + AHEAD_S,
        promised_c2=_promised_c2(filters[model.best], u, u, blind),
        power_w=model.power_w if power_w is None else power_w,
        blind=blind,
        odd_c=None,
    )
