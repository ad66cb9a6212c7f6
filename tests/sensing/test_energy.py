"""Energy against the analytic integral; gaps are void; shares by busy time."""

import logging
import math
import random
from collections.abc import Callable, Sequence

import msgspec
import pytest
from fake_sensors import reading
from hypothesis import given
from hypothesis import strategies as st
from power_signals import SIGNALS, Signal

from flyball.ports import Quantity, Reading, Scope
from flyball.sensing.energy import EnergyMeter, Shares
from flyball.sensing.integral import PowerIntegral

BIG, SMALL = ("imagenet", "big"), ("imagenet", "small")


def sampled(power_w: Callable[[float], float], end_s: float, period_s: float) -> PowerIntegral:
    integral = PowerIntegral(max(3 * period_s, 0.5))
    for i in range(round(end_s / period_s) + 1):
        integral.add(i * period_s, power_w(i * period_s))
    return integral


@pytest.mark.parametrize(
    ("power_w", "joules"),
    [
        (lambda t: 7.5, 7.5 * 60),
        (lambda t: 2 + 0.1 * t, 2 * 60 + 0.05 * 60**2),
        (lambda t: 5 + 3 * math.sin(2 * math.pi * t / 20), 5 * 60),
        (lambda t: 5 + 3 * math.sin(2 * math.pi * t / 24), 5 * 60 + 3 * 24 / math.pi),  # two and a half turns
    ],
    ids=["constant", "ramp", "sine", "half-sine"],
)
def test_energy_at_1_hz_is_within_half_a_percent_of_the_integral(
    power_w: Callable[[float], float], joules: float
) -> None:
    integral = sampled(power_w, 60, 1.0)
    assert integral.joules == pytest.approx(joules, rel=0.005)
    assert integral.covered_s == pytest.approx(60)


@pytest.mark.parametrize("step_s", [20.0, 20.03, 29.97, 33.337])
def test_a_step_is_within_half_a_percent_at_10_hz(step_s: float) -> None:
    integral = sampled(lambda t: 2.5 if t < step_s else 9.25, 60, 0.1)
    assert integral.joules == pytest.approx(2.5 * step_s + 9.25 * (60 - step_s), rel=0.005)


@given(st.floats(0, 59), st.floats(0, 59), st.floats(0.05, 2))
def test_window_ends_are_interpolated(a: float, b: float, period_s: float) -> None:
    start_s, end_s = min(a, b), max(a, b)
    integral = sampled(lambda t: 2 + 0.1 * t, 62, period_s)
    joules, covered_s = integral.between(start_s, end_s)
    assert joules == pytest.approx(2 * (end_s - start_s) + 0.05 * (end_s**2 - start_s**2), abs=1e-6)
    assert covered_s == pytest.approx(end_s - start_s, abs=1e-6)


def test_a_gap_is_void_and_told_by_the_coverage() -> None:
    integral = PowerIntegral(3.0)
    for t_s in (0, 1, 2, 3, 13, 14, 17):  # 10 s of silence; 3 s are just not too long
        integral.add(float(t_s), 5.0)
    assert (integral.joules, integral.covered_s) == (35.0, 7.0)
    assert integral.between(3.0, 13.0) == (0.0, 0.0)
    assert integral.between(2.5, 13.5) == (5.0, 1.0)
    assert integral.between(16.0, 30.0) == (5.0, 1.0)
    assert integral.between(-5.0, 0.5) == (2.5, 0.5)


def test_a_clock_that_jumps_adds_nothing() -> None:
    integral = PowerIntegral(3.0)
    for t_s in (100.0, 101.0, 90.0, 91.0, 1e9, 1e9 + 1, 1e9 + 1):
        integral.add(t_s, 4.0)
    assert (integral.joules, integral.covered_s) == (12.0, 3.0)
    assert integral.between(1e9, 1e9 + 1) == (4.0, 1.0)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            integral.add(2e9, bad)
        with pytest.raises(ValueError, match="finite"):
            integral.add(bad, 1.0)


