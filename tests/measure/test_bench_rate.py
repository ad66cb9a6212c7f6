"""The rate of arrivals that `flyball bench` finds for a rung when none is given."""

import asyncio
from pathlib import Path

import pytest

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.errors import UnavailableError
from flyball.events import Events
from flyball.ladder.manifest import load
from flyball.measure.bench import Bench, Plan, Surroundings
from flyball.measure.scenario import MOST_ARRIVALS, Load
from flyball.sensing.contract import Roots
from flyball.sensing.sampler import Sampler

LADDER = load(Path(__file__).resolve().parents[2] / "examples/defects/ladder")


def found(plan: Plan, answered: int) -> float | None:
    """After a warm-up of one second with so many answers."""
    clock = SystemClock()
    source = Sampler([], 1.0, 60.0, clock, Events())
    around = Surroundings(source=source, period_s=1.0, clock=clock, roots=Roots())
    bench = Bench(LADDER, Engine(), plan, around, lambda *_: None, asyncio.Event())
    return bench._rate_per_s(Load(start_s=0.0, end_s=1.0, inferences=answered))


def test_it_is_a_part_of_what_the_warm_up_reached() -> None:
    assert found(Plan(scenario="server", seconds=30.0), 1000) == pytest.approx(600)
    assert found(Plan(scenario="server", seconds=30.0, rate_per_s=7.0), 1000) == 7.0
    assert found(Plan(scenario="single", seconds=30.0), 1000) is None


def test_a_fast_rung_in_a_long_run_gets_as_many_arrivals_as_can_be_kept() -> None:
    rate_per_s = found(Plan(scenario="server", seconds=3600.0), 20_000)
    assert rate_per_s is not None
    assert 0.9 * MOST_ARRIVALS < rate_per_s * 3600.0 <= MOST_ARRIVALS


def test_a_warm_up_without_an_answer_finds_none() -> None:
    with pytest.raises(UnavailableError, match="nothing was answered"):
        found(Plan(scenario="server", seconds=30.0), 0)
