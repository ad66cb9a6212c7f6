"""Workers that end in every phase of their lives, and forty that are killed at random under traffic.

`make kills` does the same a thousand times with real models (bench/kills.py).
"""

import asyncio
import gc
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, children, running, write_scripts
from faulty_requests import ask, until, values

from flyball.errors import FlyballError, WorkerError
from flyball.ports import InferRequest

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

PATIENT = msgspec.structs.replace(QUICK, crash_loop_limit=0, load_timeout_s=2.0)


@pytest.mark.parametrize("phase", ["open", "warm"])
@pytest.mark.parametrize("how", ["error", "segfault", "abort", "exit", "hang"])
async def test_a_target_that_ends_before_it_is_ready_leaves_the_active_rung(
    tmp_path: Path, phase: str, how: str
) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "bad": {phase: how}})
    gc.collect()  # what earlier tests left open is closed now, and not while this one counts
    before = len(os.listdir("/proc/self/fd"))
    async with running(root, PATIENT, first="big") as runner:
        with_one_worker = len(os.listdir("/proc/self/fd"))
        with pytest.raises(WorkerError, match="t/bad"):
            await runner.switch("bad", "test")
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]
        status = runner.status()
        assert (status.active, status.state) == ("big", "ready")
        assert (status.rungs[1].state, status.rungs[1].leave_alone_s > 0) == ("failed", True)
        assert len(os.listdir("/proc/self/fd")) == with_one_worker
        assert len(children()) == 1
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_slow_load_disturbs_nobody(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "slow": {"open": "slow", "factor": 3}})
    async with running(root, first="big") as runner:
        change = asyncio.create_task(runner.switch("slow", "test"))
        worst_s = 0.0
        while not change.done():
            began_s = time.monotonic()
            await runner.infer(ask(1.0, 1.0))
            worst_s = max(worst_s, time.monotonic() - began_s)
            await asyncio.sleep(0.005)
        await change
        assert worst_s < 0.25


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_the_active_worker_killed_while_idle(tmp_path: Path, how: signal.Signals) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    async with running(root, PATIENT) as runner:
        await runner.switch("small", "test")
        await runner.switch("big", "test")
        os.kill(runner._seats.active.workers[0].pid, how)
        began_s = time.monotonic()
        assert values(await runner.infer(ask(1.0, 1.0))) in ([2.0, 2.0], [3.0, 3.0])
        assert time.monotonic() - began_s < 0.5
        await until(lambda: runner.status().state == "ready")
        assert runner.status().active == "big"


async def test_a_killed_standby_is_opened_again(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    async with running(root, PATIENT) as runner:
        await runner.switch("small", "test")
        await runner.switch("big", "test")
        (standby,) = set(children()) - {runner._seats.active.workers[0].pid}
        os.kill(standby, signal.SIGKILL)
        await until(lambda: standby not in children() and len(children()) == 2)
        await until(lambda: runner.status().rungs[1].state == "standby")


async def test_forty_kills_under_traffic(tmp_path: Path) -> None:
    chance = random.Random(7)
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    before = len(os.listdir("/proc/self/fd"))
    outcomes: Counter[str] = Counter()
    stop = False
    config = msgspec.structs.replace(PATIENT, request_timeout_s=1.0, heartbeat_s=0.5, restart_backoff_max_s=0.1)
    async with running(root, config) as runner:

        async def client(request: InferRequest) -> None:
            while not stop:
                try:
                    answer = await asyncio.wait_for(runner.infer(request), 3)
                    assert values(answer) == ([2.0, 2.0] if answer.rung == "big" else [3.0, 3.0])
                    outcomes["answered"] += 1
                except FlyballError as error:
                    outcomes[type(error).__name__] += 1
                    await asyncio.sleep(0.01)

        clients = [asyncio.create_task(client(ask(1.0, 1.0))) for _ in range(3)]
        kills = 0
        while kills < 40:
            await asyncio.sleep(chance.uniform(0, 0.3))
            runner.tend()
            pids = children()
            if pids:
                how = chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGSTOP])
                os.kill(chance.choice(pids), how)
                kills += 1
        await until(lambda: runner.status().state == "ready", limit_s=10, tend=runner)
        stop = True
        await asyncio.wait_for(asyncio.gather(*clients), 5)  # a request that is never answered would stay here
        assert outcomes["answered"] > 100
        assert runner.status().pending == 0
    assert children() == []
    assert len(os.listdir("/proc/self/fd")) == before
