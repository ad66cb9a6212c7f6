"""A machine that tells nothing of itself: latency is always measured, and is then all there is to decide by."""

from __future__ import annotations

import asyncio
import logging

import pytest

from flyball import config
from flyball.config import Config
from flyball.events import Event, Events
from flyball.governor.governor import Governor
from flyball.governor.survey import Sources
from flyball.ports import RungStatus
from flyball.testing import FakeCatalog, FakeClock, FakeLadder, FakeReadings

pytestmark = pytest.mark.anyio

# Temperature and memory have limits unless somebody takes them away.
EVERY_LIMIT = config.Limits(latency_p95_ms=20, power_w=10, energy_wh_per_h=10)


class Blind:
    """A governor without a single reading, and a ladder of two."""

    def __init__(self, limits: config.Limits = EVERY_LIMIT) -> None:
        self.clock = FakeClock()
        self.ladder = FakeLadder("x", rungs=("large", "small"))
        for name, p50_s in (("large", 0.010), ("small", 0.002)):
            self.ladder.details[name] = RungStatus(name=name, state="closed", profiled_p50_s=p50_s)
        self.events: list[Event] = []
        events = Events()
        events.subscribe(self.events.append)
        sources = Sources(readings=FakeReadings(self.clock), clock=self.clock, cpus=2)
        self.governor = Governor(Config(governor=config.Governor(limits=limits)), FakeCatalog(self.ladder), events,
                                 sources)  # fmt: skip

    async def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.governor.tick()
            for _ in range(5):
                await asyncio.sleep(0)


async def test_it_steps_down_for_latency_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    blind = Blind()
    blind.ladder.measure(0.030)
    with caplog.at_level(logging.ERROR):
        await blind.run(15)
    assert blind.ladder.switched == [("small", "latency")]
    (change,) = [d for d in blind.governor.decisions("x") if d.action == "down"]
    assert change.acted
    assert change.binding == "latency"
    assert "predicted later than 20.0 ms, 5% allowed" in change.reason
    assert "small is predicted to take 2.0 ms" in change.reason
    assert {c.rung: c.predicted_p95_s is not None for c in change.candidates} == {"large": True, "small": True}
    assert [r.getMessage() for r in caplog.records] == []


async def test_it_climbs_again_when_latency_allows() -> None:
    blind = Blind()
    blind.ladder.measure(0.030)
    await blind.run(15)
    assert blind.ladder.active == "small"
    blind.ladder.measure(0.002)
    await blind.run(900)
    assert blind.ladder.active == "large"
    (up,) = [d for d in blind.governor.decisions("x") if d.action == "up"][:1]
    assert "large" in up.reason


async def test_it_speaks_of_no_reading_that_never_was() -> None:
    blind = Blind()
    blind.ladder.measure(0.005)
    await blind.run(300)
    assert blind.ladder.active == "large"
    assert blind.events == []
    for decision in blind.governor.decisions("x"):
        assert decision.action == "stay"
        assert decision.binding == ""
        told = f"{decision.reason} {[c.ruled_out_by for c in decision.candidates]}"
        assert not {"temperature", "memory", "power", "energy", "reading", "nan", "None"} & set(
            told.replace(":", " ").split()
        )
        for candidate in decision.candidates:
            assert (candidate.predicted_power_w, candidate.predicted_temperature_c) == (None, None)
        known = set(decision.inputs)
        assert not {"temperature_c", "power_w", "memory_available_bytes", "contention"} & known


async def test_without_a_limit_of_latency_either_it_stays_at_the_best() -> None:
    blind = Blind(config.Limits())
    blind.ladder.measure(5.0)
    await blind.run(60)
    assert blind.ladder.switched == []
    assert {d.reason for d in blind.governor.decisions("x")} == {"the limits hold at the best rung"}


async def test_without_a_request_it_decides_too() -> None:
    blind = Blind()
    await blind.run(30)
    decisions = blind.governor.decisions("x")
    assert len(decisions) == 30
    assert {(d.action, d.target) for d in decisions} == {("stay", "large")}


async def test_what_watchers_see_has_only_what_is_known() -> None:
    blind = Blind()
    blind.ladder.measure(0.005)
    await blind.run(30)
    figures = blind.governor.figures()
    assert figures.decisions == {"x": {"stay": 30}}
    assert figures.looks == 30
    assert set(figures.slow_down["x"]) <= {"large"}, "the other one has not run"
