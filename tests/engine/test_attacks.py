"""What an outage is made of: the one that answers ends while something else is under way."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, catalogue, children, running, write_scripts
from faulty_requests import ask, until, values

from flyball.clock import SystemClock
from flyball.config import Cache, Engine, LadderSettings
from flyball.engine.channel import Ring
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.errors import DeadlineError, FlyballError, LadderError, UnavailableError, WorkerError
from flyball.events import Events
from flyball.ladder.manifest import load

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


def but(**changes: object) -> Engine:
    return msgspec.structs.replace(QUICK, **changes)


def kill_active(runner: LadderRunner) -> None:
    active = runner._seats.active
    assert active is not None
    os.kill(active.workers[0].pid, signal.SIGKILL)


async def answers_within(runner: LadderRunner, seconds: float) -> str:
    """The rung of the first answer."""
    end_s = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return (await runner.infer(ask(1.0))).rung
        except FlyballError:
            assert asyncio.get_running_loop().time() < end_s, runner.status()
            await asyncio.sleep(0.02)


async def test_the_one_that_took_over_may_die_too(tmp_path: Path) -> None:
    """While the wanted rung rests because of a crash loop."""
    root = write_scripts(tmp_path, {"a": {"factor": 2}, "b": {"factor": 3}})
    config = but(crash_loop_limit=2, rest_s=300.0, restart_backoff_s=0.01, restart_backoff_max_s=0.1)
    async with running(root, config) as runner:
        for _ in range(2):
            await answers_within(runner, 5)
            await until(lambda: runner.status().active == "a" or runner.status().rungs[0].leave_alone_s > 100)
            if runner.status().active == "a":
                kill_active(runner)
        assert await answers_within(runner, 5) == "b"
        assert runner.status().rungs[0].leave_alone_s > 100
        kill_active(runner)
        assert await answers_within(runner, 3) == "b"


async def test_when_every_rung_loops_one_is_still_tried_now_and_then(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"factor": 2}})
    config = but(crash_loop_limit=1, rest_s=300.0, restart_backoff_s=0.01, restart_backoff_max_s=0.3)
    async with running(root, config) as runner:
        kill_active(runner)
        await until(lambda: "every rung is in a crash loop" in runner.status().error)
        with pytest.raises(UnavailableError, match="every rung is in a crash loop"):
            await runner.infer(ask(1.0))
        assert await answers_within(runner, 5) == "a"


async def test_the_first_rung_dies_during_a_climb_that_fails(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"strong": {"open": "hang", "log": "x" * 500}, "weak": {"factor": 3}})
    runner = LadderRunner(load(root), but(load_timeout_s=1.0), Standby(256 << 20), Events(), SystemClock())
    await runner.start()
    try:
        assert runner.status().active == "weak"
        await asyncio.sleep(0.2)
        kill_active(runner)
        assert await answers_within(runner, 4) == "weak"
    finally:
        await runner.close()
    assert children() == []


async def test_recovery_waits_for_nobodys_slow_load(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"factor": 2}, "b": {"open": "hang"}})
    async with running(root, but(load_timeout_s=8.0, request_timeout_s=1.0, drain_timeout_s=1.0), first="a") as runner:
        pinned = asyncio.create_task(runner.infer(ask(1.0, rung="b")))
        await asyncio.sleep(0.2)
        kill_active(runner)
        assert await answers_within(runner, 2) == "a"
        with pytest.raises(DeadlineError, match="not open in time"):
            await pinned
        began_s = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began_s < 4, "nor does the end"
    assert children() == []


async def test_an_accelerator_that_is_lost_while_there_is_traffic(tmp_path: Path) -> None:
    """Its process lives, and every run fails: the answers come from elsewhere, and the canary ends it."""
    marker = tmp_path / "marker"
    script = {"run": "surprise", "canary": "wrong", "marker": str(marker)}
    root = write_scripts(tmp_path / "l", {"a": script, "b": {"factor": 3}})
    async with running(root) as runner:
        await runner.switch("b", "test")
        await runner.switch("a", "test")
        marker.touch()
        found: Counter[str] = Counter()
        for _ in range(60):
            found[(await runner.infer(ask(1.0, 1.0))).rung] += 1
            runner.tend()
            await asyncio.sleep(0.01)
        assert found == {"b": 60}, "no request is lost"
        assert runner.totals().worker_restarts["canary"] >= 1
        assert runner.status().active == "b"


async def test_a_rung_that_takes_over_during_a_switch_is_not_forgotten(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"factor": 2}, "b": {"factor": 3}, "c": {"factor": 4, "open": "slow"}})
    async with running(root, first="b") as runner:
        await runner.switch("a", "test")
        switching = asyncio.create_task(runner.switch("c", "test"))
        await asyncio.sleep(0.3)
        kill_active(runner)
        await switching
        await asyncio.sleep(0.5)
        assert [rung.state for rung in runner.status().rungs].count("active") == 1
        # One that is being opened, or killed, is not forgotten either.
        known = [worker for opened in runner._seats.opened() for worker in opened.workers]
        known += runner._seats._openings.starting
        assert sorted(children()) == sorted(worker.pid for worker in known)
    assert children() == []


async def test_two_rungs_of_one_ladder_share_an_accelerator_with_another(tmp_path: Path) -> None:
    kind = 'accelerators = ["faulty"]'
    mine = write_scripts(tmp_path / "t", {"a": {"run": "slow"}, "b": {"run": "slow", "factor": 3}}, extra=kind)
    other = write_scripts(tmp_path / "o", {"a": {"run": "slow"}}, extra=kind)
    manifest = other / "flyball-ladder.toml"
    manifest.write_text(manifest.read_text().replace('name = "t"', 'name = "o"', 1))
    async with catalogue(QUICK) as catalog:
        await catalog.load(load(mine))
        await catalog.load(load(other))
        runner, rival = catalog.get("t"), catalog.get("o")
        await runner.settled()
        await runner.switch("b", "test")
        await runner.switch("a", "test")
        flood = [asyncio.create_task(rival.infer(ask(1.0))) for _ in range(2)]
        await asyncio.sleep(0.05)
        both = [asyncio.create_task(runner.infer(ask(1.0, rung=rung))) for rung in ("a", "b")]
        assert [(await one).rung for one in both] == ["a", "b"]
        await asyncio.gather(*flood)


async def test_a_rung_that_has_no_room_on_standby_is_not_opened_for_every_request(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"factor": 2}, "b": {"factor": 3}})
    async with running(root, standby_bytes=1) as runner:
        with pytest.raises(UnavailableError, match="standby_memory_mib has no room"):
            await runner.infer(ask(1.0, rung="b"))
        for _ in range(20):
            refused = asyncio.create_task(runner.infer(ask(1.0, rung="b")))
            while not refused.done():
                assert len(children()) == 1, "no process is started for nothing"
                await asyncio.sleep(0.001)
            assert isinstance(refused.exception(), UnavailableError)


async def test_a_standby_rung_that_hangs_is_not_switched_to(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"factor": 2}, "b": {"factor": 3}})
    async with running(root) as runner:
        await runner.switch("b", "test")
        await runner.switch("a", "test")
        (standby,) = [o for o in runner._seats.opened() if o.rung.name == "b"]
        stopped = standby.workers[0].pid
        os.kill(stopped, signal.SIGSTOP)
        standby.answered_s -= 5  # it has not answered for a while
        switching = asyncio.create_task(runner.switch("b", "test"))
        assert (await runner.infer(ask(1.0, timeout_s=0.5))).rung == "a", "meanwhile the active one answers"
        await switching
        assert (await runner.infer(ask(1.0, timeout_s=0.5))).rung == "b"
        assert stopped not in children()


async def test_the_memory_limit_holds_while_a_rung_opens(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"factor": 2}, "b": {"open": "hoard", "factor": 3}})
    async with running(root, but(worker_memory_mib=200.0), first="a") as runner:
        switching = asyncio.create_task(runner.switch("b", "test"))
        while not switching.done():
            await asyncio.sleep(0.05)
            runner.tend()
        with pytest.raises(WorkerError, match="memory"):
            await switching
        assert (await runner.infer(ask(1.0))).rung == "a"


async def test_other_cache_settings_lose_nobody_who_waits(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"run": "slow"}})
    async with running(root) as runner:
        runner.configure(LadderSettings(cache=Cache(max_mib=1.0)))
        waiting = asyncio.create_task(runner.infer(ask(1.0, 1.0)))
        await asyncio.sleep(0.1)
        runner.configure(LadderSettings(cache=Cache(max_mib=2.0)))
        assert (await waiting).rung == "a"


async def test_an_artifact_that_is_gone_or_no_file_is_told_and_rests(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"factor": 2}, "b": {"factor": 3}, "c": {"factor": 4}})
    async with running(root, but(load_timeout_s=2.0)) as runner:
        (root / "b.json").unlink()
        with pytest.raises(LadderError, match=r"b\.json cannot be read: No such file"):
            await runner.switch("b", "test")
        assert runner.status().rungs[1].leave_alone_s > 0
        (root / "c.json").unlink()
        os.mkfifo(root / "c.json")  # as a disk that never answers
        with pytest.raises(LadderError, match=r"could not be read within 2 s"):
            await runner.switch("c", "test")
        assert values(await runner.infer(ask(1.0))) == [2.0]


async def test_a_worker_that_signals_nonsense_beside_a_good_answer(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"run": "slow"}})
    async with running(root, but(slots=2)) as runner:
        assert runner._seats.active is not None
        worker = runner._seats.active.workers[0]
        waiting = asyncio.create_task(runner.infer(ask(1.0)))
        await asyncio.sleep(0.4)
        answered = worker._channel
        assert answered is not None
        await waiting
        again = asyncio.create_task(runner.infer(ask(2.0)))
        await asyncio.sleep(0.05)
        Ring(answered._memory, 0, answered.capacity, answered.replies.eventfd).push([(999_999, 1)])
        assert (await again).rung == "a", "the worker is killed, and the request answered by the next"
        assert runner.status().pending == 0
