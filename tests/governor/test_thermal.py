"""The thermal model finds out what a plant is like, and nothing that comes in harms it."""

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.governor.thermal import (
    Zone,
    crossing_confidence,
    now_c,
    observe,
    predict_c,
    rise_c,
    sd_c,
    time_to_s,
)


@dataclass
class Plant:
    """A body on a heat sink, with a die that is hotter within seconds. Exact over a step of constant power."""

    tau_s: float = 120.0
    r_kw: float = 4.0
    die_kw: float = 0.0
    ambient_c: float = 25.0
    body_c: float = 35.0
    die_c: float = 0.0

    def step(self, power_w: float, dt_s: float = 1.0) -> float:
        self.body_c += (self.ambient_c + self.r_kw * power_w - self.body_c) * -math.expm1(-dt_s / self.tau_s)
        self.die_c += (self.die_kw * power_w - self.die_c) * -math.expm1(-dt_s / 2.0)
        return self.body_c + self.die_c

    def after(self, power_w: float, horizon_s: float) -> float:
        return Plant(**vars(self)).step(power_w, horizon_s)


def loads(seed: int, low_w: float = 3.0, high_w: float = 9.0) -> Iterator[float]:
    """A new power every 20 to 200 seconds."""
    chance = random.Random(seed)
    while True:
        yield from itertools.repeat(chance.uniform(low_w, high_w), chance.randint(20, 200))


def learnt(
    plant: Plant, powers: Iterable[float], seconds: int = 1200, quantum_c: float = 0.1, seed: int = 1, dt_s: float = 1.0
) -> Zone:
    chance = random.Random(seed)
    zone: Zone | None = None
    for i, power_w in zip(range(int(seconds / dt_s)), powers, strict=False):
        read_c = plant.step(power_w, dt_s) + chance.gauss(0, 0.15)
        zone = observe(zone, i * dt_s, round(read_c / quantum_c) * quantum_c, power_w + chance.gauss(0, 0.1))
    assert zone is not None
    return zone


@pytest.mark.parametrize("quantum_c", [0.1, 1.0])
@pytest.mark.parametrize(
    ("tau_s", "r_kw", "die_kw"), [(25, 4, 0), (90, 5, 0.8), (200, 3, 1.5), (500, 2, 0), (900, 3, 1)]
)
def test_after_ten_minutes_a_minute_ahead_is_known_to_a_degree(
    tau_s: float, r_kw: float, die_kw: float, quantum_c: float
) -> None:
    errors = []
    for seed in range(12):
        plant = Plant(tau_s=tau_s, r_kw=r_kw, die_kw=die_kw)
        zone = learnt(plant, loads(seed), 700, quantum_c, seed)
        errors += [abs(predict_c(zone, power_w, 60.0) - plant.after(power_w, 60.0)) for power_w in (3.0, 6.0, 9.0)]
    assert sum(errors) / len(errors) <= 1.0
    assert sorted(errors)[-2] <= 3.0


def test_a_cold_start_is_not_taken_for_a_slow_body() -> None:
    plant, zone = Plant(tau_s=60.0, r_kw=10.0, ambient_c=25.0, body_c=30.0), None
    for second in range(240):  # the load goes down while the body still warms up, as a governor makes it
        power_w = 6.0 if second < 10 else 4.0 if second < 20 else 2.0
        zone = observe(zone, float(second), plant.step(power_w), power_w)
        assert zone is not None
        assert zone.filters[zone.best].tau_s <= max(140.0, 2.0 * second)
    assert zone is not None
    assert predict_c(zone, 2.0, 600.0) == pytest.approx(45.0, abs=1.0)
    assert predict_c(zone, 4.0, 600.0) == pytest.approx(65.0, abs=10.0)


def test_what_more_power_does_is_learnt_with_its_delay() -> None:
    plant = Plant(tau_s=140, r_kw=4.0, die_kw=1.0)
    zone = learnt(plant, loads(3), 2400)
    for horizon_s in (5.0, 60.0, 300.0):
        meant_c = plant.after(8.0, horizon_s) - plant.after(5.0, horizon_s)
        assert rise_c(zone, 3.0, horizon_s) == pytest.approx(meant_c, rel=0.15, abs=0.3)
    assert rise_c(zone, -3.0, 60.0) == -rise_c(zone, 3.0, 60.0)


def test_the_deviation_that_is_told_covers_the_errors() -> None:
    inside = total = 0
    for seed in range(12):
        plant = Plant(tau_s=random.Random(seed).uniform(30, 600), r_kw=4.0, die_kw=0.5)
        zone = learnt(plant, loads(seed), 1500, seed=seed)
        for power_w in (3.0, 6.0, 9.0):
            total += 1
            inside += abs(predict_c(zone, power_w, 60.0) - plant.after(power_w, 60.0)) <= 2 * sd_c(zone, 60.0)
    assert inside / total >= 0.8
    assert sd_c(zone, 600.0) > sd_c(zone, 60.0) > 0.0


