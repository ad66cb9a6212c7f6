"""Workers that die or hang while a ladder serves: every request is answered or refused with a reason."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, running, write_scripts
from faulty_requests import ask, values

from flyball.engine.runner import LadderRunner
from flyball.errors import WorkerError
from flyball.events import Event

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


async def until_ready(runner: LadderRunner, rung: str, limit_s: float = 5.0) -> None:
    end_s = time.monotonic() + limit_s
    while (runner.status().active, runner.status().state) != (rung, "ready"):
        assert time.monotonic() < end_s, runner.status()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["segfault", "abort", "exit"])
async def test_a_crash_in_the_middle_of_a_request(tmp_path: Path, how: str) -> None:
    marker = tmp_path / "marker"
    root = write_scripts(tmp_path / "l", {"big": {"run": how, "marker": str(marker)}, "small": {"factor": 3}})
    events: list[Event] = []
    async with running(root, heard=events.append) as runner:
        await runner.switch("small", "test")
        await runner.switch("big", "test")
        marker.touch()
        assert values(await runner.infer(ask(1.0, 1.0))) == [3.0, 3.0], "the standby rung answers the same request"
        marker.unlink()
        await until_ready(runner, "big")
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]
        assert sum(runner.totals().worker_restarts.values()) == 1
        assert [e.kind for e in events] == ["worker_exited", "worker_restarted"]


async def test_without_a_standby_the_request_waits_for_the_restart(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    root = write_scripts(tmp_path / "l", {"big": {"run": "ok"}})
    del marker
    async with running(root) as runner:
        (pid,) = workers()
        os.kill(pid, signal.SIGKILL)
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]
        assert runner.totals().worker_restarts == {"signal": 1}


async def test_a_request_that_kills_every_worker_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    root = write_scripts(tmp_path / "l", {"big": {"run": "segfault", "marker": str(marker)}})
    async with running(root) as runner:
        marker.touch()
        with pytest.raises(WorkerError, match="the request failed: the worker ended"):
            await runner.infer(ask(1.0, 1.0))
        marker.unlink()
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]


async def test_a_hung_worker_is_killed_and_the_request_answered_elsewhere(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    root = write_scripts(tmp_path / "l", {"big": {"run": "hang", "marker": str(marker)}, "small": {"factor": 3}})
    config = msgspec.structs.replace(QUICK, request_timeout_s=2.0)
    async with running(root, config) as runner:
        await runner.switch("small", "test")
        await runner.switch("big", "test")
        marker.touch()
        with pytest.raises(Exception, match="no answer within"):
            await runner.infer(ask(1.0, 1.0, timeout_s=0.2))
        assert values(await runner.infer(ask(1.0, 1.0, rung="small"))) == [3.0, 3.0]
        end_s = time.monotonic() + 4
        while runner.totals().worker_restarts != {"hung": 1}:
            assert time.monotonic() < end_s
            await asyncio.sleep(0.02)
        marker.unlink()
        await until_ready(runner, "big")


async def test_stopped_workers_are_taken_for_hung(tmp_path: Path) -> None:
    root = write_scripts(tmp_path / "l", {"big": {}})
    config = msgspec.structs.replace(QUICK, request_timeout_s=2.0)
    async with running(root, config) as runner:
        (pid,) = workers()
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.1)  # a thread of it may still answer until the signal has reached all of them
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]
        assert runner.totals().worker_restarts == {"hung": 1}


async def test_the_standard_error_of_a_worker_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_scripts(tmp_path / "l", {"big": {}, "crash": {"open": "segfault"}})
    os.environ["PYTHONFAULTHANDLER"] = "1"
    try:
        async with running(root) as runner:
            with pytest.raises(WorkerError, match="it wrote: "):
                await runner.switch("crash", "test")
    finally:
        del os.environ["PYTHONFAULTHANDLER"]
    assert "[t/crash] Fatal Python error: Segmentation fault" in caplog.text


def test_workers_do_not_outlive_a_killed_daemon(tmp_path: Path) -> None:
    root = write_scripts(tmp_path / "l", {"big": {}})
    here = Path(__file__).parent
    code = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(here)!r})\n"
        "from faulty_ladders import running\n"
        "async def main():\n"
        f"    async with running(Path({str(root)!r})):\n"
        "        print('up', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    daemon = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"up\n"
        children = [int(p) for p in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()]
        assert len(children) == 1
    finally:
        daemon.kill()
        daemon.wait()
    end_s = time.monotonic() + 3
    while any(Path(f"/proc/{pid}").exists() and "Z" not in stat(pid) for pid in children):
        assert time.monotonic() < end_s, "a worker outlived its daemon"
        time.sleep(0.01)


def stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def workers() -> list[int]:
    return [int(p) for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
