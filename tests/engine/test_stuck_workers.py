"""A worker that does not even end when it is killed, as one does that hangs in a driver: nobody waits for it.

Modelled by a stopped process whose `kill` does nothing.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, children, running, write_scripts
from faulty_requests import ask, until, values

from flyball.clock import SystemClock
from flyball.engine.process import Worker
from flyball.engine.runner import LadderRunner
from flyball.engine.slots import SlotPool
from flyball.engine.standby import Standby
from flyball.errors import DeadlineError, WorkerError
from flyball.events import Events
from flyball.ladder.manifest import load

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

CONFIG = msgspec.structs.replace(QUICK, request_timeout_s=6.0, restart_backoff_s=20.0, restart_backoff_max_s=20.0)


def stopped(task: Path) -> bool:
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextmanager
def stuck(worker: Worker) -> Iterator[Callable[[], None]]:
    """Yields what lets it run again, and die if it was killed."""
    kill = worker._process.kill
    killed = False

    def note() -> None:
        nonlocal killed
        killed = True

    def release() -> None:
        os.kill(worker.pid, signal.SIGKILL if killed else signal.SIGCONT)

    worker._process.kill = note  # type: ignore[method-assign]
    os.kill(worker.pid, signal.SIGSTOP)
    while not all(stopped(task) for task in Path(f"/proc/{worker.pid}/task").iterdir()):
        time.sleep(0.001)  # each of its threads stops when it next comes by
    try:
        yield release
    finally:
        worker._process.kill = kill  # type: ignore[method-assign]
        if worker.pid in children():
            os.kill(worker.pid, signal.SIGKILL)


def active_worker(runner: LadderRunner) -> Worker:
    assert runner._seats.active is not None
    return runner._seats.active.workers[0]


async def test_its_requests_are_answered_by_another_rung_and_it_is_left(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {"factor": 3}})
    async with running(root, CONFIG, first="small") as runner:
        await runner.switch("big", "test")
        (root / "big.json").write_bytes(b"not again")
        with stuck(active_worker(runner)):
            inside = await asyncio.gather(*(runner.infer(ask(float(n), 1.0)) for n in range(3)))
            assert [(a.rung, values(a)) for a in inside] == [("small", [3.0 * n, 3.0]) for n in range(3)]
            status = runner.status()
            assert (status.active, status.state, status.rungs[0].state) == ("small", "degraded", "failed")
            assert runner.totals().worker_restarts == {"hung": 1}


async def test_what_it_may_still_write_to_is_withheld_until_it_has_ended(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {"factor": 3}})
    async with running(root, CONFIG, first="small") as runner:
        await runner.switch("big", "test")
        worker, slots = active_worker(runner), runner._slots
        spare = len(slots._spare)
        with stuck(worker) as release:
            await asyncio.gather(*(runner.infer(ask(float(n), 1.0)) for n in range(2)))
            held = set(worker._withheld)
            assert len(held) == 2
            assert not held & {*slots.place, *slots._spare}, "given to nobody else"
            assert len(slots._spare) == spare - 2
            release()
            await until(lambda: len(slots._spare) == spare)
            assert sorted([*slots.place, *slots._spare]) == list(range(slots.places))
        assert worker.pid not in children(), "and it is reaped"


async def test_where_no_memory_is_spare_its_callers_are_told_by_their_limits(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {"factor": 3}})
    async with running(root, CONFIG, first="small") as runner:
        await runner.switch("big", "test")
        runner._slots._spare.clear()
        (root / "big.json").write_bytes(b"not again")
        with stuck(active_worker(runner)) as release:
            with pytest.raises(DeadlineError):
                await runner.infer(ask(1.0, 1.0, timeout_s=4.5))
            assert runner.status().pending == 1, "its slot is not given away"
            assert (await runner.infer(ask(1.0, 1.0))).rung == "small"
            release()
            await until(lambda: runner.status().pending == 0)


async def test_closing_does_not_wait_for_it(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, drain_timeout_s=0.3)
    runner = LadderRunner(load(write_scripts(tmp_path, {"big": {}})), config, Standby(0), Events(), SystemClock())
    await runner.start()
    worker = active_worker(runner)
    with stuck(worker) as release:
        await asyncio.wait_for(runner.close(), 4.0)
        assert worker.pid in children()
        release()
        await until(lambda: worker.pid not in children())


async def test_a_rung_that_hangs_for_good_while_it_opens_fails(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"open": "hang"}, "small": {"factor": 3}})
    config = msgspec.structs.replace(CONFIG, load_timeout_s=2.0)
    async with running(root, config, first="small") as runner:
        order = asyncio.create_task(runner.switch("big", "test"))
        await until(lambda: bool(runner._seats._openings.starting))
        (worker,) = runner._seats._openings.starting
        with stuck(worker):
            started_s = time.monotonic()
            result = (await asyncio.gather(order, return_exceptions=True))[0]
            assert "did not finish 'open' within 2 s" in str(result)
            assert time.monotonic() - started_s < 4.0
            assert runner.status().active == "small"


async def test_a_rung_is_not_opened_again_and_again_while_its_processes_do_not_end(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"warm": "hang"}, "small": {"factor": 3}})
    config = msgspec.structs.replace(CONFIG, load_timeout_s=2.0)
    async with running(root, config, first="small") as runner:
        starting = runner._seats._openings.starting
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                order = asyncio.create_task(runner.switch("big", "test"))
                await until(lambda: any(worker.alive() for worker in starting))
                stack.enter_context(stuck(next(worker for worker in starting if worker.alive())))
                assert "did not finish" in str((await asyncio.gather(order, return_exceptions=True))[0])
            with pytest.raises(WorkerError, match=r"its processes \d+, \d+ were killed and do not end"):
                await runner.switch("big", "test")
            assert len(children()) == 3
        await until(lambda: len(children()) == 1)
        await until(lambda: not any(worker.lingers() for worker in starting))
        with pytest.raises(WorkerError, match="did not finish 'warm'"):
            await runner.switch("big", "test")
        assert not starting


def test_a_moved_request_is_whole_and_its_old_place_reaches_nobody() -> None:
    daemon = SlotPool.create(2, 8192, 4096, spare=1)
    worker = SlotPool(os.dup(daemon.fd), daemon.places, daemon.input_bytes, daemon.output_bytes)
    daemon.write_request(1, 7, [("UINT8", (3,), memoryview(b"abc")), ("UINT8", (2,), memoryview(b"de"))], 1.5)
    old = daemon.move(1)
    assert old == 1
    assert daemon.place == [0, 2]
    assert daemon.move(0) is None, "only one place was spare"
    daemon.hand_over_again(1, 8, 1.5)
    worker.write_reply(old, 7, [("UINT8", (4,), memoryview(b"late"))], (0, 0, 0))
    generation, _, inputs = worker.read_request(2)
    assert (generation, [bytes(t.data) for t in inputs]) == (8, [b"abc", b"de"])
    worker.write_reply(2, 8, [("UINT8", (4,), memoryview(b"good"))], (0, 0, 0))
    assert bytes(daemon.read_reply(1, 8).outputs[0].data) == b"good"
    daemon.vacated(old)
    assert daemon.move(0) == 0
    assert daemon.place == [1, 2]
