"""A ladder that has lost what answered gets it back, whatever stood in the way; with real processes."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, catalogue, children, running, write_scripts
from faulty_requests import ask, until, values

from flyball.engine.opened import OpenedRung
from flyball.engine.runner import LadderRunner
from flyball.errors import UnavailableError
from flyball.ladder.manifest import load

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


def seated(runner: LadderRunner) -> OpenedRung:
    active = runner._seats.active
    assert active is not None
    return active


async def test_threads_that_ran_out_for_a_while_do_not_end_the_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {"factor": 3}})
    start: Callable[[threading.Thread], None] = threading.Thread.start
    refused = 0

    def refuse(thread: threading.Thread) -> None:
        nonlocal refused
        if not thread.name.startswith("verify"):
            start(thread)
            return
        refused += 1
        raise RuntimeError("can't start new thread")

    async with running(root, standby_bytes=0) as runner:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        os.kill(seated(runner).workers[0].pid, signal.SIGKILL)
        await until(lambda: refused >= 2)
        monkeypatch.setattr(threading.Thread, "start", start)
        await until(lambda: runner.status().state == "ready")
        assert values(await runner.infer(ask(1.0, 2.0))) == [2.0, 4.0]


async def test_an_error_that_nobody_foresaw_does_not_end_the_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_scripts(tmp_path, {"big": {}})
    async with running(root) as runner:
        open_one_of = runner._seats.open_one_of
        calls = 0

        async def fail_twice(names: list[str]) -> OpenedRung:
            nonlocal calls
            calls += 1
            if calls <= 2:
                raise KeyError("unforeseen")
            return await open_one_of(names)

        monkeypatch.setattr(runner._seats, "open_one_of", fail_twice)
        os.kill(seated(runner).workers[0].pid, signal.SIGKILL)
        await until(lambda: calls == 3)
        await until(lambda: runner.status().state == "ready")


async def test_an_order_broken_off_while_it_swaps_in_place_leaves_a_ladder_that_answers(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"open": "slow"}, "small": {"factor": 3}})
    async with running(root, first="small") as runner:
        runner._seats.too_little_memory = lambda rung: True  # type: ignore[method-assign]
        order = asyncio.create_task(runner.switch("big", "test"))
        await until(lambda: runner._seats.active is None)
        await asyncio.sleep(0.1)
        order.cancel()
        await until(lambda: runner.status().active == "small")
        assert runner.status().state == "ready"
        assert values(await runner.infer(ask(1.0, 2.0))) == [3.0, 6.0]
        await until(lambda: len(children()) == 1)


async def test_an_order_in_place_after_which_nothing_opens_is_recovered_from(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {"factor": 3}})
    async with running(root, first="small") as runner:
        runner._seats.too_little_memory = lambda rung: True  # type: ignore[method-assign]
        whole = {path: path.read_bytes() for path in root.glob("*.json")}
        for path in whole:
            path.write_bytes(b"not what the manifest says")
        with pytest.raises(UnavailableError, match="no rung could be opened"):
            await runner.switch("big", "test")
        for path, content in whole.items():
            path.write_bytes(content)
        await until(lambda: runner.status().active == "small")


async def test_an_order_broken_off_while_the_old_rung_drains_leaves_no_worker_behind(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"run": "slow"}, "small": {}})
    async with running(root, first="big", standby_bytes=0) as runner:
        request = asyncio.create_task(runner.infer(ask(1.0, 2.0)))
        await asyncio.sleep(0.02)
        order = asyncio.create_task(runner.switch("small", "test"))
        await until(lambda: runner.status().active == "small")
        order.cancel()
        assert values(await request) == [2.0, 4.0]
        await until(lambda: [rung.state for rung in runner.status().rungs] == ["closed", "active"])
        assert len(children()) == 1


@pytest.mark.parametrize("standing_by", [False, True])
async def test_a_lost_instance_comes_back_though_the_first_try_fails(tmp_path: Path, standing_by: bool) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {"pad": "x" * 50}}, extra="instances = 2")
    artifact = root / "big.json"
    good = artifact.read_bytes()
    async with running(root, msgspec.structs.replace(QUICK, rest_s=0.3), first="big") as runner:
        if standing_by:
            await runner.switch("small", "test")
        (opened,) = [o for o in runner._seats.opened() if o.rung.name == "big"]
        state = "standby" if standing_by else "active"
        artifact.write_bytes(b"{}   ")
        os.kill(opened.workers[0].pid, signal.SIGKILL)
        await until(lambda: runner.status().rungs[0].leave_alone_s > 0)  # the first try has failed
        assert runner.status().rungs[0].state == state
        assert [w.alive() for w in opened.workers] == [False, True], "what is left of it goes on"
        assert standing_by or runner.status().state == "degraded"
        artifact.write_bytes(good)
        await until(lambda: any(o.rung.name == "big" and o is not opened for o in runner._seats.opened()))
        (whole,) = [o for o in runner._seats.opened() if o.rung.name == "big"]
        assert [w.alive() for w in whole.workers] == [True, True]
        assert runner.status().rungs[0].state == state
        assert runner.status().state == "ready"
        await until(lambda: len(children()) == (4 if standing_by else 2))


async def test_one_of_two_instances_that_ended_does_not_make_the_rung_one_that_failed(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}}, extra="instances = 2")
    config = msgspec.structs.replace(QUICK, restart_backoff_s=5.0)
    async with running(root, config) as runner:
        runner._seats.too_little_memory = lambda rung: True  # type: ignore[method-assign]
        os.kill(seated(runner).workers[0].pid, signal.SIGKILL)
        await until(lambda: not seated(runner).workers[0].alive())
        await asyncio.sleep(0)
        (big,) = runner.status().rungs
        assert big.state == "active"
        assert "its worker ended" in big.error
        assert runner.status().state == "degraded"


async def test_a_first_start_that_fails_for_a_passing_reason_is_tried_again(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}})
    artifact = root / "big.json"
    good = artifact.read_bytes()
    artifact.write_bytes(b"{}  ")
    async with catalogue() as catalog:
        with pytest.raises(UnavailableError):
            await catalog.load(load(root))
        assert catalog.get("t").status().state == "failed"
        artifact.write_bytes(good)
        await until(lambda: catalog.get("t").status().state == "ready")
        assert values(await catalog.get("t").infer(ask(1.0, 2.0))) == [2.0, 4.0]
    assert children() == []
