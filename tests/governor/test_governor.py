"""The loop: what it reads, what it does to the ladders, what it keeps and tells."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from flyball import config
from flyball.config import Config
from flyball.errors import NotFoundError, RequestError, UnavailableError, WorkerError
from flyball.events import Event, Events
from flyball.governor.governor import Governor
from flyball.governor.survey import Sources
from flyball.ports import RungStatus
from flyball.testing import FakeCatalog, FakeClock, FakeLadder, FakeReadings

pytestmark = pytest.mark.anyio

LIMITS = config.Limits(latency_p95_ms=20, temperature_c=80)


def settings(ladder: dict[str, config.LadderSettings] | None = None, **governor: object) -> Config:
    return Config(
        governor=config.Governor(limits=LIMITS, **governor),  # type: ignore[arg-type]
        ladder=ladder or {},
    )


class World:
    def __init__(self, configured: Config | None = None, rungs: tuple[str, ...] = ("large", "small")) -> None:
        self.clock = FakeClock()
        self.readings = FakeReadings(self.clock)
        self.sources = Sources(readings=self.readings, clock=self.clock, cpus=2)
        self.ladder = FakeLadder("x", rungs=rungs)
        for name, p50_s in zip(rungs, (0.010, 0.002), strict=False):
            self.ladder.details[name] = RungStatus(name=name, state="closed", profiled_p50_s=p50_s)
        self.catalog = FakeCatalog(self.ladder)
        self.events: list[Event] = []
        events = Events()
        events.subscribe(self.events.append)
        self.governor = Governor(configured or settings(), self.catalog, events, self.sources)
        self.readings.put("cpu_utilization", 0.9)

    async def run(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.advance(1)
            self.governor.tick()
            await settle()

    def kinds(self) -> list[str]:
        return [e.kind for e in self.events]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_broken_limit_switches_the_ladder_and_is_told(world: World) -> None:
    world.ladder.measure(0.030)
    await world.run(15)
    assert world.ladder.switched == [("small", "latency")]
    (decision,) = [d for d in world.governor.decisions("x") if d.action == "down"]
    assert decision.acted
    assert decision.error == ""
    assert decision.reason.endswith("small is predicted to take 2.0 ms, 0.0% of the answers later than 20.0 ms")
    (event,) = [e for e in world.events if e.detail["acted"]]
    assert (event.kind, event.ladder, event.severity) == ("decision", "x", "warning")
    assert (event.detail["from"], event.detail["to"], event.detail["binding"]) == ("large", "small", "latency")


async def test_observe_decides_and_explains_but_does_not_act() -> None:
    world = World(settings(mode="observe"))
    world.ladder.measure(0.030)
    await world.run(60)
    assert world.ladder.switched == []
    assert world.governor.mode() == "observe"
    decision = world.governor.decisions("x")[-1]
    assert (decision.action, decision.target, decision.acted) == ("down", "small", False)
    wishes = [e for e in world.events if e.detail["action"] == "down"]
    assert len(wishes) == 1


async def test_the_first_period_after_a_change_is_not_held_against_the_new_rung() -> None:
    world = World(settings(dwell_s=0))
    asked: list[float] = []
    measured = world.ladder.window

    def window(seconds: float, deadline_s: float | None = None) -> object:
        asked.append(seconds)
        assert deadline_s == 0.02
        return measured(seconds, deadline_s)

    world.ladder.window = window  # type: ignore[method-assign,assignment]
    world.ladder.measure(0.030)
    while world.ladder.active != "small":
        await world.run(1)
    world.ladder.measure(0.002)
    asked.clear()
    await world.run(1)
    assert asked == []
    await world.run(3)
    assert asked == [1, 1, 2, 1, 3, 1]  # the stay so far, and what is new
    await world.run(10)
    assert max(asked) == 5.0


async def test_a_failed_switch_is_explained_and_its_target_left_alone(world: World) -> None:
    world.ladder.refusals["small"] = WorkerError("no memory for it")
    world.ladder.measure(0.030)
    await world.run(25)
    assert len(world.ladder.switched) == 1
    failed = next(d for d in world.governor.decisions("x") if d.error)
    assert (failed.action, failed.acted, failed.error) == ("down", False, "no memory for it")
    assert "no memory for it" in world.governor.decisions("x")[-1].candidates[1].ruled_out_by
    await world.run(10)
    assert len(world.ladder.switched) == 2
    await world.run(45)
    assert len(world.ladder.switched) == 2  # and twice as long the next time
    del world.ladder.refusals["small"]
    await world.run(70)
    assert world.ladder.active == "small"


async def test_an_unexpected_fault_of_a_switch_is_a_failure_too(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.ladder.refusals["small"] = ZeroDivisionError("oh")
    world.ladder.measure(0.030)
    await world.run(20)
    assert [d.error for d in world.governor.decisions("x") if d.error] == ["ZeroDivisionError: oh"]
    assert "could not be switched to small" in caplog.text


async def test_one_slow_switch_does_not_stop_the_others(world: World) -> None:
    gate, tasks = asyncio.Event(), len(asyncio.all_tasks())
    other = FakeLadder("y")
    world.catalog.add(other)
    world.ladder.before_switch = gate.wait
    world.ladder.measure(0.030)
    other.measure(0.030)
    await world.run(40)
    assert world.ladder.switched == []
    assert [rung for rung, _ in other.switched] == ["small"]
    waiting = len(world.governor.decisions("x"))
    await world.run(5)
    assert len(world.governor.decisions("x")) == waiting
    assert len(asyncio.all_tasks()) == tasks + 1  # the one that switches
    gate.set()
    await settle()
    assert world.ladder.switched == [("small", "latency")]


async def test_one_faulty_ladder_does_not_stop_the_others(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(FakeLadder):
        broken = True

        def window(self, seconds: float, deadline_s: float | None = None) -> None:
            if self.broken:
                raise ZeroDivisionError

    faulty = Faulty("bad")
    world.catalog.remove("x")
    world.catalog.add(faulty)
    world.catalog.add(world.ladder)
    world.ladder.measure(0.030)
    with caplog.at_level(logging.WARNING):
        await world.run(15)
        assert world.ladder.active == "small"
        faulty.broken = False
        await world.run(3)
    faults = [r.getMessage() for r in caplog.records if "the ladder bad" in r.getMessage()]
    assert faults == ["no decision could be made for the ladder bad", "decisions for the ladder bad work again"]


async def test_decisions_are_bounded_and_changes_outlive_the_quiet(world: World) -> None:
    world.ladder.measure(0.030)
    world.readings.put("temperature", 50.0, "cpu")
    await world.run(15)
    world.ladder.measure(None)
    world.readings.lose("temperature")  # which forbids the climb back
    await world.run(2000)
    decisions = world.governor.decisions("x")
    assert len(decisions) <= 256
    assert [d.target for d in decisions if d.acted] == ["small"]
    assert [d.t_s for d in decisions] == sorted(d.t_s for d in decisions)


async def test_quiet_is_not_told(world: World) -> None:
    world.ladder.measure(0.005)
    await world.run(600)
    assert world.events == []


async def test_wavering_about_the_limit_is_not_told_every_second(world: World) -> None:
    for second in range(300):
        world.ladder.measure(0.021 if second % 4 == 0 else 0.019)
        await world.run(1)
    assert len(world.events) < 10


async def test_a_lost_sensor_is_told_once_and_so_is_its_return(world: World) -> None:
    world.ladder.measure(0.005)
    world.readings.put("temperature", 50.0, "cpu")
    world.readings.put("temperature", 60.0, "gpu")
    await world.run(15)
    assert world.governor.decisions("x")[-1].inputs["temperature_c"] == 60.0
    world.readings.lose("temperature")
    await world.run(40)
    assert [e.detail["health"] for e in world.events] == ["ready temperature"]
    world.readings.put("temperature", 60.0, "gpu")
    await world.run(15)
    world.readings.put("temperature", 50.0, "cpu")
    await world.run(15)
    told = ["ready temperature", "ready temperature(fake/cpu)", "ready"]
    assert [e.detail["health"] for e in world.events] == told


async def test_a_rung_that_changed_by_itself_is_taken_as_it_is(world: World) -> None:
    world.ladder.measure(0.030)
    await world.run(12)
    world.ladder.active = "large"  # the engine's own doing, say after a crash
    world.ladder.switched.clear()
    await world.run(1)
    assert world.ladder.switched == []  # it has to answer first
    await world.run(10)
    assert world.ladder.switched == [("small", "latency")]


async def test_without_an_active_rung_there_is_nothing_to_do(world: World) -> None:
    world.ladder.active = None
    await world.run(5)
    assert world.ladder.switched == []
    assert world.governor.decisions("x")[-1].reason == "no rung is active: it is being loaded"


async def test_ladders_come_go_and_are_replaced(world: World) -> None:
    world.ladder.measure(0.030)
    await world.run(5)
    await world.governor.pin("x", "large", None)
    newer = FakeLadder("x", version="2")
    newer.measure(0.030)
    world.catalog.add(newer)
    await world.run(15)
    assert newer.switched == [("small", "latency")]
    assert world.governor.pins() == ()
    assert "replaced by another version" in world.events[world.kinds().index("unpin")].message
    world.catalog.remove("x")
    await world.run(2)
    assert world.governor.decisions() == []


async def test_new_limits_and_modes_take_effect_at_the_next_period(world: World) -> None:
    world.ladder.measure(0.015)
    await world.run(20)
    assert world.ladder.switched == []
    tighter = config.Governor(limits=config.Limits(latency_p95_ms=10), mode="observe")
    world.governor.apply(Config(governor=tighter))
    await world.run(5)
    assert world.ladder.switched == []
    world.governor.apply(Config(governor=config.Governor(limits=config.Limits(latency_p95_ms=10))))
    await world.run(1)
    assert world.ladder.switched == [("small", "latency")]


# ------------------------------------------------------------------------------------------------------------- pins


async def test_a_pin_switches_holds_and_runs_out(world: World) -> None:
    world.ladder.measure(0.005)
    await world.run(3)
    report = await world.governor.pin("x", "small", 30.0)
    assert report is not None
    assert report.target == "small"
    (pin,) = world.governor.pins()
    assert pin.until_s == world.clock.monotonic_s() + 30
    assert world.governor.decisions("x")[-1].reason == "held at small for 30 s, as asked for"
    await world.run(29)
    assert world.ladder.active == "small"
    await world.run(2)
    assert world.governor.pins() == ()
    assert [k for k in world.kinds() if "pin" in k] == ["pin", "unpin"]
    await world.run(30)
    assert world.ladder.active == "large"


async def test_a_pin_on_the_active_rung_switches_nothing(world: World) -> None:
    assert await world.governor.pin("x", "large", None) is None
    assert await world.governor.pin("x", "large", None) is None
    assert world.ladder.switched == []
    assert world.kinds() == ["pin"]
    world.ladder.measure(0.030)
    await world.run(30)
    assert world.ladder.switched == []
    assert "although latency p95 30.0 ms, 100.0% of 50 later than 20.0 ms" in world.governor.decisions("x")[-1].reason
    await world.governor.release("x")
    await world.governor.release("x")
    assert world.kinds().count("unpin") == 1
    await world.run(2)
    assert world.ladder.active == "small"


async def test_a_pin_also_holds_in_observe_mode() -> None:
    world = World(settings(mode="observe"))
    await world.governor.pin("x", "small", None)
    world.ladder.active = "large"
    await world.run(2)
    assert world.ladder.active == "small"


async def test_pins_that_cannot_be(world: World) -> None:
    with pytest.raises(NotFoundError, match="no ladder 'nope'"):
        await world.governor.pin("nope", "small", None)
    with pytest.raises(NotFoundError, match=r"has no rung 'huge' \(it has: large, small\)"):
        await world.governor.pin("x", "huge", None)
    for odd in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(RequestError, match="expected more than 0 seconds"):
            await world.governor.pin("x", "small", odd)
    with pytest.raises(RequestError, match=r"at most 2592000 \(30 days\).*found 1e\+300"):
        await world.governor.pin("x", "small", 1e300)
    with pytest.raises(NotFoundError):
        await world.governor.release("nope")
    world.ladder.details["small"] = RungStatus(name="small", state="no-accelerator", error="no edgetpu is present")
    with pytest.raises(UnavailableError, match="no edgetpu is present"):
        await world.governor.pin("x", "small", None)
    assert world.governor.pins() == ()
    assert world.ladder.switched == []


async def test_a_pin_that_a_hard_limit_forbids_is_kept_until_that_allows_it(world: World) -> None:
    world.ladder.active = "small"
    world.ladder.measure(0.002)
    world.readings.put("temperature", 79.0, "cpu")
    report = await world.governor.pin("x", "large", None)
    assert report is not None
    assert (report.source, report.target) == ("small", "small")
    assert world.ladder.switched == []
    decision = world.governor.decisions("x")[-1]
    assert (decision.action, decision.target, decision.binding, decision.acted) == (
        "pin",
        "small",
        "temperature",
        False,
    )
    assert decision.reason.startswith("held at large until released, as asked for, once a limit allows it: temperature")
    assert world.kinds() == ["pin"]
    await world.run(15)
    assert world.ladder.switched == []
    world.readings.put("temperature", 60.0, "cpu")
    await world.run(2)
    assert world.ladder.switched == [("large", "pin")]


async def test_a_pin_by_force_is_had_at_once_and_told_as_such(world: World) -> None:
    world.ladder.active = "small"
    world.ladder.measure(0.002)
    world.readings.put("temperature", 84.0, "cpu")
    await world.governor.pin("x", "large", None, force=True)
    assert world.ladder.switched == [("large", "pin")]
    await world.run(30)
    assert world.ladder.switched == [("large", "pin")]
    assert [p.force for p in world.governor.pins()] == [True]


async def test_what_the_engine_asks_to_leave_alone_reaches_the_decision(world: World) -> None:
    world.ladder.details["small"] = RungStatus(name="small", state="closed", error="it crashed", leave_alone_s=50.0)
    world.ladder.measure(0.030)
    await world.run(15)
    assert world.ladder.switched == []
    ruled_out = world.governor.decisions("x")[-1].candidates[1].ruled_out_by
    assert ruled_out == "it failed (it crashed); the engine asks to leave it alone for another 50 s"


async def test_a_pin_whose_switch_fails_leaves_the_former_one(world: World) -> None:
    await world.governor.pin("x", "large", None)
    world.ladder.refusals["small"] = WorkerError("it does not open")
    with pytest.raises(WorkerError, match="it does not open"):
        await world.governor.pin("x", "small", None)
    assert [p.rung for p in world.governor.pins()] == ["large"]


async def test_what_is_answered_during_a_switch_is_no_contention(world: World) -> None:
    gate, busy_s = asyncio.Event(), 0.0
    world.ladder.before_switch = gate.wait
    world.ladder.measure(0.030)
    for _ in range(20):
        busy_s += 1.0
        world.ladder.counted = msgspec.structs.replace(world.ladder.counted, busy_s_by_rung={"large": busy_s})
        world.readings.put("runnable", 3.0)
        await world.run(1)
    assert world.ladder.switched == []
    assert world.governor._state.contention == pytest.approx((3.0 - 1.0) / 2, abs=0.02)
    gate.set()


async def test_a_pin_during_a_switch_has_the_last_word(world: World) -> None:
    gate = asyncio.Event()
    world.ladder.before_switch = gate.wait
    world.ladder.measure(0.030)
    await world.run(15)
    order = asyncio.ensure_future(world.governor.pin("x", "large", None))
    await settle()
    assert not order.done()
    gate.set()
    await order
    await world.run(20)
    assert world.ladder.switched == [("small", "latency"), ("large", "pin")]
    assert world.ladder.active == "large"


async def test_what_a_pin_opens_is_counted_while_it_is_opened(world: World) -> None:
    gate = asyncio.Event()
    world.ladder.before_switch = gate.wait
    world.ladder.details["small"] = RungStatus(name="small", state="closed", rss_bytes=40_000_000)
    await world.run(2)
    order = asyncio.ensure_future(world.governor.pin("x", "small", None))
    await settle()
    await world.run(2)
    assert [one.takes_bytes for one in world.governor._state.opening.values()] == [40e6]
    gate.set()
    await order
    await world.run(2)
    assert world.governor._state.opening == {}


async def test_a_pin_between_decision_and_switch_has_the_last_word(world: World) -> None:
    await world.run(10)
    world.ladder.measure(0.030)
    world.clock.advance(1)
    assert world.ladder.switched == []
    world.governor.tick()  # decides to step down; its task has not begun
    await world.governor.pin("x", "large", None)
    await world.run(20)
    assert world.ladder.switched == []


async def test_pins_of_the_configuration_hold_from_the_start() -> None:
    world = World(settings({"x": config.LadderSettings(rung="small")}))
    await world.run(1)
    assert world.ladder.switched == [("small", "pin")]
    world.governor.apply(settings())
    assert world.governor.pins() == ()
    world.governor.apply(settings({"x": config.LadderSettings(rung="large")}))
    await world.run(1)
    assert world.ladder.active == "large"


async def test_a_configured_pin_on_a_rung_that_is_not_there_is_told_once() -> None:
    world = World(settings({"x": config.LadderSettings(rung="huge")}))
    await world.run(5)
    (event,) = world.events
    assert event.severity == "error"
    assert "[ladder.x] rung is left aside" in event.message


# ------------------------------------------------------------------------------------------------------------- run


async def test_what_is_coming_is_told_on_a_machine_without_a_ladder_too() -> None:
    world = World()
    world.catalog.remove("x")
    for tick in range(1500):
        world.clock.advance(5)
        world.readings.put("memory_available", 2e9 - tick * 1.25e6, "machine")
        world.governor.tick()
    assert world.kinds() == ["memory_exhaustion_expected"]


async def test_run_beats_every_period_and_ends_what_it_began(world: World) -> None:
    world.governor.apply(settings(period_s=0.1))
    beats = asyncio.Semaphore(0)
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def beat() -> None:
        world.clock.advance(1)
        beats.release()

    world.ladder.before_switch = forever
    world.ladder.measure(0.030)
    loop = asyncio.ensure_future(world.governor.run(beat))
    await asyncio.wait_for(started.wait(), 20)
    for _ in range(3):
        await asyncio.wait_for(beats.acquire(), 5)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert cancelled.is_set()
