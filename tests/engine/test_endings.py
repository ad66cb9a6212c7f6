"""The end of a ladder: every request is told, nothing is closed twice and nothing survives; with real processes."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, catalogue, children, running, write_scripts
from faulty_requests import ask, until, values

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.runner import LadderRunner
from flyball.engine.slots import SlotPool
from flyball.engine.standby import Standby
from flyball.errors import DeadlineError, NotFoundError, UnavailableError
from flyball.events import Events
from flyball.ladder.manifest import load

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


async def started(root: Path, config: Engine) -> LadderRunner:
    runner = LadderRunner(load(root), config, Standby(0), Events(), SystemClock())
    await runner.start()
    await runner.settled()
    return runner


async def test_requests_that_wait_while_nothing_answers_are_told_why_when_the_ladder_closes(tmp_path: Path) -> None:
    config = msgspec.structs.replace(QUICK, drain_timeout_s=0.3, restart_backoff_s=5.0, slots=4)
    runner = await started(write_scripts(tmp_path, {"big": {}}), config)
    await runner._switch._recovery.stop()
    runner._seats.on_exit = lambda opened, cause: runner._seats.lose()  # nobody brings it back
    os.kill(children()[0], signal.SIGKILL)
    await until(lambda: runner._seats.active is None)
    waiting = [asyncio.create_task(runner.infer(ask(1.0, 2.0))) for _ in range(7)]
    await until(lambda: runner.status().pending == 7)
    await runner.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [UnavailableError] * 7
    with pytest.raises(UnavailableError, match="it is being unloaded"):
        await runner.infer(ask(1.0, 2.0))
    assert runner.status().pending == 0


async def test_a_limit_holds_while_the_ladder_closes(tmp_path: Path) -> None:
    config = msgspec.structs.replace(QUICK, drain_timeout_s=0.6, request_timeout_s=8.0)
    runner = await started(write_scripts(tmp_path, {"big": {"run": "hang"}}), config)
    request = asyncio.create_task(runner.infer(ask(1.0, 2.0, timeout_s=0.8)))
    await until(lambda: runner.status().pending == 1)
    await runner.close()
    with pytest.raises(DeadlineError):  # the worker is killed only after 1.2 s
        await request


async def test_a_ladder_is_closed_once_however_often_it_is_asked(tmp_path: Path) -> None:
    runner = await started(write_scripts(tmp_path, {"big": {}}), QUICK)
    first = asyncio.create_task(runner.close())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(runner.close(), runner.close())
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]  # one of them gets the number of the slots' memory
    await runner.close()
    for file in files:
        os.close(file)
    assert children() == []


async def test_slots_closed_twice_leave_a_foreign_descriptor_alone() -> None:
    pool = SlotPool.create(1, 4096, 4096)
    number = pool.fd
    pool.close()
    file = os.open("/dev/null", os.O_RDONLY)
    while file < number:
        file = os.open("/dev/null", os.O_RDONLY)
    pool.close()
    os.fstat(number)


async def test_a_ladder_removed_while_its_next_version_loads_is_gone(tmp_path: Path) -> None:
    first = load(write_scripts(tmp_path / "1", {"a": {}}))
    second = load(write_scripts(tmp_path / "2", {"a": {"open": "slow"}}, version="2"))
    async with catalogue() as catalog:
        await catalog.load(first)
        loading = asyncio.create_task(catalog.load(second))
        await asyncio.sleep(0.1)
        await catalog.remove("t")
        await loading
        assert catalog.ladders() == ()
        with pytest.raises(NotFoundError):
            catalog.get("t")
        assert children() == []


async def test_two_versions_loaded_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    versions = [
        load(write_scripts(tmp_path / v, {"a": {"open": "slow", "factor": int(v)}}, version=v)) for v in ("1", "2", "3")
    ]
    async with catalogue() as catalog:
        await asyncio.gather(*map(catalog.load, versions))
        assert [runner.version for runner in catalog.ladders()] == ["3"]
        assert values(await catalog.get("t").infer(ask(1.0, 1.0))) == [3.0, 3.0]
        assert len(children()) == 1
    assert children() == []


async def test_a_load_under_way_when_the_engine_closes_leaves_no_worker(tmp_path: Path) -> None:
    first = load(write_scripts(tmp_path / "1", {"a": {}}))
    second = load(write_scripts(tmp_path / "2", {"a": {"open": "slow"}}, version="2"))
    async with catalogue() as catalog:
        await catalog.load(first)
        loading = asyncio.create_task(catalog.load(second))
        await until(lambda: len(children()) == 2)
        await catalog.close()
        with pytest.raises(UnavailableError):
            await loading
        assert children() == []
        with pytest.raises(UnavailableError, match="the engine is closing"):
            await catalog.load(first)


async def test_a_load_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    folder = load(write_scripts(tmp_path, {"a": {"open": "slow"}}))
    async with catalogue() as catalog:
        loading = asyncio.create_task(catalog.load(folder))
        await until(lambda: len(children()) == 1)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert catalog.ladders() == ()
        assert children() == []


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_what_a_session_has_started_ends_with_its_worker(tmp_path: Path, how: str) -> None:
    root = write_scripts(tmp_path, {"big": {"open": "child"}})
    async with running(root) as runner:
        (worker,) = children()
        (child,) = children_of(worker)
        if how == "killed":
            os.kill(worker, signal.SIGKILL)
            await until(lambda: runner.totals().worker_restarts == {"signal": 1})
            await until(lambda: not running_now(child))
    await until(lambda: not running_now(child))


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def running_now(pid: str) -> bool:
    """A zombie that nobody reaps here does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