@given(st.lists(st.tuples(st.floats(-10, 20), st.floats(0, 3000)), max_size=60))
def test_energy_never_falls_and_never_exceeds_peak_power_over_the_covered_time(
    steps: list[tuple[float, float]],
) -> None:
    integral, t_s, before = PowerIntegral(3.0), 0.0, (0.0, 0.0)
    for step_s, power_w in steps:
        t_s += step_s
        integral.add(t_s, power_w)
        assert integral.joules >= before[0]
        assert integral.covered_s >= before[1]
        before = (integral.joules, integral.covered_s)
    assert integral.joules <= 3000 * integral.covered_s * (1 + 1e-9)


def test_forgetting_changes_no_total_and_no_later_answer() -> None:
    integral = sampled(lambda t: 2 + 0.1 * t, 60, 1.0)
    joules, late = integral.joules, integral.between(50.25, 55.75)
    integral.forget(50.25)
    assert (integral.joules, integral.between(50.25, 55.75)) == (joules, late)


def test_shares_are_by_busy_time_and_idle_periods_are_charged_to_nobody() -> None:
    shares = Shares()
    shares.add(10.0, 1.0, {BIG: 0.6, SMALL: 0.2}, {BIG: 3, SMALL: 2})
    shares.add(99.0, 1.0, {BIG: 0.0}, {})
    shares.add(99.0, 1.0, {}, {})
    assert shares.joules_per_answer(BIG) == pytest.approx(2.5)
    assert shares.joules_per_answer(SMALL) == pytest.approx(1.25)
    assert shares.joules_per_answer(("other", "x")) is None


def test_work_without_answers_is_charged_to_the_answers_that_come() -> None:
    shares = Shares()
    shares.add(10.0, 1.0, {BIG: 1.0}, {})
    assert shares.joules_per_answer(BIG) is None
    shares.add(10.0, 1.0, {BIG: 1.0, SMALL: -5.0}, {BIG: 4})
    assert shares.joules_per_answer(BIG) == 5.0


class Source:
    """A sampler of one total whose power is a function of time."""

    def __init__(self, power_w: Callable[[float], float] = lambda t: 8.0) -> None:
        self.power_w = power_w
        self.kept: dict[str, list[tuple[float, float]]] = {}
        self.now: list[Reading] = []

    def sample(self, t_s: float, name: str = "VDD_IN", scope: Scope = "module") -> None:
        self.kept.setdefault(name, []).append((t_s, self.power_w(t_s)))
        fresh = reading(self.power_w(t_s), t_s=t_s, name=name, quantity="power", scope=scope, sensor="hwmon")
        self.now = [r for r in self.now if r.name != name] + [fresh]

    def latest(self) -> Sequence[Reading]:
        return self.now

    def period_s(self, sensor: str) -> float:
        return 1.0

    def samples(self, quantity: Quantity, name: str, since_s: float) -> Sequence[tuple[float, float]]:
        assert quantity == "power"
        return [(t, v) for t, v in self.kept.get(name, []) if t >= since_s]


def test_the_meter_gives_joules_and_joules_per_inference() -> None:
    source = Source()
    meter = EnergyMeter(source)
    assert meter.energy() is None
    for t in range(31):
        source.sample(float(t))
        meter.account(t + 0.4, {BIG: 0.5}, {BIG: 4})  # between samples, as in the daemon
    energy = meter.energy()
    assert energy is not None
    assert (energy.joules, energy.covered_s, energy.scope, energy.source) == (240.0, 30.0, "module", "hwmon: VDD_IN")
    assert meter.joules_per_inference(*BIG) == pytest.approx(2.0)
    assert meter.joules_per_inference(*SMALL) is None


def test_the_uncertainty_is_that_of_the_power_and_not_of_a_voltage_of_the_same_name() -> None:
    source = Source()
    volts = msgspec.structs.replace(
        reading(5.0, t_s=0.0, name="VDD_IN", scope="rail"), quantity="voltage", unit="V", uncertainty=0.5
    )
    meter = EnergyMeter(source)
    for t in range(3):
        source.sample(float(t))
        source.now = [volts, *(msgspec.structs.replace(r, uncertainty=0.02) for r in source.now if r is not volts)]
        meter.account(float(t), {}, {})
    energy = meter.energy()
    assert energy is not None
    assert energy.uncertainty == 0.02