def test_irregular_samples_teach_as_well() -> None:
    chance = random.Random(5)
    plant = Plant(tau_s=200, r_kw=4.0)
    zone, t_s, until_s, power_w = None, 0.0, 0.0, 5.0
    while t_s < 2400:
        dt_s = chance.choice([0.1, 0.5, 1.0, 7.0, 30.0])
        if t_s >= until_s:
            power_w, until_s = chance.uniform(3, 9), t_s + chance.uniform(40, 200)
        t_s += dt_s
        zone = observe(zone, t_s, plant.step(power_w, dt_s) + chance.gauss(0, 0.1), power_w)
    assert zone is not None
    assert predict_c(zone, 9.0, 60.0) == pytest.approx(plant.after(9.0, 60.0), abs=1.0)


def test_a_step_of_the_ambient_is_followed() -> None:
    plant = Plant(tau_s=60)
    powers = loads(2)
    zone: Zone | None = learnt(plant, powers, 1200)
    plant.ambient_c += 12.0
    for i, power_w in zip(range(1200, 2400), powers, strict=False):
        zone = observe(zone, float(i), plant.step(power_w), power_w)
    assert zone is not None
    assert predict_c(zone, 6.0, 60.0) == pytest.approx(plant.after(6.0, 60.0), abs=1.0)


def test_without_power_it_still_says_where_heating_ends() -> None:
    plant, zone = Plant(tau_s=120, r_kw=4.0, body_c=45.0), None
    for i in range(600):
        zone = observe(zone, float(i), plant.step(5.0), None)
    for i in range(600, 720):
        zone = observe(zone, float(i), plant.step(12.0), None)
    assert zone is not None
    assert zone.power_w is None
    now = now_c(zone)
    assert predict_c(zone, None, 60.0) > now + 3.0
    assert predict_c(zone, 50.0, 60.0) == predict_c(zone, None, 60.0)  # nothing is known of watts
    assert zone.filters[zone.best].r_kw == zone.prior_kw == 3.0


def test_power_that_is_lost_leaves_the_resistance_and_moves_the_ambient() -> None:
    plant = Plant(tau_s=120)
    powers = loads(4)
    zone: Zone | None = learnt(plant, powers, 1800)
    assert zone is not None
    before = [(f.r_kw, f.die_kw) for f in zone.filters]
    for i in range(1800, 2100):
        zone = observe(zone, float(i), plant.step(9.0), None)
    assert zone is not None
    assert zone.blind
    assert [(f.r_kw, f.die_kw) for f in zone.filters] == before
    assert predict_c(zone, None, 60.0) == pytest.approx(plant.after(9.0, 60.0), abs=1.5)
    zone = observe(zone, 2100.0, plant.step(9.0), 9.0)
    assert zone is not None
    assert not zone.blind


def test_power_that_comes_late_takes_over_its_share() -> None:
    plant, zone = Plant(tau_s=60), None
    powers = loads(6)
    for i in range(300):
        zone = observe(zone, float(i), plant.step(next(powers)), None)
    assert zone is not None
    before_c = now_c(zone)
    power_w = next(powers)
    zone = observe(zone, 300.0, plant.step(power_w), power_w)
    assert zone is not None
    assert now_c(zone) == pytest.approx(before_c, abs=1.0)
    for i in range(301, 1200):
        power_w = next(powers)
        zone = observe(zone, float(i), plant.step(power_w), power_w)
    assert zone is not None
    assert predict_c(zone, 9.0, 60.0) == pytest.approx(plant.after(9.0, 60.0), abs=1.0)


def test_a_gap_starts_the_temperature_anew_and_keeps_the_resistance() -> None:
    zone = learnt(Plant(), loads(1))
    after = observe(zone, zone.t_s + 3600.0, 71.0, 5.0)
    assert after is not None
    assert now_c(after) == pytest.approx(71.0)
    assert [f.r_kw for f in after.filters] == [f.r_kw for f in zone.filters]
    assert sd_c(after, 60.0) > sd_c(zone, 60.0)


def test_an_outlier_is_believed_when_it_is_repeated() -> None:
    zone = learnt(Plant(), loads(1))
    here_c = now_c(zone)
    once = observe(zone, zone.t_s + 1.0, here_c + 40.0, 5.0)
    assert once is not None
    assert now_c(once) == here_c
    back = observe(once, zone.t_s + 2.0, here_c, 5.0)
    assert back is not None
    assert back.odd_c is None
    assert now_c(back) == pytest.approx(here_c, abs=2.0)
    twice = observe(once, zone.t_s + 2.0, here_c + 41.0, 5.0)
    assert twice is not None
    assert now_c(twice) == pytest.approx(here_c + 41.0, abs=0.5)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -273.2, 1e9])
