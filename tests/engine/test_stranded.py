"""Requests that wait in a rung for something else than its worker, when that worker ends; with real processes."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, running, write_scripts
from faulty_requests import ask, until, values

from flyball.clock import SystemClock
from flyball.engine.runner import LadderRunner
from flyball.engine.share import Share, Shares
from flyball.engine.standby import Standby
from flyball.events import Events
from flyball.ladder.manifest import load

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


def share_of(runner: LadderRunner) -> Share:
    assert runner._seats.active is not None
    share = runner._seats.active._share
    assert share is not None
    return share


async def test_one_that_waits_for_a_turn_goes_on_at_once_when_its_worker_ends(tmp_path: Path) -> None:
    """Nobody ever gives it the turn: all are held by this test."""
    root = write_scripts(tmp_path, {"big": {}, "small": {"factor": 3}})
    manifest = root / "flyball-ladder.toml"
    shared = 'backend = "faulty"\naccelerators = ["faulty"]'
    manifest.write_text(manifest.read_text().replace('backend = "faulty"', shared, 1))
    config = msgspec.structs.replace(QUICK, request_timeout_s=20.0)
    runner = LadderRunner(load(root), config, Standby(1 << 30), Events(), SystemClock(), shares=Shares())
    runner.limit_to({"cpu", "faulty"})
    try:
        await runner.start("small")
        await runner.settled()
        await runner.switch("big", "test")
        dead = runner._seats.active
        assert dead is not None
        share = share_of(runner)
        while share.may_start(object(), "another", lambda: None):
            pass
        waiting = asyncio.create_task(runner.infer(ask(1.0, 1.0)))
        await until(lambda: dead.in_flight == 1)
        os.kill(dead.workers[0].pid, signal.SIGKILL)
        assert values(await asyncio.wait_for(waiting, 10)) == [3.0, 3.0], "the rung beside it answered"
        assert dead.in_flight == 0
        assert dead not in share._waiting
    finally:
        await runner.close()


async def test_one_that_waits_for_a_batch_goes_on_at_once_when_its_worker_ends(tmp_path: Path) -> None:
    script = {"free": True}
    root = write_scripts(tmp_path, {"big": script, "small": {"factor": 3, **script}}, extra="batch = 8")
    manifest = root / "flyball-ladder.toml"
    manifest.write_text(manifest.read_text().replace("batch = 8", "batch = 8\nbatch_delay_ms = 1000", 1))
    async with running(root, first="small") as runner:
        await runner.switch("big", "test")
        dead = runner._seats.active
        assert dead is not None
        waiting = asyncio.create_task(runner.infer(ask(1.0, 1.0)))
        await until(lambda: dead.in_flight == 1)
        os.kill(dead.workers[0].pid, signal.SIGKILL)
        await until(lambda: not dead.alive())
        await asyncio.sleep(0)
        await until(lambda: dead.in_flight == 0, limit_s=0.5)
        assert values(await waiting) == [3.0, 3.0]
