"""Workers that have one processor: a single lane with the next request ready; with real processes."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, children, running, write_scripts
from faulty_requests import ask, values

from flyball.config import Engine
from flyball.engine.opening import lanes_and_depth
from flyball.engine.share import Share
from flyball.ladder.manifest import Rung, load

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

PINNED = msgspec.structs.replace(QUICK, worker_cpus=(min(os.sched_getaffinity(0)),))


def rung(root: Path, extra: str = "") -> Rung:
    return load(write_scripts(root, {"big": {}}, extra=extra)).manifest.rung[0]


def lanes_of(pid: int) -> int:
    names = [(task / "comm").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return len(names) - 1  # all but the main thread; the stand-in backend starts none


def test_a_second_lane_is_for_a_second_processor(tmp_path: Path) -> None:
    plain, batched = rung(tmp_path / "a"), rung(tmp_path / "b", "batch = 4")
    one, two = Engine(worker_cpus=(0,)), Engine(worker_cpus=(0, 1))
    assert lanes_and_depth(two, plain, None) == (2, 1)
    assert lanes_and_depth(one, plain, None) == (1, 2)
    assert lanes_and_depth(msgspec.structs.replace(one, lanes=1), plain, None) == (1, 1)
    assert lanes_and_depth(one, batched, None) == (2, 1), "what a lane takes together is a batch"
    assert lanes_and_depth(one, plain, Share()) == (2, 1), "the accelerator runs beside the processor"
    assert lanes_and_depth(msgspec.structs.replace(one, wake="poll"), plain, None) == (1, 1)


async def test_requests_that_lie_ready_are_answered_each_with_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    root = write_scripts(tmp_path / "l", {"big": {"log": str(log)}})
    async with running(root, PINNED) as runner:
        (pid,) = children()
        assert lanes_of(pid) == 1
        answers = await asyncio.gather(*(runner.infer(ask(float(n), 1.0)) for n in range(20)))
        assert [values(a) for a in answers] == [[2.0 * n, 2.0] for n in range(20)]
        assert runner.status().pending == 0
    assert set(log.read_text().split()) == {"1"}, "one by one"


async def test_what_lay_ready_in_a_worker_that_dies_is_answered_by_another(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"run": "slow"}, "small": {"factor": 3}})
    async with running(root, PINNED, first="small") as runner:
        await runner.switch("big", "test")
        both = asyncio.gather(*(runner.infer(ask(float(n), 1.0)) for n in (1, 2)))
        await asyncio.sleep(0.1)
        for pid in children():
            if pid == runner._seats.active.workers[0].pid:  # type: ignore[union-attr]
                os.kill(pid, signal.SIGKILL)
        assert [values(a) for a in await both] == [[3.0, 3.0], [6.0, 3.0]]
        assert runner.status().pending == 0
