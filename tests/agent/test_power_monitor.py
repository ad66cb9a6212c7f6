"""PowerMonitor: right over a known signal, silent where nothing measures, and never a figure from too little."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

import flyball.energy
from flyball.config import Sensing
from flyball.energy import Blocks, PowerMonitor, merged, power_sensors, spread_of
from flyball.ports import Reading, Scope
from flyball.sensing.contract import Roots, Sensor, SensorFailed, Unavailable
from flyball.sensing.sampler import Sampler


class Supply:
    """4 W, and 20 W from `high_s` on, on the machine's own clock."""

    name = "supply"

    def __init__(self, scope: Scope = "board", uncertainty: float | None = 0.02) -> None:
        self.scope = scope
        self.uncertainty = uncertainty
        self.high_s = math.inf
        self.hang = threading.Event()

    def read(self, now_s: float) -> Sequence[Reading]:
        while self.hang.is_set():
            time.sleep(0.01)
        power_w = 20.0 if now_s >= self.high_s else 4.0
        return [
            Reading(
                quantity="power",
                name="input",
                value=power_w,
                unit="W",
                scope=self.scope,
                sensor=self.name,
                t_s=now_s,
                uncertainty=self.uncertainty,
            )
        ]


@pytest.fixture
def supply(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supply]:
    made = Supply()
    monkeypatch.setattr(flyball.energy, "discover", lambda roots, settings: [made])
    yield made
    made.hang.clear()


def test_a_step_is_measured_to_the_moment(supply: Supply) -> None:
    with PowerMonitor(0.02) as monitor:
        begun_s = time.monotonic()
        time.sleep(0.5)
        supply.high_s = time.monotonic()
        time.sleep(0.5)
        ended_s = time.monotonic()
    report = monitor.report()
    expected_j = 4 * (supply.high_s - begun_s) + 20 * (ended_s - supply.high_s)
    assert report.energy_j == pytest.approx(expected_j, rel=0.05)
    assert report.mean_w == pytest.approx(expected_j / (ended_s - begun_s), rel=0.05)
    assert (report.scope, report.source, report.why) == ("board", "supply: input", "")
    assert report.coverage > 0.95
    assert report.uncertainty is not None
    assert report.uncertainty > 0.2, "half of the time at 4 W and half at 20 W: the mean is not firm"
    assert (monitor.energy_j, monitor.scope) == (report.energy_j, "board")


def test_a_steady_supply_is_as_certain_as_its_sensor(supply: Supply) -> None:
    with PowerMonitor(0.02) as monitor:
        time.sleep(0.3)
    assert monitor.uncertainty == pytest.approx(0.02, abs=1e-6)
    assert monitor.mean_w == pytest.approx(4.0)


def test_an_unknown_uncertainty_stays_unknown(supply: Supply) -> None:
    supply.uncertainty = None
    with PowerMonitor(0.02) as monitor:
        time.sleep(0.2)
    assert (monitor.uncertainty, monitor.mean_w) == (None, pytest.approx(4.0))


def test_a_sensor_that_falls_silent_leaves_no_figure(supply: Supply) -> None:
    with PowerMonitor(0.02) as monitor:
        time.sleep(0.2)
        supply.hang.set()
        time.sleep(1.0)
    report = monitor.report()
    assert (report.energy_j, report.mean_w) == (None, None)
    assert "readings cover" in report.why


def test_a_moment_is_too_short(supply: Supply) -> None:
    with PowerMonitor(0.1) as monitor:
        pass
    assert monitor.energy_j is None
    assert "tell nothing" in monitor.report().why


def test_without_anything_that_measures_it_says_so(tmp_path: Path) -> None:
    roots = Roots(sys=tmp_path, proc=tmp_path, dev=tmp_path, etc=tmp_path, var=tmp_path)
    with PowerMonitor(0.02, roots=roots, settings=Sensing()) as monitor:
        time.sleep(0.05)
    report = monitor.report()
    assert (report.energy_j, report.scope, report.why) == (None, "", "nothing measures or estimates power here")


def test_on_this_machine_there_is_a_figure_with_a_scope() -> None:
    with PowerMonitor(0.05) as monitor:
        time.sleep(0.5)
    report = monitor.report()
    assert report.energy_j is not None
    assert report.energy_j > 0
    assert report.scope


def test_an_exception_inside_ends_the_measurement_and_goes_on(supply: Supply) -> None:
    monitor = PowerMonitor(0.02)
    with pytest.raises(KeyError), monitor:
        raise KeyError("work")
    assert [t.name for t in threading.enumerate() if t.name == "power-monitor"] == []
    with pytest.raises(RuntimeError, match="measures once"), monitor:
        pass


def test_asking_before_the_end_is_told(supply: Supply) -> None:
    with PowerMonitor(0.02) as monitor, pytest.raises(RuntimeError, match="not over"):
        monitor.report()


