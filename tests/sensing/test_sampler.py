"""The sampler: a sensor that blocks, fails or lies keeps back nothing but itself."""

import asyncio
import itertools
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from fake_sensors import ToldSensor, reading
from trees import put_hwmon, put_proc, put_zone, roots_in

from flyball.clock import SystemClock
from flyball.config import Sensing
from flyball.events import Event, Events
from flyball.ports import Reading, Readings, SensorHealth
from flyball.sensing.contract import Roots, Sensor, SensorFailed, Unavailable
from flyball.sensing.discovery import discover
from flyball.sensing.energy import EnergyMeter
from flyball.sensing.sampler import Sampler, next_tick_s
from flyball.sensing.sensors.thermal import ThermalSensor
from flyball.testing import FakeClock

PERIOD_S = 0.02


class Rig:
    """A sampler with a list of what it published."""

    def __init__(self, sensors: Sequence[Sensor], clock: FakeClock | None = None) -> None:
        self.heard: list[Event] = []
        events = Events()
        events.subscribe(self.heard.append)
        self.sampler = Sampler(sensors, PERIOD_S, 60.0, clock or SystemClock(), events)

    def health(self, sensor: str) -> SensorHealth:
        return {h.sensor: h for h in self.sampler.health()}[sensor]


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def build(*sensors: Sensor, clock: FakeClock | None = None) -> Rig:
        rigs.append(Rig(sensors, clock))
        rigs[-1].sampler.start()
        return rigs[-1]

    yield build
    for each in rigs:
        each.sampler.stop()


def until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.002)


def test_readings_windows_and_health_are_there(rig: Callable[..., Rig]) -> None:
    sensor = ToldSensor(lambda now_s: [reading(40.0, t_s=now_s, name="cpu"), reading(50.0, t_s=now_s, name="gpu")])
    the = rig(sensor)
    sensor.wait_for_reads(4)
    sampler: Readings = the.sampler
    assert {(r.name, r.value) for r in sampler.latest()} == {("cpu", 40.0), ("gpu", 50.0)}
    named, hottest = sampler.window("temperature", 5.0, "cpu"), sampler.window("temperature", 5.0)
    assert named is not None
    assert hottest is not None
    assert (named.maximum, hottest.maximum) == (40.0, 50.0)
    assert sampler.window("temperature", 5.0, "other") is None
    assert sampler.window("power", 5.0) is None
    health = the.health("told")
    assert (health.state, health.reason, health.failures) == ("ok", "", 0)
    assert health.reads >= 3
    assert health.cost_s is not None
    assert sensor.threads == {"sensor-told"}
    assert the.heard == []


def test_before_the_first_read_there_is_nothing_and_no_zero() -> None:
    sampler = Sampler([ToldSensor(lambda now_s: [])], 1.0, 60.0, FakeClock(), Events())
    assert list(sampler.latest()) == []
    assert sampler.window("temperature", 60.0) is None
    (health,) = sampler.health()
    assert (health.state, health.cost_s, health.reads) == ("unavailable", None, 0)


def test_a_quantity_of_several_names_has_to_be_named(rig: Callable[..., Rig]) -> None:
    sensor = ToldSensor(lambda now_s: [reading(1e9, t_s=now_s, name=n, quantity="frequency") for n in ("cpu", "gpu")])
    the = rig(sensor)
    sensor.wait_for_reads(2)
    assert the.sampler.window("frequency", 5.0) is None
    assert the.sampler.window("frequency", 5.0, "gpu") is not None


def test_a_window_of_power_is_that_of_the_total(rig: Callable[..., Rig]) -> None:
    def answer(now_s: float) -> list[object]:
        scopes = (("VDD_CPU", "rail", 2.0), ("VDD_IN", "module", 9.0), ("estimated", "estimated", 5.0))
        return [reading(w, t_s=now_s, name=n, quantity="power", scope=s) for n, s, w in scopes]  # type: ignore[arg-type]

    sensor = ToldSensor(answer)
    the = rig(sensor)
    sensor.wait_for_reads(2)
    stats = the.sampler.window("power", 5.0)
    assert stats is not None
    assert stats.maximum == 9.0
    assert {r.name for r in the.sampler.latest()} == {"VDD_CPU", "VDD_IN"}


