"""A bank of Kalman filters of how one thermal zone heats up, one filter for each time constant.

first(temperature, power) -> filters -> stepped(filters, sample) -> filters; variance_c2(filter, horizon)

tau dT/dt = E + R * P - T for the body, T + D * W for what its sensor reads, with W the power as the die feels it, a few
seconds later. E is a random walk; R and D are neither negative. The covariance of [T, E, R, D] is written out in plain
floats: it is the hot part of a look at the zones. Never chooses among the filters: flyball.governor.thermal does.
"""

from __future__ import annotations

from math import exp

import msgspec

TAUS_S = (12.0, 22.0, 40.0, 75.0, 140.0, 260.0, 480.0, 900.0)
DIE_S = 3.0  # the die follows the power within some seconds, whatever it is mounted on
NOISE_C2 = 0.1  # sensors step by 0.1 to 1 C, a twelfth of whose square is the variance, and wobble by some tenths
# Priors.
SETTLES_C = 20.0  # above its surroundings, at the power that the machine takes; R is as uncertain as it is large
SETTLED_C = 10.0  # standard deviation: how far from settled it may be at the first sample
UNKNOWN_KW = 3.0  # R before any power was known: a Jetson has about 2, a bare Raspberry Pi about 10
RANGE_KW = (0.02, 20.0)
# Process noise, as variances per second.
DRAW_C2 = 0.002  # of T: heat beside the measured power, and the zone's second pole
AMBIENT_C2 = 0.0005  # of E: 0.2 C in a minute, 1.3 C in an hour
BLIND_C2 = 0.09  # of E while the power is not known: what the load does shows up there
DRIFT_R = 1e-6  # of R, as a share of its prior squared: 6 % in an hour, for fans and dust
DIE_SHARE = 0.25  # of R: the prior standard deviation of D
LONGEST_S = 86_400.0  # nothing grows less sure beyond a day
LARGEST_C2 = 1e4  # of E after a silence, however long


class Filter(msgspec.Struct, frozen=True, gc=False):
    """One time constant. State: T of the body, E, R and D; `tt` to `dd` are its covariance. `ahead_c` is the
    body of a prediction with the E, R and D of when it was made, carried along with the power that came since;
    `error_c2` the mean square error of such predictions, old ones forgotten."""

    tau_s: float
    body_c: float
    ambient_c: float
    r_kw: float
    die_kw: float
    tt: float
    te: float
    tr: float
    td: float
    ee: float
    er: float
    ed: float
    rr: float
    rd: float
    dd: float
    ahead_c: float
    ahead_ambient_c: float
    ahead_r_kw: float
    ahead_die_kw: float
    error_c2: float


def first(temperature_c: float, power_w: float | None) -> tuple[Filter, ...]:
    """Settled at its power, more or less: then E is known as well as R is, and against it."""
    u = power_w or 0.0
    r_kw = prior_kw(power_w)
    rr, dd = r_kw**2, (DIE_SHARE * r_kw) ** 2
    one = Filter(
        tau_s=TAUS_S[0],
        body_c=temperature_c,
        ambient_c=temperature_c - r_kw * u,
        r_kw=r_kw,
        die_kw=0.0,
        tt=NOISE_C2 + u * u * dd,
        te=u * u * dd,
        tr=0.0,
        td=-u * dd,
        ee=SETTLED_C**2 + u * u * (rr + dd),
        er=-u * rr,
        ed=-u * dd,
        rr=rr,
        rd=0.0,
        dd=dd,
        ahead_c=temperature_c,
        ahead_ambient_c=temperature_c - r_kw * u,
        ahead_r_kw=r_kw,
        ahead_die_kw=0.0,
        error_c2=0.0,
    )
    return tuple(msgspec.structs.replace(one, tau_s=tau_s) for tau_s in TAUS_S)


def prior_kw(power_w: float | None) -> float:
    """R of a zone of which nothing is known but its power now."""
    if power_w is None:
        return UNKNOWN_KW
    return min(max(SETTLES_C / max(power_w, 0.1), RANGE_KW[0]), RANGE_KW[1])