def test_the_meter_follows_the_rung_that_is_active() -> None:
    source = Source(lambda t: 9.0 if t <= 20 else 3.0)
    meter = EnergyMeter(source)
    for t in range(42):
        source.sample(float(t))
        key = BIG if t <= 20 else SMALL
        meter.account(float(t), {key: 0.9}, {key: 3})
    assert meter.joules_per_inference(*BIG) == pytest.approx(3.0)
    assert meter.joules_per_inference(*SMALL) == pytest.approx(1.0, rel=0.06)  # the trapezoid of the step


def test_what_idling_takes_is_subtracted_once_it_was_seen() -> None:
    source = Source(lambda t: 3.0 if t < 20 else 9.0)
    meter = EnergyMeter(source)
    for t in range(20, 31):
        source.sample(float(t))
        meter.account(float(t), {BIG: 0.9}, {BIG: 3})
    assert meter.joules_per_inference(*BIG) == pytest.approx(3.0)
    assert (meter.idle_w(), meter.net_joules_per_inference(*BIG)) == (None, None)
    meter = EnergyMeter(source)
    for t in range(60):
        source.sample(float(t))
        worked = {BIG: 0.9} if t > 20 else {}
        meter.account(float(t), worked, {BIG: 3} if worked else {})
    assert meter.idle_w() == pytest.approx(3.15)  # 20 periods of rest, the last with half of the edge in it
    assert meter.net_joules_per_inference(*BIG) == pytest.approx((9 - 3.15) / 3, rel=0.01)
    assert meter.joules_per_inference(*BIG) == pytest.approx(3.0)


def test_work_that_takes_no_more_than_idling_has_no_net_figure() -> None:
    source = Source(lambda t: 5.0 if t < 20 else 4.0)
    meter = EnergyMeter(source)
    for t in range(60):
        source.sample(float(t))
        meter.account(float(t), {BIG: 0.9} if t > 20 else {}, {BIG: 3} if t > 20 else {})
    assert meter.net_joules_per_inference(*BIG) is None


def test_answers_of_a_gap_do_not_make_inference_look_cheap() -> None:
    source = Source()
    meter = EnergyMeter(source)
    for t in range(60):
        if not 20 <= t < 40:
            source.sample(float(t))
        meter.account(float(t), {BIG: 1.0}, {BIG: 4})
    energy = meter.energy()
    assert energy is not None
    assert energy.covered_s == 38.0  # 0-19 and 40-59
    assert meter.joules_per_inference(*BIG) == pytest.approx(2.0)


def test_a_period_that_is_half_covered_says_nothing_of_inference() -> None:
    source = Source(lambda t: 80.0 if 10 <= t < 20 else 8.0)
    meter = EnergyMeter(source)
    for t in (*range(10), 16, 17, 18, 26, *range(27, 40)):  # 80 W are seen for 2 s of a period of 16
        source.sample(float(t))
        if not 10 <= t < 26:
            meter.account(float(t), {BIG: 1.0}, {BIG: 4})
    assert meter.joules_per_inference(*BIG) == pytest.approx(2.0)


