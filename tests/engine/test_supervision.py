"""Workers looked after: canary, heartbeat, memory, crash loops, instances, batches, lanes; with real processes."""

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, children, running, write_scripts
from faulty_requests import ask, until, values

from flyball.errors import CanaryError, DeadlineError, OpenError, UnavailableError
from flyball.ladder.manifest import load
from flyball.ports import Answer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


def add_to_rungs(root: Path, line: str) -> Path:
    manifest = root / "flyball-ladder.toml"
    manifest.write_text(manifest.read_text().replace('backend = "faulty"', f'backend = "faulty"\n{line}'))
    return root


# ------------------------------------------------------------------------------------------------ canary, heartbeat


async def test_a_rung_whose_canary_is_not_the_manifests_is_not_opened(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    manifest = root / "flyball-ladder.toml"
    text = manifest.read_text().replace('name = "small"', 'name = "small"\ncanary = [[3.0]]')
    manifest.write_text(text.replace('name = "big"', 'name = "big"\ncanary = [[9.0]]'))
    async with running(root) as runner:
        assert runner.status().active == "small"
        with pytest.raises(CanaryError, match=r"t/big: the answer to the canary is wrong: output 0 is off by 7"):
            await runner.switch("big", "test")
        assert values(await runner.infer(ask(1.0, 2.0))) == [3.0, 6.0]
        big = runner.status().rungs[0]
        assert big.state == "failed"
        assert 0 < big.leave_alone_s <= QUICK.rest_s


async def test_a_worker_that_turns_wrong_is_found_by_its_heartbeat_and_replaced(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    root = write_scripts(tmp_path / "l", {"big": {"canary": "wrong", "marker": str(marker)}})
    config = msgspec.structs.replace(QUICK, heartbeat_s=0.05)
    async with running(root, config) as runner:
        await runner.infer(ask(1.0, 1.0))
        marker.touch()
        await until(lambda: runner.totals().worker_restarts == {"canary": 1}, tend=runner)
        marker.unlink()
        await until(lambda: runner.status().state == "ready", tend=runner)
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]


async def test_an_idle_worker_that_stopped_is_found_and_replaced_before_the_next_request(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}})
    config = msgspec.structs.replace(QUICK, heartbeat_s=0.05, request_timeout_s=0.3)
    async with running(root, config) as runner:
        (before,) = children()
        os.kill(before, signal.SIGSTOP)
        await until(lambda: sum(runner.totals().worker_restarts.values()) == 1, tend=runner)
        await until(lambda: runner.status().active == "big", tend=runner)
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]


async def test_a_ladder_that_has_not_answered_for_long_is_not_ready(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}})
    async with running(root, msgspec.structs.replace(QUICK, heartbeat_s=0.05)) as runner:
        assert runner.status().state == "ready"
        await asyncio.sleep(0.2)
        assert runner.status().state == "silent"
        await until(lambda: runner.status().state == "ready", tend=runner)


# ------------------------------------------------------------------------------------------------ memory, crash loops


async def test_a_worker_over_its_memory_limit_is_killed_and_started_again(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"run": "grow"}})
    config = msgspec.structs.replace(QUICK, worker_memory_mib=200.0)
    async with running(root, config) as runner:
        for _ in range(4):
            await runner.infer(ask(1.0, 1.0))
        runner.tend()
        await until(lambda: runner.totals().worker_restarts == {"memory": 1})
        await until(lambda: runner.status().state == "ready")
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]


async def test_a_crash_loop_ends_in_a_rest_and_another_rung_answers(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    config = msgspec.structs.replace(QUICK, crash_loop_limit=3, rest_s=60.0, restart_backoff_s=0.01)
    async with running(root, config, standby_bytes=0) as runner:
        for _ in range(3):
            await until(lambda: runner.status().active == "big")
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            await until(lambda: runner.status().active != "big")
        await until(lambda: runner.status().active == "small")
        assert values(await runner.infer(ask(1.0, 1.0))) == [3.0, 3.0]
        big = runner.status().rungs[0]
        assert "3 ends in a row: left alone for 60 s" in big.error
        assert 55 < big.leave_alone_s <= 60


# ------------------------------------------------------------------------------------------------ at once, together


async def test_requests_are_inside_a_worker_at_once_but_run_one_after_the_other(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"run": "slow"}})
    async with running(root) as runner:
        started_s = time.monotonic()
        answers = await asyncio.gather(*(runner.infer(ask(float(n), 1.0)) for n in range(4)))
        assert time.monotonic() - started_s >= 4 * 0.3
        assert [values(a)[0] for a in answers] == [0.0, 2.0, 4.0, 6.0]


