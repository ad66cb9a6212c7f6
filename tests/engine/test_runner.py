"""Runners with real worker processes: answers, switches, deadlines."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, running, write_scripts
from faulty_requests import ask, until, values

from flyball.errors import (
    DeadlineError,
    LadderError,
    NotFoundError,
    QueueFullError,
    RequestError,
    TooLargeError,
    UnavailableError,
    WorkerError,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


async def test_an_answer_from_the_strongest_rung(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    async with running(root) as runner:
        answer = await runner.infer(ask(1.5, -2.0))
        assert values(answer) == [3.0, -4.0]
        assert answer.rung == "big"
        assert (answer.outputs[0].name, answer.outputs[0].shape) == ("y", (1, 2))
        assert 0 < answer.timing.run_s < answer.timing.total_s
        status = runner.status()
        assert (status.state, status.active, status.pending) == ("ready", "big", 0)
        assert [r.state for r in status.rungs] == ["active", "closed"]
        assert status.rungs[0].profiled_p50_s is not None
        assert (status.rungs[0].rss_bytes or 0) > 1 << 20
        assert runner.totals().success == 1


async def test_a_switch_loses_no_request(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    async with running(root) as runner:
        stop = asyncio.Event()
        rungs: list[str] = []

        async def client() -> None:
            while not stop.is_set():
                answer = await runner.infer(ask(1.0, 1.0))
                assert values(answer) == ([2.0, 2.0] if answer.rung == "big" else [3.0, 3.0])
                rungs.append(answer.rung)

        clients = [asyncio.create_task(client()) for _ in range(6)]
        for target in ("small", "big") * 3:
            report = await runner.switch(target, "test")
            assert report.gap_s == 0
            await asyncio.sleep(0.05)
        stop.set()
        await asyncio.gather(*clients)
        assert {"big", "small"} == set(rungs)
        assert runner.totals().failure == {}
        assert runner.totals().success == len(rungs)
        assert sum(runner.totals().switches.values()) == 6


async def test_a_switch_to_what_is_active_is_nothing(tmp_path: Path) -> None:
    async with running(write_scripts(tmp_path, {"big": {}})) as runner:
        report = await runner.switch("big", "test")
        assert (report.source, report.target, report.open_s) == ("big", "big", 0)
        assert runner.totals().switches == {}


async def test_a_standby_rung_is_back_at_once(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {}})
    async with running(root) as runner:
        first = await runner.switch("small", "test")
        assert [r.state for r in runner.status().rungs] == ["standby", "active"]
        second = await runner.switch("big", "test")
        assert second.open_s < first.open_s / 5


async def test_a_rung_asked_for_by_name(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    async with running(root) as runner:
        assert values(await runner.infer(ask(1.0, 1.0, rung="small"))) == [3.0, 3.0]
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]
        with pytest.raises(NotFoundError, match="no rung 'huge'"):
            await runner.infer(ask(1.0, 1.0, rung="huge"))


async def test_without_room_for_standby_rungs_are_closed(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3}})
    async with running(root, standby_bytes=0) as runner:
        await runner.switch("small", "test")
        assert len(_children()) == 1
        assert [r.state for r in runner.status().rungs] == ["closed", "active"]
        with pytest.raises(UnavailableError, match="standby_memory_mib"):
            await runner.infer(ask(1.0, 1.0, rung="big"))
        assert len(_children()) == 1
        assert values(await runner.infer(ask(1.0, 1.0))) == [3.0, 3.0]


async def test_a_target_that_does_not_open_leaves_the_active_rung(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "no": {"open": "error"}, "crash": {"open": "segfault"}})
    async with running(root) as runner:
        with pytest.raises(WorkerError, match="says no"):
            await runner.switch("no", "test")
        with pytest.raises(WorkerError, match="signal 11"):
            await runner.switch("crash", "test")
        with pytest.raises(NotFoundError):
            await runner.switch("nothing", "test")
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]
        status = runner.status()
        assert (status.state, status.active) == ("ready", "big")
        assert [r.state for r in status.rungs] == ["active", "failed", "failed"]
        assert "says no" in status.rungs[1].error


async def test_a_worker_that_hangs_while_loading_is_killed(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "hang": {"open": "hang"}})
    config = msgspec.structs.replace(QUICK, load_timeout_s=2.0)
    async with running(root, config) as runner:
        with pytest.raises(WorkerError, match=r"did not finish 'open' within 2 s"):
            await runner.switch("hang", "test")
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]


async def test_a_ladder_starts_on_the_next_rung_that_opens(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"crash": {"open": "abort"}, "no": {"open": "error"}, "small": {"factor": 3}})
    async with running(root) as runner:
        assert values(await runner.infer(ask(1.0, 1.0))) == [3.0, 3.0]
        assert [r.state for r in runner.status().rungs] == ["failed", "failed", "active"]


async def test_a_ladder_of_which_nothing_opens(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"a": {"open": "exit"}, "b": {"open": "error"}})
    with pytest.raises(UnavailableError, match="says no"):
        async with running(root):
            pytest.fail("it started")


async def test_a_changed_artifact_is_not_opened(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}, "small": {}})
    async with running(root) as runner:
        (root / "small.json").write_text("{}  ")
        with pytest.raises(LadderError, match="expected sha256"):
            await runner.switch("small", "test")
        assert runner.status().active == "big"


async def test_mistakes_of_the_caller(tmp_path: Path) -> None:
    async with running(write_scripts(tmp_path, {"big": {}}, extra="")) as runner:
        request = ask(1.0, 2.0)
        with pytest.raises(RequestError, match="'x' is missing"):
            await runner.infer(replace(request, inputs=()))
        big = bytes((16 << 20) + 4096)
        tensor = replace(request.inputs[0], data=big, shape=(1, len(big) // 4))
        with pytest.raises(TooLargeError, match="max_input_bytes"):
            await runner.infer(replace(request, inputs=(tensor,)))
        assert values(await runner.infer(request)) == [2.0, 4.0]
        assert runner.totals().failure == {"OTHER": 2}


async def test_an_error_in_the_backend_is_an_answer(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    root = write_scripts(tmp_path / "l", {"big": {"run": "surprise", "marker": str(marker)}})
    async with running(root) as runner:
        marker.touch()
        with pytest.raises(WorkerError, match="RuntimeError: not a BackendError"):
            await runner.infer(ask(1.0, 2.0))
        marker.unlink()
        assert values(await runner.infer(ask(1.0, 2.0))) == [2.0, 4.0]
        assert runner.totals().worker_restarts == {}


async def test_deadlines_and_the_bounded_queue(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"run": "slow"}})
    config = msgspec.structs.replace(QUICK, slots=1, lanes=1, queue_limit=1)
    async with running(root, config) as runner:
        with pytest.raises(DeadlineError):
            await runner.infer(ask(1.0, 2.0, timeout_s=0.1))
        waiting = asyncio.create_task(runner.infer(ask(1.0, 2.0)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await runner.infer(ask(1.0, 2.0))
        assert values(await waiting) == [2.0, 4.0], "the slot of the request that gave up came back"
        assert runner.totals().failure == {"REJECTED": 2}


async def test_callers_that_leave_give_their_slots_back(tmp_path: Path) -> None:
    async with running(write_scripts(tmp_path, {"big": {"run": "slow"}})) as runner:
        tasks = [asyncio.create_task(runner.infer(ask(1.0, 2.0))) for _ in range(8)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert values(await runner.infer(ask(1.0, 2.0))) == [2.0, 4.0]
        await until(lambda: runner.status().pending == 0)  # the other lane may have the last of those that left


async def test_nothing_is_left_after_close(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    async with running(write_scripts(tmp_path, {"big": {}, "small": {}})) as runner:
        await runner.infer(ask(1.0, 2.0))
        await runner.switch("small", "test")
        pids = {int(p) for p in _children()}
        assert len(pids) == 2
    assert set(os.listdir("/proc/self/fd")) - before == set()
    assert not {int(p) for p in _children()} & pids


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.engine.seats.available_bytes", lambda: 1 << 20)


@pytest.mark.usefixtures("short_of_memory")
async def test_without_memory_for_two_rungs_they_are_swapped_in_place(tmp_path: Path) -> None:
    """The old worker ends before the new one opens; requests wait out the gap, which the report states."""
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"factor": 3, "open": "slow"}})
    async with running(root) as runner:
        stop = asyncio.Event()
        rungs: list[str] = []

        async def client() -> None:
            while not stop.is_set():
                rungs.append((await runner.infer(ask(1.0))).rung)

        clients = [asyncio.create_task(client()) for _ in range(4)]
        await asyncio.sleep(0.05)
        report = await runner.switch("small", "test")
        await asyncio.sleep(0.05)
        stop.set()
        await asyncio.gather(*clients)
        assert report.gap_s > 0.2
        assert {"big", "small"} == set(rungs)
        assert runner.totals().failure == {}
        assert [r.state for r in runner.status().rungs] == ["closed", "active"], "nothing stands by"


@pytest.mark.usefixtures("short_of_memory")
async def test_a_swap_in_place_that_fails_brings_the_old_rung_back(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}, "small": {"open": "error"}})
    async with running(root) as runner:
        with pytest.raises(WorkerError):
            await runner.switch("small", "test")
        assert (await runner.infer(ask(1.0))).rung == "big"


async def test_a_lane_that_polls_answers_at_once_and_after_a_rest(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"factor": 2}})
    async with running(root, msgspec.structs.replace(QUICK, wake="poll")) as runner:
        assert [values(await runner.infer(ask(float(n)))) for n in range(50)] == [[2.0 * n] for n in range(50)]
        await asyncio.sleep(0.05)  # far longer than it polls: it has gone to sleep
        assert values(await runner.infer(ask(7.0))) == [14.0]
