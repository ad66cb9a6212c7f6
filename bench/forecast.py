"""How early and how rightly a leak of memory is foretold, and how far off the thermal model is.

    python bench/forecast.py [--quick] [--json]

Memory: 200 seeded series of up to four hours, sampled at 1 or 0.1 Hz. Half of them leak: steadily, the reserve reached
25 to 180 minutes after a start at a random time, most with a sawtooth or batch jobs on top, every seventh stopping by
itself at 25 to 75 % of the way. The others do not: sawtooth, steps, slow waves, start-up growth that levels off, most
with a sawtooth or batch jobs on top. The parameters were tuned on seeds 0 to 199; these are seeds 1000 to 1199.
A warning is right when the reserve is reached within twice the time that it says. precision: the share of warnings
that are; of a leak that stops later they are all counted wrong (wrong_on_<kind> are the numbers). lead_min: the median
time from a right warning to the reserve. recall: the share of leaks that reach it of which a right warning came at
least 15 minutes before (a leak shorter than that does not count). inside_pct: of right and wrong warnings of leaks that
reach it, how often the reserve was reached between `earliest_s` and `latest_s` (80 is meant).

Heat: simulated zones (a body of 20 to 900 s, half of them with a die that runs ahead of it) under loads that change
every 20 to 200 s, power with noise, sensors that step by 0.1 or 1 C. After ten minutes of learning, the prediction for
60 s at a power not seen before is compared with what the plant does: thermal_error_c is the mean error,
thermal_p95_c the 95th percentile, thermal_600s_error_c the mean error of ten minutes ahead.
The *_us are the costs of one call; of observe_memory_us the mean, most of it spent once in 30 s, when a span is closed.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from _rig import arguments, ended, percentile, show
from numpy.typing import NDArray

from flyball.governor.memory import Trend, exhaustion
from flyball.governor.memory import observe as observe_memory
from flyball.governor.thermal import Zone, predict_c, rise_c
from flyball.governor.thermal import observe as observe_heat
from flyball.governor.warnings import Expected, Horizons, Limits, State, warn

HORIZON_S = 4 * 3600
LOOK_S = 30.0  # between two looks at the forecast
IN_TIME_S = 900.0
FIRST_SEED = 1000
MIB = 1 << 20
RESERVE = 64.0 * MIB
KINDS = ("sawtooth", "sawtooth", "steps", "wave", "start-up")
STOPS = 7  # every seventh leak stops by itself

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`period_s` between samples of available bytes; `reached_s`: when the reserve was reached, None = never."""

    seed: int
    kind: str
    period_s: float
    available: Floats
    leak_s: float | None
    reached_s: float | None


def series(seed: int) -> Series:
    """Even seeds leak."""
    rng = np.random.default_rng(seed)
    period_s = float(rng.choice([1.0, 10.0]))
    count = int(HORIZON_S / period_s)
    t: Floats = np.arange(count, dtype=np.float64) * period_s
    room = float(rng.choice([1, 2, 4, 8])) * 1024 * MIB * rng.uniform(0.3, 0.8)
    leaking = seed % 2 == 0
    used = _noise(rng, count, period_s) * rng.uniform(0.002, 0.01)
    leak_s = None
    if leaking:
        kind = "leak that stops" if seed % (2 * STOPS) == 0 else "leak"
        used += _cycles(rng, t, 0.15)
        leak_s = rng.uniform(600, 3600)
        lasts_s = rng.uniform(25, 180) * 60
        leak = np.clip((t - leak_s) / lasts_s, 0, None)
        if kind == "leak that stops":
            leak = np.minimum(leak, rng.uniform(0.25, 0.75))
        used += leak
    else:
        kind = str(rng.choice(KINDS))
        used += _cycles(rng, t, 0.3 if kind == "sawtooth" else 0.15)
        if kind == "steps":
            for at_s in rng.uniform(0, HORIZON_S, rng.integers(2, 9)):
                over_s = rng.uniform(1, 60)
                used += rng.uniform(-0.1, 0.2) * np.clip((t - at_s) / over_s, 0, 1)
        elif kind == "wave":
            wave_s = rng.uniform(3, 24) * 3600
            used += rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * (t / wave_s + rng.uniform()))
        elif kind == "start-up":
            used += rng.uniform(0.2, 0.6) * (1 - np.exp(-(t - rng.uniform(0, 60)).clip(0) / rng.uniform(120, 1200)))
    used -= used[0] - rng.uniform(0, 0.1)
    if not leaking and used.max() > 0.9:  # it stays clear of the reserve
        used *= 0.9 / used.max()
    available = np.maximum(RESERVE + room * (1 - used), 0.0)
    below = np.flatnonzero(available <= RESERVE)
    reached_s = float(t[below[0]]) if below.size else None
    end = below[0] + 1 if below.size else count
    return Series(
        seed=seed, kind=kind, period_s=period_s, available=available[:end], leak_s=leak_s, reached_s=reached_s
    )