def test_a_measured_total_replaces_the_estimate_and_never_the_other_way(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    meter = EnergyMeter(source)
    for t in range(10):
        source.sample(float(t), "estimated", "estimated")
        meter.account(float(t), {BIG: 1.0}, {BIG: 1})
    assert meter.energy() is not None
    assert meter.energy().scope == "estimated"  # type: ignore[union-attr]
    with caplog.at_level(logging.INFO):
        for t in range(10, 15):
            source.sample(float(t))
            meter.account(float(t), {BIG: 1.0}, {BIG: 8})
    measured = meter.energy()
    assert measured is not None
    assert (measured.scope, measured.joules, measured.covered_s) == ("module", 32.0, 4.0)
    assert meter.joules_per_inference(*BIG) == pytest.approx(1.0)
    source.now = [r for r in source.now if r.scope == "estimated"]  # the measurement is lost
    for t in range(15, 25):
        source.sample(float(t), "estimated", "estimated")
        meter.account(float(t), {BIG: 1.0}, {BIG: 8})
    assert meter.energy() == measured
    assert caplog.text.count("counted anew") == 1


def test_without_a_total_there_is_no_energy_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    meter = EnergyMeter(source)
    with caplog.at_level(logging.INFO):
        for t in range(30):
            source.sample(float(t), "VDD_CPU", "rail")
            meter.account(float(t), {BIG: 1.0}, {BIG: 1})
    assert meter.energy() is None
    assert meter.joules_per_inference(*BIG) is None
    assert caplog.text.count("no energy is counted") == 1
    assert "VDD_CPU (rail)" in caplog.text


def test_the_meter_stands_a_clock_that_jumps() -> None:
    source = Source()
    meter = EnergyMeter(source)
    for t in (*range(100, 110), *range(50, 60), *range(10**6, 10**6 + 10)):
        source.kept = {}
        source.sample(float(t))
        meter.account(float(t), {BIG: 1.0}, {BIG: 4})
    assert meter.joules_per_inference(*BIG) == pytest.approx(2.0)
    energy = meter.energy()
    assert energy is not None
    assert energy.joules == pytest.approx(8.0 * energy.covered_s)


@pytest.mark.parametrize("hertz", [10.0, 20.0])
@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
def test_the_energy_of_known_signals_is_right_to_half_a_percent(signal: Signal, hertz: float) -> None:
    """60 s between two ends that lie on no sample, sampled with jitter."""
    jitter = random.Random(7)
    integral = PowerIntegral(0.5)
    for n in range(int(62 * hertz)):
        t_s = (n + jitter.uniform(-0.2, 0.2)) / hertz
        integral.add(t_s, signal.power_w(t_s))
    joules, covered_s = integral.between(0.7123, 60.7123)
    assert covered_s == pytest.approx(60.0)
    assert joules == pytest.approx(signal.energy_j(0.7123, 60.7123), rel=0.005)


def test_a_gap_leaves_out_its_energy_and_its_time() -> None:
    integral = PowerIntegral(0.5)
    for n in range(100):
        if not 30 <= n < 50:
            integral.add(n / 10, 7.0)
    joules, covered_s = integral.between(0.0, 9.9)
    assert covered_s == pytest.approx(9.9 - 2.1)
    assert joules / covered_s == pytest.approx(7.0)


def test_time_in_which_a_rung_is_opened_is_no_idling() -> None:
    source = Source(lambda t: 9.0 if t < 20 else 3.0)
    meter = EnergyMeter(source)
    for t in range(40):
        source.sample(float(t))
        meter.account(float(t), {}, {}, at_rest=t > 21)
    assert meter.idle_w() == pytest.approx(3.0)


def test_an_inference_longer_than_a_period_pays_for_all_of_it() -> None:
    """Busy from its beginning on, answered once: 3.5 s at 10 W, then 1.5 s of rest at 3 W."""
    source = Source(lambda t: 10.0 if t % 5 < 3.5 else 3.0)
    meter = EnergyMeter(source)
    for tenth in range(2000):
        t = tenth / 10
        source.sample(t)
        if tenth % 10 == 0 and t > 0:
            began, ended = (t - 1) % 5, (t - 1) % 5 + 1
            meter.account(t, {BIG: max(0.0, min(3.5, ended) - began)}, {BIG: int(began < 3.5 <= ended)})
    assert meter.joules_per_inference(*BIG) == pytest.approx(36.5, rel=0.1)
    assert meter.idle_w() == pytest.approx(3.0, abs=0.4)  # the edge lies between two samples


def test_a_restless_second_at_the_start_does_not_stay_the_idle_power() -> None:
    """What was seen so far counts alike until it is a minute; then the last minute does."""
    source = Source(lambda t: 9.0 if t < 1.5 else 3.0 if t < 100 else 5.0)
    meter = EnergyMeter(source)
    seen: dict[int, float | None] = {}
    for t in range(401):
        source.sample(float(t))
        meter.account(float(t), {}, {})
        seen[t] = meter.idle_w()
    assert seen[1] == pytest.approx(9.0)
    assert seen[21] == pytest.approx((9 + 6 + 19 * 3) / 21)
    assert seen[400] == pytest.approx(5.0, abs=0.05)