async def test_waiting_requests_share_a_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    root = write_scripts(tmp_path / "l", {"big": {"free": True, "run": "slow", "log": str(log)}}, extra="batch = 4")
    async with running(root, msgspec.structs.replace(QUICK, lanes=1)) as runner:
        answers = await asyncio.gather(*(runner.infer(ask(float(n), 1.0)) for n in range(5)))
        assert [values(a) for a in answers] == [[2.0 * n, 2.0] for n in range(5)]
    assert log.read_text().split() == ["1", "4"]


async def test_the_first_of_a_batch_waits_for_the_others_but_not_into_its_deadline(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = {"free": True, "log": str(log)}
    root = write_scripts(tmp_path / "l", {"big": script}, extra="batch = 4\nbatch_delay_ms = 300")
    async with running(root) as runner:

        async def after(seconds: float) -> Answer:
            await asyncio.sleep(seconds)
            return await runner.infer(ask(1.0, 1.0))

        await asyncio.gather(after(0), after(0.03))
        assert log.read_text().split() == ["2"]
        started_s = time.monotonic()
        await runner.infer(ask(1.0, 1.0, timeout_s=0.15))
        assert time.monotonic() - started_s < 0.15


async def test_one_bad_request_spoils_no_other_of_its_batch(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    script = {"free": True, "run": "error", "marker": str(marker)}
    root = write_scripts(tmp_path / "l", {"big": script}, extra="batch = 4\nbatch_delay_ms = 100")
    async with running(root) as runner:
        both = asyncio.gather(*(runner.infer(ask(*[1.0] * n)) for n in (2, 3)), return_exceptions=True)
        assert [values(a) for a in await both if isinstance(a, Answer)] == [[2.0] * 2, [2.0] * 3], (
            "other shapes run apart"
        )
        marker.touch()
        failed = await asyncio.gather(*(runner.infer(ask(1.0, 1.0)) for _ in range(2)), return_exceptions=True)
        assert all("this artifact says no" in str(error) for error in failed)


async def test_a_batch_needs_a_free_first_size(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {}}, extra="batch = 4")
    with pytest.raises(UnavailableError, match="`batch` needs an artifact whose first size is free"):
        async with running(root):
            pass


async def test_instances_answer_beside_each_other_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"run": "slow"}}, extra="instances = 2")
    async with running(root, msgspec.structs.replace(QUICK, lanes=1)) as runner:
        started_s = time.monotonic()
        await asyncio.gather(*(runner.infer(ask(1.0, 1.0)) for _ in range(2)))
        assert time.monotonic() - started_s < 2 * 0.3
        os.kill(children()[0], signal.SIGKILL)
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]
        await until(lambda: len(children()) == 2)
        assert runner.status().state == "ready"


# ------------------------------------------------------------------------------------------------ in time


async def test_a_requests_own_limit_picks_the_strongest_warm_rung_that_meets_it(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"run": "slow"}, "middle": {"factor": 3}, "small": {"factor": 4}})
    async with running(root) as runner:
        await runner.switch("middle", "test")
        await runner.switch("big", "test")
        for _ in range(20):  # until the pace has learnt that the canary was quicker than the requests
            await runner.infer(ask(1.0, 1.0))
            if runner._seats.active.pace.own_s > 0.2:
                break
        assert (await runner.infer(ask(1.0, 1.0, timeout_s=2.0))).rung == "big"
        assert (await runner.infer(ask(1.0, 1.0, timeout_s=0.1))).rung == "middle"


async def test_a_request_that_cannot_make_its_deadline_is_refused_at_once(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"run": "slow"}})
    async with running(root, standby_bytes=0) as runner:
        for _ in range(10):
            await runner.infer(ask(1.0, 1.0))
        ahead = [asyncio.create_task(runner.infer(ask(1.0, 1.0))) for _ in range(4)]
        await asyncio.sleep(0)
        started_s = time.monotonic()
        with pytest.raises(DeadlineError, match="4 requests are ahead"):
            await runner.infer(ask(1.0, 1.0, timeout_s=0.5))
        assert time.monotonic() - started_s < 0.05
        await asyncio.gather(*ahead)


async def test_the_first_answer_comes_from_the_smallest_rung_and_the_strongest_follows(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2, "pad": "x" * 100, "open": "slow"}, "small": {"factor": 3}})
    from faulty_ladders import catalogue

    async with catalogue() as catalog:
        await catalog.load(load(root))
        runner = catalog.get("t")
        assert (await runner.infer(ask(1.0, 1.0))).rung == "small"
        assert runner.status().state == "degraded"
        await until(lambda: runner.status().state == "ready")
        assert (await runner.infer(ask(1.0, 1.0))).rung == "big"


async def test_a_climb_that_fails_leaves_what_answers(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"open": "error", "pad": "x" * 100}, "small": {"factor": 3}})
    async with running(root) as runner:
        assert runner.status().state == "ready"
        assert runner.status().active == "small"
        with pytest.raises(OpenError):
            await runner.switch("big", "test")
