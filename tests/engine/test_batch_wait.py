"""How long a batch waits for more: as long as the request with the least time bears; with real processes."""

import asyncio
from pathlib import Path

import pytest
from faulty_ladders import running, write_scripts
from faulty_requests import ask, values

from flyball.engine.runner import LadderRunner
from flyball.ports import Answer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


async def after(seconds: float, runner: LadderRunner, timeout_s: float | None = None) -> Answer:
    await asyncio.sleep(seconds)
    return await runner.infer(ask(3.0, 1.0, timeout_s=timeout_s))


async def test_one_with_less_time_that_comes_later_brings_the_run_forward(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = {"free": True, "log": str(log)}
    root = write_scripts(tmp_path / "l", {"big": script}, extra="batch = 8\nbatch_delay_ms = 1000")
    async with running(root) as runner:
        both = await asyncio.gather(after(0, runner), after(0.05, runner, timeout_s=0.4))
        assert [values(answer) for answer in both] == [[6.0, 2.0]] * 2
    assert log.read_text().split() == ["2"], "together"


async def test_a_full_batch_takes_its_timer_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = {"free": True, "log": str(log)}
    root = write_scripts(tmp_path / "l", {"big": script}, extra="batch = 2\nbatch_delay_ms = 600")
    async with running(root) as runner:
        await asyncio.gather(*(after(seconds, runner) for seconds in (0, 0.1, 0.2, 0.7)))
    assert log.read_text().split() == ["2", "2"], "the third waits for a fourth, whatever the first one would have done"