def test_only_sensors_with_power_are_read() -> None:
    class Other:
        def __init__(self, name: str, error: BaseException | None = None) -> None:
            self.name, self.error = name, error

        def read(self, now_s: float) -> Sequence[Reading]:
            if self.error is not None:
                raise self.error
            return ()

    class Partly(Supply):
        name = "partly"

        def read(self, now_s: float) -> Sequence[Reading]:
            raise SensorFailed("one rail of two", [msgspec.structs.replace(super().read(now_s)[0], name="rail")])

    class Hanging(Supply):
        name = "hanging"

    hanging = Hanging()
    hanging.hang.set()
    odd = [Other("zero", ZeroDivisionError()), Other("exit", SystemExit(3)), Other("none", Unavailable("x"))]
    sensors: list[Sensor] = [Supply(), Other("cpu"), hanging, *odd, Partly()]
    begun_s = time.monotonic()
    assert [s.name for s in power_sensors(sensors, flyball.energy.SystemClock())] == ["supply", "partly"]
    assert time.monotonic() - begun_s < 5
    hanging.hang.clear()


def test_blocks_are_merged_without_losing_a_joule() -> None:
    blocks = [(float(n), 1.0) for n in range(101)]
    few = merged(blocks, 10)
    assert len(few) <= 10
    assert sum(j for j, _ in few) == sum(j for j, _ in blocks)
    assert spread_of([(4.0, 1.0)] * 50, 4.0) == 0.0
    assert spread_of([(4.0, 1.0)], 4.0) is None, "one block tells no spread"
    assert spread_of([(4.0, 1.0), (5.0, 1.0)], 4.5) is None


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    chance = random.Random(3)
    for count in (3, 5, 10, 40):
        held = 0
        for _ in range(2000):
            blocks = [(chance.gauss(10.0, 2.0), 1.0) for _ in range(count)]
            mean_w = sum(j for j, _ in blocks) / count
            spread = spread_of(blocks, mean_w)
            assert spread is not None
            held += abs(mean_w - 10.0) <= spread * mean_w
        assert 0.92 < held / 2000 < 0.98, count


def test_the_blocks_of_a_long_run_are_of_equal_length() -> None:
    """A day of tenths of seconds, whose last five minutes take less: they must not count for half of it."""
    blocks = Blocks()
    for tenth in range(864_000):
        blocks.add((2.0 if tenth < 861_000 else 0.4), 0.1)
    assert len(blocks.kept) <= 4096
    assert math.fsum(s for _, s in blocks.kept) == pytest.approx(86_400)
    lengths_s = [s for _, s in blocks.kept[:-1]]
    assert max(lengths_s) <= 2.5 * min(lengths_s)
    joules = math.fsum(j for j, _ in blocks.kept)
    assert joules == pytest.approx(861_000 * 2.0 + 3_000 * 0.4)
    spread = spread_of(blocks.kept, joules / 86_400)
    assert spread is not None
    assert spread < 0.01


@pytest.mark.parametrize("period_s", [0.0, -1.0, math.nan, math.inf, 0.001])
def test_a_period_that_is_none_is_told(period_s: float) -> None:
    with pytest.raises(ValueError, match=r"period_s: expected 0\.01 to 3600 s"):
        PowerMonitor(period_s)


def test_no_sensor_is_read_by_two_threads_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    overlaps: list[float] = []

    class Slow(Supply):
        busy = False

        def read(self, now_s: float) -> Sequence[Reading]:
            if self.busy:
                overlaps.append(now_s)
            self.busy = True
            time.sleep(0.4)  # longer than the first look waits for it
            self.busy = False
            return super().read(now_s)

    monkeypatch.setattr(flyball.energy, "discover", lambda roots, settings: [Slow()])
    with PowerMonitor(0.02) as monitor:
        time.sleep(1.5)
    assert overlaps == []
    assert monitor.report().samples > 0


def test_an_interrupt_at_the_start_leaves_no_thread(supply: Supply) -> None:
    class Interrupted(PowerMonitor):
        def _first_total(self, sampler: Sampler) -> Reading | None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Interrupted(0.02):
        pass
    assert [t.name for t in threading.enumerate() if t.name == "sensor-supply"] == []


def test_a_counter_is_waited_for_longer_than_its_period(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counter(Supply):
        name = "counter"
        seen = False

        def read(self, now_s: float) -> Sequence[Reading]:
            seen, self.seen = self.seen, True  # a difference needs two reads
            return [msgspec.structs.replace(super().read(now_s)[0], name="package")] if seen else ()

    estimate = Supply("estimated")
    monkeypatch.setattr(flyball.energy, "discover", lambda roots, settings: [Counter(), estimate])
    monkeypatch.setattr(flyball.energy, "_FIRST_S", 0.0)
    with PowerMonitor(0.5) as monitor:
        pass
    assert monitor.report().source == "counter: package"
