"""Many ladders on one machine: every one of them is decided on at every look."""

from __future__ import annotations

import asyncio
import time

import pytest

from flyball import config
from flyball.config import Config
from flyball.events import Events
from flyball.governor.governor import Governor
from flyball.governor.survey import Sources
from flyball.ports import RungStatus
from flyball.testing import FakeCatalog, FakeClock, FakeLadder, FakeReadings

pytestmark = pytest.mark.anyio

LADDERS, RUNGS, LOOKS = 64, 4, 20
NAMES = [f"ladder{i:02}" for i in range(LADDERS)]


def served(name: str) -> FakeLadder:
    rungs = tuple(f"rung{i}" for i in range(RUNGS))
    ladder = FakeLadder(name, rungs=rungs)
    for place, rung in enumerate(rungs):
        ladder.details[rung] = RungStatus(
            name=rung, state="closed", profiled_p50_s=0.016 / 2**place, accuracy=0.95 - 0.02 * place
        )
    ladder.measure(0.016)
    return ladder


def governor_of(catalog: FakeCatalog, clock: FakeClock, limits: config.Limits) -> Governor:
    readings = FakeReadings(clock)
    for quantity, value in (("cpu_utilization", 0.5), ("temperature", 60.0), ("memory_available", 1e9)):
        readings.put(quantity, value)  # type: ignore[arg-type]
    settings = Config(governor=config.Governor(limits=limits))
    return Governor(settings, catalog, Events(), Sources(readings=readings, clock=clock, cpus=4))


@pytest.mark.parametrize("late", [False, True], ids=["calm", "all of them late"])
async def test_every_ladder_gets_a_decision_at_every_look(late: bool, capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    ladders = [served(name) for name in NAMES]
    governor = governor_of(
        FakeCatalog(*ladders), clock, config.Limits(latency_p95_ms=10 if late else 40, temperature_c=85)
    )
    took_s = []
    for _ in range(LOOKS):
        clock.advance(1)
        began_s = time.perf_counter()
        governor.tick()
        took_s.append(time.perf_counter() - began_s)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with capsys.disabled():
        worst, middle = max(took_s) * 1e3, sorted(took_s)[LOOKS // 2] * 1e3
        print(f"\n  {LADDERS} ladders of {RUNGS} rungs: a look takes {middle:.1f} ms, {worst:.1f} ms at most")
    for ladder in ladders:
        decisions = governor.decisions(ladder.name)
        assert len(decisions) == LOOKS, ladder.name
        assert all(d.reason for d in decisions)
        assert all(len(d.candidates) == RUNGS for d in decisions)
        assert bool(ladder.switched) is late, ladder.name
    assert max(took_s) < 1.0, "a look must fit its period"


async def test_those_that_go_are_forgotten_and_the_others_go_on() -> None:
    clock = FakeClock()
    catalog = FakeCatalog(*map(served, NAMES))
    governor = governor_of(catalog, clock, config.Limits(latency_p95_ms=40))
    clock.advance(1)
    governor.tick()
    for name in NAMES[: LADDERS // 2]:
        catalog.remove(name)
    clock.advance(1)
    governor.tick()
    assert {d.ladder for d in governor.decisions()} == set(NAMES[LADDERS // 2 :])
    assert set(governor.figures().decisions) == set(NAMES[LADDERS // 2 :])