def _noise(rng: np.random.Generator, count: int, period_s: float) -> Floats:
    """White noise, and as much that wanders within minutes."""
    white = rng.normal(size=count)
    keep = np.exp(-period_s / 120)
    steps = rng.normal(size=count) * np.sqrt(1 - keep * keep)
    wander = np.empty(count)
    value = 0.0
    for i, step in enumerate(steps.tolist()):
        value = keep * value + step
        wander[i] = value
    return white + wander


def _cycles(rng: np.random.Generator, t: Floats, largest: float) -> Floats:
    """A garbage collector's sawtooth (each tooth of its own length and height), batch jobs, both or neither."""
    used = np.zeros_like(t)
    what = rng.integers(0, 8)
    if what >= 2:
        used += _teeth(rng, t, rng.uniform(20, 720), rng.uniform(0.02, largest))
    if what in (1, 7):
        every_s, lasts_s, height = rng.uniform(600, 1800), rng.uniform(60, 360), rng.uniform(0.05, largest)
        at_s = rng.uniform(0, every_s)
        while at_s < t[-1]:
            inside = (t >= at_s) & (t < at_s + lasts_s * rng.uniform(0.8, 1.2))
            used[inside] += height * rng.uniform(0.8, 1.2)
            at_s += every_s * rng.uniform(0.8, 1.2)
    return used


def _teeth(rng: np.random.Generator, t: Floats, length_s: float, height: float) -> Floats:
    edges = np.cumsum(length_s * rng.uniform(0.8, 1.2, int(t[-1] / length_s / 0.8) + 3)) - length_s * rng.uniform()
    heights = height * rng.uniform(0.8, 1.2, edges.size)
    tooth = np.searchsorted(edges, t, side="right")
    begins = np.concatenate(([edges[0] - length_s], edges))[tooth]
    ends = np.append(edges, edges[-1] + length_s)[tooth]
    risen: Floats = np.append(heights, height)[tooth] * (t - begins) / (ends - begins)
    return risen


def warnings_of(given: Series) -> list[Expected]:
    trend: Trend | None = None
    state, limits, horizons = State(), Limits(reserve_bytes=RESERVE), Horizons()
    begun = []
    due_s = 0.0
    for i, available in enumerate(given.available.tolist()):
        t_s = i * given.period_s
        trend = observe_memory(trend, t_s, available)
        if t_s >= due_s:
            due_s = t_s + LOOK_S
            state, told = warn(state, t_s, {}, trend, limits, horizons)
            begun += [warning.expected for warning in told if not warning.ended]
    return begun


def scores(judged: Iterable[tuple[Series, Sequence[Expected]]]) -> dict[str, float]:
    """Of each series, and the warnings that began in it."""
    leads_s: list[float] = []
    wrong: Counter[str] = Counter()
    leaks = found = inside = foretold = 0
    for given, expected in judged:
        right = []
        for e in expected:
            assert e.in_s is not None and e.earliest_s is not None and e.latest_s is not None  # noqa: PT018
            if given.reached_s is not None:
                foretold += 1
                inside += e.earliest_s <= given.reached_s - e.t_s <= e.latest_s
            if given.reached_s is not None and given.reached_s - e.t_s <= 2 * e.in_s:
                right.append(given.reached_s - e.t_s)
            else:
                wrong[given.kind] += 1
        leads_s += right
        if given.reached_s is not None and given.leak_s is not None and given.reached_s - given.leak_s > IN_TIME_S:
            leaks += 1
            found += max(right, default=0.0) >= IN_TIME_S
    return {
        "lead_min": round(statistics.median(leads_s or [0.0]) / 60, 2),
        "precision": round(len(leads_s) / max(len(leads_s) + wrong.total(), 1), 4),
        "recall": round(found / max(leaks, 1), 4),
        "right": len(leads_s),
        "wrong": wrong.total(),
        "leaks": leaks,
        "found": found,
        "inside_pct": round(100 * inside / max(foretold, 1), 1),
        **{f"wrong_on_{kind.replace(' ', '_')}": count for kind, count in sorted(wrong.items())},
    }