def test_each_sensor_has_its_own_period_and_none_is_asked_too_often() -> None:
    quick, slow, guarded = (ToldSensor(lambda now_s: [], name) for name in ("quick", "slow", "guarded"))
    guarded.fastest_s = 0.2  # type: ignore[attr-defined]
    periods = {"quick": 0.02, "slow": 3600.0, "guarded": 0.01}
    sampler = Sampler([quick, slow, guarded], 1.0, 60.0, SystemClock(), Events(), periods=periods)
    sampler.start()
    try:
        quick.wait_for_reads(40)
        assert slow.reads == 1
        assert 1 <= guarded.reads <= quick.reads / 4
        assert [sampler.period_s(name) for name in ("quick", "slow", "guarded")] == [0.02, 3600.0, 0.2]
    finally:
        sampler.stop()


def test_a_period_of_a_sensor_that_is_not_there_is_told(caplog: pytest.LogCaptureFixture) -> None:
    sensors = [ToldSensor(lambda now_s: [], "thermal"), ToldSensor(lambda now_s: [], "hwmon")]
    Sampler(sensors, 1.0, 60.0, FakeClock(), Events(), periods={"hwmonn": 5.0, "hwmon": 2.0})
    assert [r.getMessage() for r in caplog.records] == [
        "sensing.periods.hwmonn: no sensor has this name; there are thermal, hwmon"
    ]


def test_a_slow_sensor_stays_fresh_for_three_of_its_own_periods() -> None:
    clock = FakeClock()
    slow = ToldSensor(lambda now_s: [reading(t_s=now_s, name="slow", sensor="slow")], "slow")
    sampler = Sampler([slow], 0.05, 600.0, clock, Events(), periods={"slow": 100.0})
    sampler.start()
    try:
        until(sampler.latest, "the first reading")
        sampler.stop()
        clock.advance(299)
        assert [r.name for r in sampler.latest()] == ["slow"]
        clock.advance(2)
        assert list(sampler.latest()) == []
    finally:
        sampler.stop()


@pytest.mark.parametrize("failing", [False, True], ids=["", "the first read after it fails"])
def test_power_over_a_suspension_between_two_reads_is_left_out(failing: bool) -> None:
    clock, fail = FakeClock(), threading.Event()

    def answer(now_s: float) -> list[object]:
        clock.advance(1.0)
        if fail.is_set():
            fail.clear()
            raise SensorFailed("the bus is not awake yet")
        return [reading(5.0, t_s=now_s, quantity="power", scope="machine"), reading(40.0, t_s=now_s, name="zone")]

    sampler = Sampler([ToldSensor(answer)], 0.3, 600.0, clock, Events())
    sampler.start()
    try:
        until(lambda: sampler.health()[0].reads == 2, "two whole reads")
        clock.suspend(3600)  # and the counter goes on
        if failing:
            fail.set()
        until(lambda: sampler.health()[0].reads >= 6, "reads after it")
    finally:
        sampler.stop()
    assert sampler.health()[0].failures == failing
    assert len(sampler.samples("temperature", "zone", 0.0)) - len(sampler.samples("power", "x", 0.0)) == 1


def test_power_over_a_suspension_in_a_read_is_left_out() -> None:
    clock = FakeClock()
    asked = threading.Event()

    def answer(now_s: float) -> list[object]:
        if asked.is_set():  # nobody knows whether the counter was read before it or after
            clock.suspend(3600)
            asked.clear()
        clock.advance(1.0)
        return [reading(5.0, t_s=now_s, quantity="power", scope="machine"), reading(40.0, t_s=now_s, name="zone")]

    told = ToldSensor(answer)
    sampler = Sampler([told], 0.01, 600.0, clock, Events())
    sampler.start()
    try:
        told.wait_for_reads(3)
        asked.set()
        until(lambda: not asked.is_set(), "the sleep")
        told.wait_for_reads(told.reads + 3)
    finally:
        sampler.stop()
    power = sampler.samples("power", "x", 0.0)
    assert len(sampler.samples("temperature", "zone", 0.0)) - len(power) == 2
    assert [round(b[0] - a[0]) for a, b in itertools.pairwise(power)].count(3) == 1, "two reads in a row are missing"


def test_the_reading_that_the_operator_names_is_the_machines() -> None:
    def answer(now_s: float) -> list[object]:
        return [reading(w, t_s=now_s, name=n, quantity="power", scope="rail") for n, w in (("input", 7.5), ("x", 2.0))]

    told = ToldSensor(answer)
    sampler = Sampler([told], PERIOD_S, 60.0, SystemClock(), Events(), total="input")
    sampler.start()
    try:
        told.wait_for_reads(2)
        assert {r.name: r.scope for r in sampler.latest()} == {"input": "machine", "x": "rail"}
        total = sampler.window("power", 5.0)
        assert total is not None
        assert total.maximum == 7.5
    finally:
        sampler.stop()