def stepped(
    filters: tuple[Filter, ...],
    dt_s: float,
    temperature_c: float,
    u: float,
    w: float,
    *,
    blind: bool,
    prior: float,
    check_share: float | None,
) -> tuple[Filter, ...]:
    """After `dt_s` at the power `u`, of which the die feels `w` at the end, when `temperature_c` is read. `blind`: the
    power is not known, `u` is what it was. `prior` is R's. With a `check_share` the predictions that run are
    compared with what is read, count by that share, and begin anew."""
    draw = DRAW_C2 * dt_s
    walk = (BLIND_C2 if blind else AMBIENT_C2) * dt_s
    drift = 0.0 if blind else DRIFT_R * prior * prior * dt_s
    after = []
    for f in filters:
        a = exp(-dt_s / f.tau_s)
        b = 1.0 - a
        g = b * u
        te, tr, td, ee, er, ed, rr, rd, dd = f.te, f.tr, f.td, f.ee, f.er, f.ed, f.rr, f.rd, f.dd
        ambient_c, r_kw, die_kw = f.ambient_c, f.r_kw, f.die_kw
        # Predict: T' = a T + b (E + R u); F P F' + Q, written out.
        body_c = a * f.body_c + b * (ambient_c + r_kw * u)
        row = a * f.tt + b * te + g * tr
        te = a * te + b * ee + g * er
        tr = a * tr + b * er + g * rr
        td = a * td + b * ed + g * rd
        tt = a * row + b * te + g * tr + draw
        ee += walk
        rr += drift
        dd += drift
        # Update with what is measured, T + D w.
        ht, he, hr, hd = tt + w * td, te + w * ed, tr + w * rd, td + w * dd
        s = ht + w * hd + NOISE_C2
        if s < NOISE_C2:  # rounding has cost the covariance its sign
            after.append(_doubted(f, prior))
            continue
        v = temperature_c - body_c - die_kw * w
        kt, ke = ht / s, he / s
        body_c += kt * v
        ambient_c += ke * v
        tt -= kt * ht
        te -= kt * he
        tr -= kt * hr
        td -= kt * hd
        ee -= ke * he
        er -= ke * hr
        ed -= ke * hd
        if not blind:  # without the power nothing is known of R and D: they are considered, not estimated (Schmidt)
            kr, kd = hr / s, hd / s
            r_kw += kr * v
            die_kw += kd * v
            rr -= kr * hr
            rd -= kr * hd
            dd -= kd * hd
            # Neither is negative. Projected along the covariance: what one gives up the others take over.
            if die_kw < 0.0:
                c = -die_kw / dd if dd > 0.0 else 0.0
                body_c, ambient_c, r_kw, die_kw = body_c + c * td, ambient_c + c * ed, r_kw + c * rd, 0.0
            if r_kw < 0.0:
                c = -r_kw / rr if rr > 0.0 else 0.0
                body_c, ambient_c, r_kw, die_kw = body_c + c * tr, ambient_c + c * er, 0.0, max(die_kw + c * rd, 0.0)
        ahead_c = a * f.ahead_c + b * (f.ahead_ambient_c + f.ahead_r_kw * u)
        ahead = (ahead_c, f.ahead_ambient_c, f.ahead_r_kw, f.ahead_die_kw, f.error_c2)
        if check_share is not None:
            missed_c = temperature_c - ahead_c - f.ahead_die_kw * w
            ahead = (body_c, ambient_c, r_kw, die_kw, f.error_c2 + check_share * (missed_c * missed_c - f.error_c2))
        after.append(Filter(f.tau_s, body_c, ambient_c, r_kw, die_kw, tt, te, tr, td, ee, er, ed, rr, rd, dd, *ahead))
    return tuple(after)


def resumed(
    filters: tuple[Filter, ...], dt_s: float, temperature_c: float, u: float, *, blind: bool
) -> tuple[Filter, ...]:
    """After a silence of `dt_s`, or a jump: T is what is read, E less sure than it was, R and D as they were."""
    doubt_c2 = (BLIND_C2 if blind else AMBIENT_C2) * dt_s + SETTLED_C**2
    return tuple(
        msgspec.structs.replace(
            f,
            body_c=temperature_c - f.die_kw * u,
            tt=NOISE_C2 + u * u * f.dd,
            te=-u * f.ed,
            tr=-u * f.rd,
            td=-u * f.dd,
            ee=min(f.ee + doubt_c2, LARGEST_C2),
            ahead_c=temperature_c - f.die_kw * u,
            ahead_ambient_c=f.ambient_c,
            ahead_r_kw=f.r_kw,
            ahead_die_kw=f.die_kw,
        )
        for f in filters
    )


def variance_c2(f: Filter, u: float, w: float, horizon_s: float, blind: bool) -> float:
    """Of the temperature after `horizon_s` at the power `u`, where the die feels `w` now."""
    h = min(horizon_s, LONGEST_S) if horizon_s > 0.0 else 0.0
    a = exp(-h / f.tau_s)
    b = 1.0 - a
    g = b * u
    d = u + (w - u) * exp(-h / DIE_S)
    squares = a * a * f.tt + b * b * f.ee + g * g * f.rr + d * d * f.dd
    products = a * (b * f.te + g * f.tr + d * f.td) + b * (g * f.er + d * f.ed) + g * d * f.rd
    draw = DRAW_C2 * f.tau_s / 2.0 * (1.0 - a * a)
    # What a random walk of E adds up to in T: the integral of (1 - exp(-s / tau))^2.
    walk = (BLIND_C2 if blind else AMBIENT_C2) * max(h - 2.0 * f.tau_s * b + f.tau_s / 2.0 * (1.0 - a * a), 0.0)
    return max(squares + 2.0 * products, 0.0) + draw + walk


def _doubted(f: Filter, prior_kw: float) -> Filter:
    rr = prior_kw**2
    tt, ee, dd = SETTLED_C**2, SETTLED_C**2, DIE_SHARE**2 * rr
    values = (f.body_c, f.ambient_c, f.r_kw, f.die_kw)
    return Filter(f.tau_s, *values, tt, 0.0, 0.0, 0.0, ee, 0.0, 0.0, rr, 0.0, dd, *values, f.error_c2)