@dataclass(slots=True)
class Plant:
    """A body with a heat sink, and a die on it. K/W and seconds."""

    tau_s: float
    r_kw: float
    die_kw: float
    ambient_c: float
    body_c: float
    die_c: float = 0.0

    def step(self, power_w: float, dt_s: float = 1.0) -> float:
        self.body_c += (self.ambient_c + self.r_kw * power_w - self.body_c) * (1 - exp(-dt_s / self.tau_s))
        self.die_c += (self.die_kw * power_w - self.die_c) * (1 - exp(-dt_s / 2.0))
        return self.body_c + self.die_c

    def after(self, power_w: float, horizon_s: int) -> float:
        copy = Plant(self.tau_s, self.r_kw, self.die_kw, self.ambient_c, self.body_c, self.die_c)
        for _ in range(horizon_s - 1):
            copy.step(power_w)
        return copy.step(power_w)


def thermal_errors(seed: int, seconds: int) -> tuple[list[float], list[float]]:
    chance = random.Random(seed)
    scale_w = chance.choice([1.0, 3.0, 10.0])
    tau_s = 20.0 * 45.0 ** chance.random()
    r_kw = chance.uniform(1.5, 4.0) * 4.0 / scale_w
    die_kw = 0.3 * r_kw * chance.random() if seed % 2 else 0.0
    quantum_c = chance.choice([0.1, 1.0])
    plant = Plant(tau_s, r_kw, die_kw, 25.0, 25.0 + r_kw * scale_w)
    zone: Zone | None = None
    near, far = [], []
    power_w, until_s = scale_w, 0.0
    for second in range(seconds):
        if second >= until_s:
            power_w, until_s = scale_w * chance.uniform(1.0, 4.0) / 2.0, second + chance.uniform(20, 200)
        read_c = round((plant.step(power_w) + chance.gauss(0, 0.2)) / quantum_c) * quantum_c
        zone = observe_heat(zone, float(second), read_c, max(power_w + chance.gauss(0, 0.05 * scale_w), 0.0))
        if zone is not None and second >= 600 and second % 31 == 0:
            other_w = scale_w * chance.uniform(1.0, 4.0) / 2.0
            near.append(abs(predict_c(zone, other_w, 60.0) - plant.after(other_w, 60)))
            far.append(abs(predict_c(zone, other_w, 600.0) - plant.after(other_w, 600)))
    return near, far


def measure_heat(seeds: Iterable[int], seconds: int) -> dict[str, float]:
    near, far = [], []
    for seed in seeds:
        errors, later = thermal_errors(seed, seconds)
        near += errors
        far += later
    return {
        "thermal_error_c": round(statistics.mean(near), 3),
        "thermal_p95_c": round(percentile(near, 0.95), 3),
        "thermal_600s_error_c": round(statistics.mean(far), 3),
    }


def cost_us(call: Callable[[int], object], calls: int) -> float:
    """The median of nine blocks."""
    blocks = []
    for block in range(9):
        began = time.perf_counter()
        for i in range(calls):
            call(block * calls + i)
        blocks.append((time.perf_counter() - began) / calls * 1e6)
    return round(statistics.median(blocks), 3)


def measure_costs() -> dict[str, float]:
    zone = observe_heat(None, 0.0, 45.0, 5.0)
    trend = observe_memory(None, 0.0, 1000.0 * MIB)
    for i in range(1, 15_000):
        trend = observe_memory(trend, float(i), (1000.0 - i * 0.05 + i % 60) * MIB)
        zone = observe_heat(zone, float(i), 45.0 + i % 7, 5.0 + i % 3) if i < 1000 else zone
    assert zone is not None and trend is not None  # noqa: PT018
    last_zone, last_trend = zone, trend

    def heat(i: int) -> None:
        nonlocal zone
        zone = observe_heat(zone, 1000.0 + i, 45.0 + i % 7, 5.0 + i % 3)

    def memory(i: int) -> None:
        nonlocal trend
        trend = observe_memory(trend, 15_000.0 + i, (1000.0 + i % 60) * MIB)

    return {
        "observe_heat_us": cost_us(heat, 2000),
        "rise_us": cost_us(lambda _: rise_c(last_zone, 2.0, 60.0), 20_000),
        "observe_memory_us": cost_us(memory, 2000),
        "exhaustion_us": cost_us(lambda _: exhaustion(last_trend, RESERVE), 100),
    }


def main() -> int:
    options = arguments(__doc__, "80 series and 8 zones instead of 200 and 24").parse_args()
    made = (series(seed) for seed in range(FIRST_SEED, FIRST_SEED + (80 if options.quick else 200)))
    memory = scores((given, warnings_of(given)) for given in made)
    heat = measure_heat(range(FIRST_SEED, FIRST_SEED + (8 if options.quick else 24)), 3600)
    show({**memory, **heat, **measure_costs()}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