def test_a_read_that_blocks_delays_no_other_sensor(tmp_path: Path, rig: Callable[..., Rig]) -> None:
    put_zone(tmp_path, 0, "cpu-thermal", 48312)
    fifo = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    fifo.unlink()
    os.mkfifo(fifo)  # its open blocks until somebody writes
    stuck = ThermalSensor(roots_in(tmp_path), Sensing())
    other = ToldSensor(lambda now_s: [reading(t_s=now_s, name="other", sensor="other")], "other")
    the = rig(stuck, other)
    started_s = time.monotonic()
    other.wait_for_reads(20)
    assert time.monotonic() - started_s < 20 * PERIOD_S + 3  # a second core would need 0.4 s
    assert the.health("thermal").reads == 0
    assert [r.name for r in the.sampler.latest()] == ["other"]
    text = tmp_path / "text"
    text.write_text("48312\n")
    descriptor = os.open(fifo, os.O_RDWR)  # lets the open return; the read waits for the line
    os.write(descriptor, b"48312\n")
    until(lambda: the.health("thermal").reads == 1, "the read to come back")
    text.replace(fifo)
    os.write(descriptor, b"48312\n")  # for a read that had the FIFO open already
    until(lambda: the.health("thermal").reads >= 3, "the zone to be read again")
    os.close(descriptor)
    assert {r.name: r.value for r in the.sampler.latest()} == {"other": 1.0, "cpu-thermal": 48.312}


def test_a_read_that_hangs_goes_stale_and_is_told_once(rig: Callable[..., Rig]) -> None:
    clock, release = FakeClock(), threading.Event()
    hang = threading.Event()

    def answer(now_s: float) -> list[object]:
        if hang.is_set():
            release.wait(20)
        clock.advance(PERIOD_S)
        return [reading(t_s=now_s)]

    sensor = ToldSensor(answer)
    the = rig(sensor, clock=clock)
    sensor.wait_for_reads(3)
    hang.set()
    reads = sensor.reads
    sensor.wait_for_reads(reads + 1)
    clock.advance(4.5)
    assert the.health("told").state == "ok"
    clock.advance(1.5)
    assert the.health("told").state == "stale"
    assert list(the.sampler.latest()) == []
    until(lambda: the.heard, "the event")
    hang.clear()
    release.set()
    until(lambda: len(the.heard) == 2, "the sensor to be found")
    assert [(e.kind, e.detail["state"], e.severity) for e in the.heard] == [
        ("sensor_lost", "stale", "warning"),
        ("sensor_found", "ok", "info"),
    ]


def test_the_event_loop_is_not_held_up_and_hears_events_in_its_own_thread() -> None:
    threads: list[str] = []
    events, release = Events(), threading.Event()
    events.subscribe(lambda event: threads.append(threading.current_thread().name))

    def fail(now_s: float) -> list[object]:
        raise SensorFailed("EIO")

    def block(now_s: float) -> list[object]:
        release.wait(20)
        return []

    async def run() -> float:
        sampler = Sampler(
            [ToldSensor(block, "stuck"), ToldSensor(fail, "failing")], PERIOD_S, 60.0, SystemClock(), events
        )
        sampler.start()
        longest_s = 0.0
        try:
            while not threads:
                before_s = time.monotonic()
                await asyncio.sleep(0.001)
                sampler.latest()
                sampler.health()
                longest_s = max(longest_s, time.monotonic() - before_s)
        finally:
            release.set()
            sampler.stop()
        return longest_s

    assert asyncio.run(asyncio.wait_for(run(), 20)) < 1.0
    assert threads == ["MainThread"]


@pytest.mark.parametrize(
    ("raised", "state"),
    [
        (Unavailable("no such board"), "unavailable"),
        (SensorFailed("EIO at rail 1"), "failed"),
        (OSError(5, "Input/output error"), "failed"),
        (ZeroDivisionError("division by zero"), "failed"),
        (SystemExit(3), "failed"),
    ],
)
def test_whatever_a_sensor_raises_is_its_health_and_no_reading(
    raised: BaseException, state: str, rig: Callable[..., Rig]
) -> None:
    def answer(now_s: float) -> list[object]:
        raise raised

    other = ToldSensor(lambda now_s: [reading(t_s=now_s, name="other", sensor="other")], "other")
    the = rig(ToldSensor(answer), other)
    until(lambda: the.health("told").reads, "a read")
    other.wait_for_reads(3)
    health = the.health("told")
    assert health.state == state
    assert str(raised).split(" at ")[0] in health.reason
    assert [r.name for r in the.sampler.latest()] == ["other"]
    assert [e.kind for e in the.heard] == ([] if state == "unavailable" else ["sensor_lost"])


