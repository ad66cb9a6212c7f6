"""An answer that nobody waits for any more still tells what its rung takes; with real processes."""

import asyncio
from pathlib import Path

import pytest
from faulty_ladders import running, write_scripts
from faulty_requests import ask, until, values

from flyball.engine.runner import LadderRunner
from flyball.errors import DeadlineError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


async def rung_of(runner: LadderRunner, timeout_s: float) -> str | None:
    """Which one answered; None = the limit passed."""
    try:
        return (await runner.infer(ask(1.0, 1.0, timeout_s=timeout_s))).rung
    except DeadlineError:
        return None


async def test_a_rung_that_becomes_too_slow_leaves_its_place_to_a_weaker_one(tmp_path: Path) -> None:
    marker = tmp_path / "slow"
    scripts = {"big": {"run": "slow", "marker": str(marker)}, "small": {"factor": 3}}
    async with running(write_scripts(tmp_path / "l", scripts), first="small") as runner:
        await runner.switch("big", "test")
        assert [await rung_of(runner, 0.1) for _ in range(3)] == ["big"] * 3
        marker.touch()
        found = [await rung_of(runner, 0.1) for _ in range(25)]
        assert found[-5:] == ["small"] * 5, found
        assert runner.status().active == "big", "the governor's choice stands"


async def test_late_answers_are_in_the_window_that_the_governor_sees(tmp_path: Path) -> None:
    marker = tmp_path / "slow"
    root = write_scripts(tmp_path / "l", {"big": {"run": "slow", "marker": str(marker)}})
    async with running(root) as runner:
        marker.touch()
        for _ in range(2):
            assert await rung_of(runner, 0.1) is None
            await until(lambda: runner.status().pending == 0)
        window = runner.window(30.0, 0.1)
        assert window is not None
        assert (window.count, window.late) == (2, 2)
        assert window.p50_s is not None
        assert window.p50_s >= 0.3
        assert window.work_mean_s == pytest.approx(0.3, abs=0.1)
        totals = runner.totals()
        assert (totals.success, totals.failure) == (0, {"REJECTED": 2}), "nobody got these answers"


async def test_a_caller_who_leaves_teaches_as_well(tmp_path: Path) -> None:
    marker = tmp_path / "slow"
    async with running(write_scripts(tmp_path / "l", {"big": {"run": "slow", "marker": str(marker)}})) as runner:
        marker.touch()
        leaving = asyncio.create_task(runner.infer(ask(1.0, 1.0)))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await until(lambda: runner.status().pending == 0)
        assert runner._seats.active is not None
        assert runner._seats.active.pace.least_s(0) > 0.25
        marker.unlink()
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]


async def test_a_refusal_of_the_worker_teaches_nothing(tmp_path: Path) -> None:
    """It took no time, and its durations are zeros."""
    marker = tmp_path / "fails"
    script = {"run": "error", "marker": str(marker), "factor": 2}
    async with running(write_scripts(tmp_path / "l", {"big": script})) as runner:
        await runner.infer(ask(1.0, 1.0))
        assert runner._seats.active is not None
        before_s = runner._seats.active.pace.own_s
        marker.touch()
        leaving = asyncio.create_task(runner.infer(ask(1.0, 1.0)))
        await asyncio.sleep(0)
        leaving.cancel()
        await until(lambda: runner.status().pending == 0)
        assert runner._seats.active.pace.own_s == before_s
        window = runner.window(30.0)
        assert window is not None
        assert window.count == 1
