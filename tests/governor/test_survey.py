"""What the governor gets to see: rates, who else is at work, what was refused, and what nobody knows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from flyball import config
from flyball.config import Config
from flyball.governor.profile import Figures
from flyball.governor.state import LadderState, State
from flyball.governor.survey import Sources, Survey
from flyball.governor.values import LadderView, Machine, View
from flyball.ports import LadderTotals, RungStatus, SensorHealth
from flyball.testing import FakeClock, FakeLadder, FakeReadings

CONFIG = Config(governor=config.Governor(limits=config.Limits(latency_p95_ms=20)))


class World:
    def __init__(self, **sources: object) -> None:
        self.clock = FakeClock()
        self.readings = FakeReadings(self.clock)
        self.ladder = FakeLadder("x")
        self.ladders = [self.ladder]
        self.survey = Survey(Sources(readings=self.readings, clock=self.clock, cpus=2, **sources))  # type: ignore[arg-type]
        self.state = State(ladders={"x": LadderState(active="large", since_s=0.0)})

    def count(self, ladder: FakeLadder | None = None, **more: object) -> None:
        one = ladder or self.ladder
        one.counted = msgspec.structs.replace(one.counted, **more)

    def look(self, after_s: float = 1.0) -> View:
        self.clock.advance(after_s)
        return self.survey.look(self.ladders, CONFIG, self.state)

    def ladder_view(self, after_s: float = 1.0) -> LadderView:
        return self.look(after_s).ladders[0]


def test_arrivals_are_all_that_came_and_answers_those_that_were_given() -> None:
    world = World()
    assert world.ladder_view().seen.arrivals_per_s is None  # one look tells no rate
    world.count(success=30, failure={"REJECTED": 8, "BACKEND": 2})
    seen = world.ladder_view(2.0).seen
    assert seen.arrivals_per_s == 20.0
    assert seen.answers_per_s == 15.0
    assert world.ladder_view().seen.arrivals_per_s == 0.0


def test_counters_that_begin_anew_are_no_negative_rate() -> None:
    world = World()
    world.count(success=1000)
    world.look()
    world.count(success=5)
    assert world.ladder_view().seen.arrivals_per_s == 0.0


def test_what_was_refused_counts_as_late_for_the_whole_window() -> None:
    world = World()
    world.ladder.measure(0.010, count=40)
    world.look()
    world.count(failure={"REJECTED": 10})
    seen = world.ladder_view().seen
    assert (seen.late, seen.window_late) == (0.2, 0.2)
    assert seen.window_answers == 50
    seen = world.ladder_view().seen  # none in this period, and the window still holds the ten
    assert (seen.late, seen.window_late) == (0.0, 0.2)
    seen = world.ladder_view(10.0).seen
    assert (seen.late, seen.window_late) == (0.0, 0.0)


def test_where_all_are_refused_all_are_late() -> None:
    world = World()
    world.ladder.measure(None)
    world.look()
    world.count(failure={"REJECTED": 10})
    seen = world.ladder_view().seen
    assert (seen.late, seen.window_late, seen.window_answers) == (1.0, 1.0, 10)
    assert seen.work_mean_s is None


def test_other_failures_are_not_the_rungs_lateness() -> None:
    world = World()
    world.ladder.measure(0.010, count=40)
    world.look()
    world.count(failure={"OTHER": 10, "CANCELED": 10})
    assert world.ladder_view().seen.late == 0.0


def test_mistakes_of_callers_are_no_load() -> None:
    world = World()
    world.look()
    world.count(success=10, failure={"OTHER": 500})
    assert world.ladder_view().seen.arrivals_per_s == 10.0


def test_the_first_period_of_a_stay_is_not_looked_at() -> None:
    world = World()
    world.ladder.measure(0.030)
    world.state = State(ladders={"x": LadderState(active="large", since_s=world.clock.monotonic_s())})
    seen = world.ladder_view(0.9).seen
    assert (seen.late, seen.window_late, seen.answers, seen.p95_s) == (None, None, 0, None)
    seen = world.ladder_view(0.5).seen
    assert (seen.late, seen.answers) == (1.0, 50)
    world.ladder.active = "small"  # by itself: the state knows nothing of it yet
    assert world.ladder_view(5.0).seen.late is None


# ------------------------------------------------------------------------------------------------ contention


def busy(world: World, seconds: float, ladder: FakeLadder | None = None) -> None:
    world.count(ladder, busy_s_by_rung={"large": seconds})


def test_contention_is_what_others_run_per_processor() -> None:
    world = World()
    busy(world, 10.0)
    world.readings.put("runnable", 5.0)
    world.look()
    world.readings.put("runnable", 5.0)
    busy(world, 11.0)  # one task at work in that second was Flyball's own
    assert world.look().machine.contention == pytest.approx((5.0 - 1.0) / 2)


def test_contention_is_never_negative_and_unknown_without_a_reading() -> None:
    world = World()
    assert world.look().machine.contention is None
    world.readings.put("runnable", 0.0)
    busy(world, 5.0)
    assert world.look().machine.contention == 0.0


def test_a_ladder_that_was_not_looked_at_for_a_while_does_not_hide_what_others_run() -> None:
    world, other = World(), FakeLadder("y")
    world.ladders = [world.ladder, other]
    busy(world, 0.0)
    busy(world, 500.0, other)
    world.look()
    world.ladders = [world.ladder]  # the other one's rung is being changed
    world.readings.put("runnable", 4.0)
    world.look()
    world.ladders = [world.ladder, other]
    world.readings.put("runnable", 4.0)
    busy(world, 501.0, other)
    assert world.look().machine.contention == pytest.approx((4.0 - 0.5) / 2)  # 1 s of work in 2 s


def test_what_a_ladder_answers_while_its_rung_is_changed_is_no_contention(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, other = World(), FakeLadder("y")
    for seconds in (10.0, 11.0):
        busy(world, seconds)
        busy(world, 2.0 * seconds, other)
        world.clock.advance(1.0)
        world.readings.put("runnable", 5.0)
        view = world.survey.look([world.ladder], CONFIG, world.state, [other])
    assert [seen.name for seen in view.ladders] == ["x"]
    assert view.machine.contention == pytest.approx((5.0 - 1.0 - 2.0) / 2)
    monkeypatch.setattr(other, "totals", None)
    for _ in range(2):
        assert world.survey.look([world.ladder], CONFIG, world.state, [other]).machine.contention is not None
    assert caplog.text.count("no decision could be made for the ladder y") == 1


def test_runnable_is_averaged_over_two_seconds() -> None:
    world = World()
    for tasks in (0.0, 0.0, 8.0):
        world.clock.advance(1.0)
        world.readings.put("runnable", tasks)
    assert world.survey.look(world.ladders, CONFIG, world.state).machine.contention == pytest.approx(8 / 3 / 2)


@pytest.mark.parametrize(
    ("counted", "tasks"),
    [
        ((0, 0, 6, 6), 6.0),  # a load came
        ((6, 6, 0, 1), 0.5),  # it went
        ((0, 0, 0, 6), 1.5),  # one count alone is no load
        ((0, 6, 0, 6), 3.0),  # nor is what comes and goes
        ((3, 4, 4, 4), 3.75),  # nothing changed
        ((6, 6), 6.0),
    ],
)
def test_a_load_that_came_or_went_is_not_averaged_with_the_time_before(counted: Sequence[int], tasks: float) -> None:
    world = World()
    for runnable in counted:
        world.clock.advance(0.55)
        world.readings.put("runnable", float(runnable))
    assert world.survey.look(world.ladders, CONFIG, world.state).machine.contention == pytest.approx(tasks / 2)


# ------------------------------------------------------------------------------------------------ the machine


def machine(world: World) -> Machine:
    return world.look().machine


def test_throttling_that_nobody_tells_is_not_told_to_be_absent() -> None:
    world = World()
    assert (machine(world).throttled, machine(world).tells_throttling) == ((), False)
    world.readings.put("throttled", 0.0, "thermal")
    assert (machine(world).throttled, machine(world).tells_throttling) == ((), True)
    world.readings.put("throttled", 1.0, "under_voltage")
    assert machine(world).throttled == ("under_voltage",)


def test_what_is_not_read_is_not_known() -> None:
    bare = machine(World())
    for name in ("cpu_utilization", "clock", "power_w", "memory_available_bytes", "memory_pressure", "under_voltage"):
        assert getattr(bare, name) is None, name
    assert (bare.zones, bare.hour, bare.load_score) == ({}, None, None)


def test_what_is_read_arrives() -> None:
    world = World(load_score=lambda readings: 0.25, synchronized=lambda: True)
    for quantity, value, name in (
        ("cpu_utilization", 0.5, "cpu"),
        ("memory_available", 2e9, "machine"),
        ("pressure", 0.1, "memory_some"),
        ("pressure", 0.3, "cpu_some"),
        ("pressure", 0.7, "memory_full"),
        ("power", 7.5, "VDD_IN"),
        ("utilization", 0.9, "gpu"),
        ("temperature", 61.5, "cpu"),
        ("temperature", float("nan"), "gpu"),
        ("alarm", 0.0, "under_voltage"),
    ):
        world.readings.put(quantity, value, name)  # type: ignore[arg-type]
    seen = machine(world)
    assert (seen.cpu_utilization, seen.memory_available_bytes, seen.memory_pressure) == (0.5, 2e9, 0.1)
    assert (seen.cpu_pressure, seen.power_w, seen.gpu_utilization, seen.zones) == (0.3, 7.5, 0.9, {"fake/cpu": 61.5})
    assert (seen.under_voltage, seen.load_score, seen.estimated) == (False, 0.25, False)
    assert seen.hour is not None
    assert 0 <= seen.hour < 24


def test_a_zone_has_the_lowest_of_its_own_trip_points() -> None:
    world = World()
    for value, name in ((105.0, "cpu/critical"), (95.0, "cpu/passive-1"), (90.0, "absent/passive")):
        world.readings.put("temperature_limit", value, name)
    survey = world.survey
    assert survey.trips_c(["fake/cpu", "fake/gpu"]) == {"fake/cpu": 95.0}
    world.readings.put("temperature_limit", 41.0, "x86_pkg_temp/passive")
    assert survey.trips_c(["fake/x86_pkg_temp"]) == {}, "it slows nothing down"


def test_a_zone_whose_sensor_is_content_without_it_is_switched_off() -> None:
    world = World()
    world.state = State(sensed={"temperature/fake/cv0": 1.0, "temperature/broken/cpu": 1.0})
    world.readings.sensors = [SensorHealth(sensor="fake", state="ok"), SensorHealth(sensor="broken", state="failed")]
    assert machine(world).off == ("fake/cv0",)


# ------------------------------------------------------------------------------------------------ rungs


def test_rungs_have_the_figures_of_the_document_then_of_the_engine() -> None:
    world = World(figures=lambda ladder, version: {"large": Figures(work_s=0.012, spread=0.1, joules=0.4, load_s=3.0)})
    world.ladder.details["large"] = RungStatus(name="large", state="active", profiled_p50_s=0.010, load_s=2.0)
    world.ladder.details["small"] = RungStatus(
        name="small", state="no-accelerator", profiled_p50_s=0.002, error="no edgetpu is present"
    )
    large, small = world.ladder_view().rungs
    assert (large.work_s, large.spread, large.joules, large.load_s, large.resident) == (0.012, 0.1, 0.4, 2.0, True)
    assert (small.work_s, small.joules, small.usable, small.error) == (0.002, None, False, "no edgetpu is present")


def test_the_floor_is_the_ladders_own() -> None:
    world = World(floor={"x": 0.75}.get)
    assert world.ladder_view().limits.accuracy == 0.75


def test_one_ladder_that_cannot_be_looked_at_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(FakeLadder):
        broken = True

        def totals(self) -> LadderTotals:
            if self.broken:
                raise ZeroDivisionError
            return super().totals()

    world, faulty = World(), Faulty("bad")
    world.ladders = [faulty, world.ladder]
    assert [v.name for v in world.look().ladders] == ["x"]
    assert [v.name for v in world.look().ladders] == ["x"]
    assert caplog.text.count("no decision could be made for the ladder bad") == 1
    faulty.broken = False
    assert [v.name for v in world.look().ladders] == ["bad", "x"]