@pytest.mark.parametrize(
    "answer",
    [
        [reading(math.nan, t_s=0.0)],
        [reading(t_s=math.inf)],
        [reading(t_s=0.0, name=["x"])],  # type: ignore[arg-type]
        [reading(t_s=0.0, quantity="mood")],  # type: ignore[arg-type]
        [reading(t_s=0.0, quantity=[])],  # type: ignore[arg-type]
        [None],
        ["x"],
        None,
        3,
    ],
)
def test_an_answer_that_is_no_measurement_is_a_failure(answer: object, rig: Callable[..., Rig]) -> None:
    the = rig(ToldSensor(lambda now_s: answer))
    until(lambda: the.health("told").failures, "a failure")
    assert the.health("told").state == "failed"
    assert the.health("told").reason
    assert list(the.sampler.latest()) == []
    assert the.sampler.window("temperature", 60.0) is None


def test_a_nan_beside_a_good_reading_is_dropped_and_counted(rig: Callable[..., Rig]) -> None:
    sensor = ToldSensor(lambda now_s: [reading(math.nan, t_s=now_s, name="bad"), reading(t_s=now_s, name="good")])
    the = rig(sensor)
    sensor.wait_for_reads(4)
    assert [r.name for r in the.sampler.latest()] == ["good"]
    health = the.health("told")
    assert (health.state, health.failures) == ("ok", health.reads)
    assert health.reason == "temperature of bad: expected a finite value, found nan"


def test_a_failure_is_logged_and_told_once_and_so_is_the_return(
    rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    broken = threading.Event()

    def answer(now_s: float) -> list[object]:
        if broken.is_set():
            raise SensorFailed("EIO")
        return [reading(t_s=now_s)]

    sensor = ToldSensor(answer)
    with caplog.at_level(logging.INFO, "flyball.sensing"):
        the = rig(sensor)
        sensor.wait_for_reads(3)
        broken.set()
        reads = sensor.reads
        sensor.wait_for_reads(reads + 4)
        assert list(the.sampler.latest()) == []  # its last reading is young, but the sensor has failed
        assert the.sampler.window("temperature", 60.0) is not None  # what was measured stays measured
        broken.clear()
        until(lambda: len(the.heard) == 2, "the sensor to be found")
    assert [e.kind for e in the.heard] == ["sensor_lost", "sensor_found"]
    assert the.heard[0].detail == {"sensor": "told", "state": "failed", "reason": "EIO"}
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]


