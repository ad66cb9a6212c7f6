"""What is written down of a governor leads to the same decisions again."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from simulated_plant import NAME, Plant

from flyball import config
from flyball.config import Config
from flyball.config import Governor as Rules
from flyball.errors import WorkerError
from flyball.events import Events
from flyball.governor.governor import Governor
from flyball.governor.policy import decide
from flyball.governor.recording import Begun, Done, Ended, Line, Looked, Recording
from flyball.governor.rules import Rule, parse
from flyball.governor.state import State
from flyball.governor.survey import Sources
from flyball.governor.values import Limits
from flyball.ports import Decision, RungStatus
from flyball.testing import FakeCatalog, FakeClock, FakeLadder, FakeReadings

pytestmark = pytest.mark.anyio

DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


async def taken(recording: Recording) -> list[Line]:
    recording.close()
    return [DECODER.decode(line) async for line in recording.lines()]


def decided_again(lines: list[Line]) -> tuple[int, list[tuple[Decision, Decision]]]:
    """How many decisions there were, and those that come out differently."""
    count, differ, rules, state = 0, [], Rules(), State()
    thresholds: dict[str, tuple[Rule, ...]] = {}
    for line in lines:
        if isinstance(line, Begun):
            rules, state = line.rules, line.state
            thresholds = {name: tuple(map(parse, texts)) for name, texts in line.thresholds.items()}
        elif isinstance(line, Looked):
            decisions, state = decide(line.view, rules, state, thresholds)
            bare = [msgspec.structs.replace(d, candidates=(), inputs={}) for d in decisions]
            count += len(bare)
            assert len(bare) == len(line.decisions)
            differ += [(a, b) for a, b in zip(line.decisions, bare, strict=True) if a != b]
        elif isinstance(line, Done) and line.error:
            state = state.refused(line.decision, line.error, line.now_s, rules)
        elif isinstance(line, Done):
            state = state.moved(line.decision, line.now_s, rules)
    return count, differ


class Recorded(Plant):
    recording: Recording

    def step(self) -> Decision:
        before = self.state
        self.now_s += self.rules.period_s
        if self.temp_c is not None:
            self.temp_c += (self.ambient_c + 10 * self.power_w() - self.temp_c) / 60
        view = self.view()
        decisions, self.state = decide(view, self.rules, before)
        self.recording.follow(self.rules, before, {})
        self.recording.keep(view, decisions, self.state)
        (decision,) = decisions
        if decision.target != decision.source:
            before = self.state
            self.active = decision.target
            self.state = self.state.moved(decision, self.now_s, self.rules)
            self.recording.follow(self.rules, before)
            self.recording.done(decision, "", self.now_s, self.state)
        self.log.append(decision)
        return decision


async def test_a_recorded_row_is_decided_the_same_again() -> None:
    plant = Recorded(limits=Limits(deadline_s=0.018, power_w=8.0))
    plant.run(50)  # what it has learnt before is part of the beginning
    plant.recording = Recording("0.1.0", "Test Board")
    for contended in (False, True, False):
        plant.contended = contended
        plant.run(60)
    lines = await taken(plant.recording)
    assert isinstance(lines[0], Begun)
    assert (lines[0].board, lines[0].state.of(NAME).active) == ("Test Board", "a")
    assert len([line for line in lines if isinstance(line, Begun)]) == 1
    assert len([line for line in lines if isinstance(line, Done)]) >= 2
    count, differ = decided_again(lines)
    assert count == 180
    assert differ == []


async def test_other_rules_lead_elsewhere() -> None:
    """What the test above finds equal can be unequal."""
    plant = Recorded()
    plant.recording = Recording("0.1.0", "Test Board")
    plant.run(30)
    plant.contended = True
    plant.run(30)
    first, *rest = await taken(plant.recording)
    assert isinstance(first, Begun)
    strict = msgspec.structs.replace(first, rules=Rules(mode="energy-first"))
    _, differ = decided_again([strict, *rest])
    assert differ


Recorded.recording = Recording("", "")  # of those steps that nobody asked to keep


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.readings = FakeReadings(self.clock)
        self.ladder = FakeLadder("x")
        for name, p50_s in (("large", 0.010), ("small", 0.002)):
            self.ladder.details[name] = RungStatus(name=name, state="closed", profiled_p50_s=p50_s)
        self.settings = Config(governor=config.Governor(limits=config.Limits(latency_p95_ms=20)))
        sources = Sources(readings=self.readings, clock=self.clock, cpus=2)
        self.governor = Governor(self.settings, FakeCatalog(self.ladder), Events(), sources)

    async def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.governor.tick()
            for _ in range(5):
                await asyncio.sleep(0)


async def test_pins_reloads_refusals_and_rules_are_part_of_a_recording() -> None:
    world = World()
    await world.run(5)
    recording = Recording("0.1.0", "Test Board")
    world.governor.record(recording)
    world.ladder.measure(0.005)
    await world.run(5)
    await world.governor.pin("x", "small", 10.0)
    await world.run(5)
    await world.governor.release("x")
    await world.run(5)
    world.ladder.refusals["small"] = WorkerError("no memory for it")
    world.ladder.measure(0.030)
    await world.run(20)
    limits = config.Limits(latency_p95_ms=50)
    ruled = config.Governor(limits=limits, rules=("when latency_p95 > 1 ms then hold",))
    world.governor.apply(Config(governor=ruled))
    await world.run(20)
    lines = await taken(recording)
    assert len([line for line in lines if isinstance(line, Begun)]) >= 3
    assert any(isinstance(line, Done) and line.error for line in lines)
    assert any(isinstance(line, Begun) and line.thresholds for line in lines)
    count, differ = decided_again(lines)
    assert count >= 50
    assert differ == []


async def test_a_reader_that_is_too_slow_loses_the_recording_and_the_governing_goes_on() -> None:
    world = World()
    recording = Recording("0.1.0", "Test Board", waiting_bytes=20_000)
    world.governor.record(recording)
    world.ladder.measure(0.005)
    await world.run(60)
    assert recording.over
    world.ladder.measure(0.030)
    await world.run(10)
    assert world.ladder.switched[0] == ("small", "latency")
    lines = await taken(recording)
    assert isinstance(lines[-1], Ended)
    assert lines[-1].why == "the reader was too slow"
    assert sum(len(msgspec.json.encode(line)) for line in lines) < 21_000
    assert decided_again(lines[:-1])[1] == []


async def test_who_reads_on_loses_nothing_and_what_waits_is_bounded() -> None:
    plant = Recorded()
    plant.recording = Recording("0.1.0", "Test Board", waiting_bytes=20_000)
    lines: list[Line] = []

    async def read() -> None:
        async for data in plant.recording.lines():
            assert data.endswith(b"\n")
            lines.append(DECODER.decode(data))

    reader = asyncio.ensure_future(read())
    for _ in range(100):
        plant.step()
        await asyncio.sleep(0)
    plant.recording.close("enough")
    await asyncio.wait_for(reader, 5)
    assert lines[-1] == Ended(why="enough")
    assert len([line for line in lines if isinstance(line, Looked)]) == 100


async def test_a_reader_that_leaves_ends_the_recording() -> None:
    plant = Recorded()
    plant.recording = recording = Recording("0.1.0", "Test Board")
    plant.step()
    lines = recording.lines()
    await lines.__anext__()
    await lines.aclose()
    assert recording.over
    view, decisions = plant.view(), ()
    assert recording.keep(view, decisions, plant.state) is False