def test_what_is_no_temperature_changes_nothing(odd: float) -> None:
    assert observe(None, 0.0, odd, 5.0) is None
    zone = learnt(Plant(), loads(1), 60)
    assert observe(zone, zone.t_s + 1.0, odd, 5.0) is zone


@pytest.mark.parametrize("t_s", [math.nan, math.inf, -1.0, 0.0])
def test_what_is_no_later_time_changes_nothing(t_s: float) -> None:
    zone = observe(None, 0.0, 40.0, 5.0)
    assert observe(zone, t_s, 41.0, 5.0) is zone


@pytest.mark.parametrize("odd", [math.nan, math.inf, -1.0, 1e6])
def test_what_is_no_power_is_unknown(odd: float) -> None:
    zone = learnt(Plant(), loads(1), 60)
    assert observe(zone, zone.t_s + 1.0, 45.0, odd) == observe(zone, zone.t_s + 1.0, 45.0, None)


def test_the_time_to_a_limit_is_when_the_prediction_is_there() -> None:
    zone = learnt(Plant(tau_s=140, die_kw=0.5), loads(3), 2400)
    limit_c = (predict_c(zone, 12.0, math.inf) + now_c(zone)) / 2 + 2.0
    in_s = time_to_s(zone, limit_c, 12.0)
    assert in_s is not None
    assert in_s > 20.0
    assert predict_c(zone, 12.0, in_s) == pytest.approx(limit_c, abs=0.05)
    assert time_to_s(zone, now_c(zone) - 1.0) == 0.0
    assert time_to_s(zone, predict_c(zone, 12.0, math.inf) + 0.1, 12.0) is None


def test_confidence_goes_from_no_to_yes() -> None:
    zone = learnt(Plant(tau_s=60), loads(3), 1800)
    settled_c = predict_c(zone, 12.0, 300.0)
    assert crossing_confidence(zone, settled_c + 15.0, 300.0, 12.0) < 0.01
    assert crossing_confidence(zone, settled_c, 300.0, 12.0) == pytest.approx(0.5, abs=0.05)
    assert crossing_confidence(zone, settled_c - 15.0, 300.0, 12.0) > 0.99


def test_a_zone_is_written_down_and_read_back_to_the_same_numbers() -> None:
    zone = learnt(Plant(), loads(1), 300)
    again = msgspec.json.decode(msgspec.json.encode(zone), type=Zone)
    assert again == zone
    assert observe(again, 301.0, 44.0, 6.5) == observe(zone, 301.0, 44.0, 6.5)


def test_days_of_the_same_keep_it_sane() -> None:
    zone: Zone | None = None
    for i in range(20_000):
        zone = observe(zone, i * 10.0, 45.0, 5.0)
    assert zone is not None
    assert predict_c(zone, 5.0, 600.0) == pytest.approx(45.0, abs=0.1)
    assert all(min(f.tt, f.ee, f.rr, f.dd) > 0.0 for f in zone.filters)


samples = st.lists(
    st.tuples(
        st.one_of(st.floats(0.01, 60), st.floats(0.01, 60), st.floats(allow_nan=True)),
        st.one_of(st.floats(20, 100), st.floats(20, 100), st.floats(allow_nan=True)),
        st.one_of(st.none(), st.floats(0, 40), st.floats(allow_nan=True)),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(samples, st.floats(0, 100), st.floats(0, 100), st.floats(0, 1e5))
def test_whatever_comes_in_predictions_are_numbers_and_grow_with_power(
    given_samples: list[tuple[float, float, float | None]], one_w: float, other_w: float, horizon_s: float
) -> None:
    zone: Zone | None = None
    t_s = 0.0
    for dt_s, temperature_c, power_w in given_samples:
        t_s += dt_s if math.isfinite(dt_s) and abs(dt_s) < 1e6 else 1.0
        zone = observe(zone, t_s if math.isfinite(dt_s) else dt_s, temperature_c, power_w)
    if zone is None:
        return
    low_w, high_w = sorted((one_w, other_w))
    low_c, high_c = predict_c(zone, low_w, horizon_s), predict_c(zone, high_w, horizon_s)
    assert math.isfinite(low_c)
    assert low_c <= high_c + 1e-9
    assert rise_c(zone, high_w - low_w, horizon_s) >= 0.0
    assert predict_c(zone, high_w, 0.0) == predict_c(zone, None, 0.0) == now_c(zone)
    assert math.isfinite(predict_c(zone, None, horizon_s))
    assert math.isfinite(sd_c(zone, horizon_s))
    assert 0.0 <= crossing_confidence(zone, 85.0, horizon_s, one_w) <= 1.0
    in_s = time_to_s(zone, 85.0, one_w)
    assert in_s is None or 0.0 <= in_s < math.inf