def test_a_board_that_loses_its_monitor_mid_run(tmp_path: Path) -> None:
    """From files to events: hwmon vanishes and comes back under another number."""
    put_proc(tmp_path)
    files = {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": 4984, "curr1_input": 1856}
    folder = put_hwmon(tmp_path, 1, files)
    sensors = discover(roots_in(tmp_path), Sensing())
    the = Rig(sensors)
    the.sampler.start()
    try:
        until(lambda: the.sampler.window("power", 60.0), "a total")
        shutil.rmtree(folder)
        (tmp_path / "sys/class/hwmon/hwmon1").unlink()
        until(lambda: the.heard, "the loss")
        assert the.sampler.window("power", 60.0) is None
        put_hwmon(tmp_path, 3, files)
        until(lambda: len(the.heard) == 2, "the return")
        stats = the.sampler.window("power", 60.0)
        assert stats is not None
        assert stats.minimum == pytest.approx(9.250304)
    finally:
        the.sampler.stop()
    assert [(e.kind, e.detail["sensor"]) for e in the.heard] == [("sensor_lost", "hwmon"), ("sensor_found", "hwmon")]


def test_the_meter_reads_the_sampler(rig: Callable[..., Rig]) -> None:
    sensor = ToldSensor(lambda now_s: [reading(6.0, t_s=now_s, name="VDD_IN", quantity="power", scope="module")])
    the = rig(sensor)
    meter = EnergyMeter(the.sampler)
    clock = SystemClock()

    def measured() -> bool:
        meter.account(clock.monotonic_s(), {("a", "b"): 0.01}, {("a", "b"): 1})
        energy = meter.energy()
        return energy is not None and energy.covered_s > 0.2 and meter.joules_per_inference("a", "b") is not None

    until(measured, "energy")
    energy = meter.energy()
    assert energy is not None
    assert energy.joules == pytest.approx(6.0 * energy.covered_s)


def test_stop_ends_the_threads_and_leaves_a_hanging_one_behind() -> None:
    release = threading.Event()

    def block(now_s: float) -> list[object]:
        release.wait(20)
        return []

    stuck = ToldSensor(block, "stuck")
    fine = ToldSensor(lambda now_s: [], "fine")
    the = Rig([stuck, fine])
    the.sampler.start()
    with pytest.raises(RuntimeError, match="started already"):
        the.sampler.start()
    stuck.wait_for_reads(1)
    started_s = time.monotonic()
    the.sampler.stop(0.3)
    assert time.monotonic() - started_s < 3
    alive = {thread.name for thread in threading.enumerate()}
    assert "sensor-stuck" in alive
    assert not {"sensor-fine", "sensor-watch"} & alive
    release.set()
    until(lambda: "sensor-stuck" not in {t.name for t in threading.enumerate()}, "the thread to end")


def test_all_sensors_wake_at_the_same_multiples_of_the_period() -> None:
    assert [next_tick_s(t, 0.5) for t in (10.0, 10.01, 10.4999999, 10.49)] == [10.5, 10.5, 11.0, 10.5]
    assert next_tick_s(10.2 + 60.0, 1.0) == 71.0
    assert [next_tick_s(t, 1.0, 0.25) for t in (10.0, 10.2499999, 10.25, 10.3)] == [10.25, 11.25, 11.25, 11.25]


def test_a_sensor_with_a_phase_is_read_later_than_the_others(rig: Callable[..., Rig]) -> None:
    period_s = 10 * PERIOD_S
    reads_s: list[float] = []

    class Later(ToldSensor):
        fastest_s = period_s
        phase = 0.5

    def answer(now_s: float) -> Sequence[Reading]:
        reads_s.append(now_s)
        return ()

    sensor = Later(answer)
    rig(sensor)
    sensor.wait_for_reads(5)
    after_s = [(t_s - sensor.phase * period_s) % period_s for t_s in reads_s[1:]]
    assert min(after_s) < sensor.phase * period_s, "at least one of them came before the others' next tick"


def test_the_whole_sampler_costs_far_less_than_half_a_percent_of_a_core() -> None:
    """The sensors of this machine, driven by hand as often as 200 s at 1 Hz would; the threads add wake-ups only."""
    sensors = discover(Roots(), Sensing())
    process = psutil.Process()

    def cpu_s() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before_s = cpu_s()
    for now_s in range(200):
        for sensor in sensors:
            try:
                sensor.read(float(now_s))
            except (Unavailable, SensorFailed):
                continue
    assert (cpu_s() - before_s) / 200 < 0.005


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_whatever_a_plug_in_raises_its_thread_goes_on(error: BaseException, rig: Callable[..., Rig]) -> None:
    raised = []

    def answer(now_s: float) -> list[object]:
        if not raised:
            raised.append(error)
            raise error
        return [reading(t_s=now_s)]

    sensor = ToldSensor(answer)
    the = rig(sensor)
    sensor.wait_for_reads(5)
    until(lambda: the.health("told").state == "ok", "the next read")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Halved(SensorFailed):
    def __init__(self) -> None:
        """Without what the class above it sets."""


@pytest.mark.parametrize("error", [Mute(), Halved()], ids=["mute", "halved"])
def test_an_error_that_cannot_be_told_ends_no_thread(error: BaseException, rig: Callable[..., Rig]) -> None:
    def answer(now_s: float) -> list[object]:
        raise error

    the = rig(ToldSensor(answer))
    until(lambda: the.health("told").failures >= 3, "the third failure")
    assert the.health("told").state == "failed"


@pytest.mark.parametrize("what", ["fastest_s", "phase"])
@pytest.mark.parametrize(
    "value", [None, "1", math.nan, math.inf, -1.0, 10**400], ids=["none", "text", "nan", "inf", "negative", "huge"]
)
def test_a_plug_in_that_says_nonsense_of_itself_is_read_nonetheless(
    what: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    sensor = ToldSensor(lambda now_s: [reading(t_s=now_s)])
    setattr(sensor, what, value)
    sampler = Sampler([sensor], PERIOD_S, 60.0, SystemClock(), Events())
    sampler.start()
    try:
        sensor.wait_for_reads(4)
    finally:
        sampler.stop()
    assert f"expected {what} of 0 to" in caplog.text
