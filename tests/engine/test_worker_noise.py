"""What a worker may do to the daemon: flood it with text, answer late, and leave it without descriptors."""

import asyncio
import gc
import logging
import os
import re
import resource
from pathlib import Path

import pytest
from faulty_ladders import running, write_scripts
from faulty_requests import ask, until

from flyball.engine.process import Opening, Worker
from flyball.engine.slots import SlotPool
from flyball.engine.stderr import LINES_PER_S, StderrLog
from flyball.errors import WorkerError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


async def test_lines_beyond_a_rate_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    root = write_scripts(tmp_path, {"big": {"run": "spew"}})

    def lines() -> int:
        return sum("of too many" in record.message for record in caplog.records)

    def dropped() -> int:
        found = [re.search(r"\[t/big\] (\d+) lines dropped", record.message) for record in caplog.records]
        return sum(int(match[1]) for match in found if match)

    async with running(root) as runner:
        await runner.infer(ask(1.0, 1.0))
        await until(lambda: lines() + dropped() == 5000)
        assert LINES_PER_S <= lines() <= 2 * LINES_PER_S


async def test_one_turn_of_the_loop_takes_a_bounded_piece(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read, write = os.pipe()
    noise = StderrLog("w", os.fdopen(read, "rb"))
    os.write(write, b"x" * 99 + b"\n" + b"a line of twenty byte\n" * 2500)
    noise._read()
    assert 0 < len(caplog.records) <= 4096 // 20
    os.write(write, b"the end")
    os.close(write)
    noise.close()
    assert noise.said().endswith(" | the end")
    assert "lines dropped: more than 200 in a second" in caplog.text


async def test_a_canary_that_nobody_waits_for_any_more_is_not_the_answer_to_the_next(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"warm": "slow"}})
    async with running(root) as runner:
        assert runner._seats.active is not None
        (worker,) = runner._seats.active.workers
        given_up = asyncio.create_task(worker.canary(2.0))
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        answer = await worker.ask({"op": "warm", "runs": 1, "seconds": 0.1}, 3.0)
        assert "first_s" in answer, "the answer to what was asked, not the late one"


@pytest.mark.parametrize("left", range(1, 12))
async def test_a_worker_that_finds_too_few_descriptors_leaves_none_behind(tmp_path: Path, left: int) -> None:
    """Whichever of its descriptors is the one too many."""
    slots = SlotPool.create(1, 4096, 4096)
    artifact = tmp_path / "big.json"
    artifact.write_text("{}")
    opening = Opening(label="w", backend="faulty", artifact=artifact, options={}, lanes=2)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # what earlier tests left open is closed now, and not while this one counts
    before = sorted(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free() + left, limits[1]))
    try:
        with pytest.raises(WorkerError, match="no worker could be started"):
            await Worker.start(opening, slots, 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert sorted(os.listdir("/proc/self/fd")) == before
    slots.close()


def first_free() -> int:
    file = os.open("/dev/null", os.O_RDONLY)
    os.close(file)
    return file
