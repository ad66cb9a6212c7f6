"""What the governor reads off a runner: work without waiting, late answers, arrivals, what each rung runs on."""

import asyncio
import statistics
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, running, write_scripts
from faulty_requests import ask

from flyball.clock import SystemClock
from flyball.engine.book import RungBook
from flyball.errors import FlyballError
from flyball.ladder.manifest import load
from flyball.testing import FakeLadder


@pytest.mark.anyio
@pytest.mark.usefixtures("faulty")
async def test_work_and_lateness_are_those_of_the_answers(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"slow": {"run": "slow"}})
    async with running(root, msgspec.structs.replace(QUICK, lanes=1)) as runner:
        answers = await asyncio.gather(
            *(runner.infer(ask(1.0, 2.0)) for _ in range(3))
        )  # one after the other: two wait
        timings = [answer.timing for answer in answers]
        work_s = [t.pre_s + t.run_s + t.post_s for t in timings]
        deadline_s = sorted(t.total_s for t in timings)[1]
        window = runner.window(60.0, deadline_s)
        assert window is not None
        assert (window.count, window.late) == (3, 1)
        assert window.work_mean_s == pytest.approx(statistics.fmean(work_s))
        assert window.work_std_s == pytest.approx(statistics.stdev(work_s))
        assert window.work_mean_s < max(t.total_s for t in timings) - 0.1, "what the last one waited is no work"
        plain = runner.window(60.0)
        assert plain is not None
        assert plain.late is None


@pytest.mark.anyio
@pytest.mark.usefixtures("faulty")
async def test_every_request_that_came_is_counted_once_it_is_done_with(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"slow": {"run": "slow"}})
    async with running(root, msgspec.structs.replace(QUICK, slots=1, lanes=1, queue_limit=1)) as runner:
        tasks = [asyncio.create_task(runner.infer(ask(1.0, 2.0))) for _ in range(6)]
        await asyncio.sleep(0)
        totals = runner.totals()
        assert totals.success + sum(totals.failure.values()) + runner.status().pending == 6
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        refused = sum(isinstance(outcome, FlyballError) for outcome in outcomes)
        assert 0 < refused < 6
        totals = runner.totals()
        assert (totals.success, sum(totals.failure.values())) == (6 - refused, refused)


def test_a_rung_says_what_it_runs_on_or_would(tmp_path: Path) -> None:
    folder = load(write_scripts(tmp_path, {"a": {}, "b": {}}, extra='accelerators = ["edgetpu", "cpu"]'))
    book = RungBook(folder, QUICK, SystemClock())
    assert [entry.accelerator for entry in book.entries()] == ["cpu", "cpu"]
    book.limit_to({"cpu", "edgetpu"})
    assert [entry.accelerator for entry in book.entries()] == ["edgetpu", "edgetpu"]
    book.limit_to({"gpu"})
    assert [(entry.accelerator, entry.state) for entry in book.entries()] == [("", "no-accelerator")] * 2


def test_the_fake_ladder_tells_the_same() -> None:
    ladder = FakeLadder()
    ladder.measure(0.02, count=10)
    on_time, late = ladder.window(5.0, deadline_s=0.05), ladder.window(5.0, deadline_s=0.01)
    assert on_time is not None
    assert late is not None
    assert (on_time.late, late.late) == (0, 10)
    assert (on_time.work_mean_s, on_time.work_std_s) == (0.02, 0.0)
    ladder.measure(None)
    empty = ladder.window(5.0)
    assert empty is not None
    assert (empty.count, empty.work_mean_s, empty.late) == (0, None, None)
