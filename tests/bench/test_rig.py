"""What the serving benchmarks compute, apart from how long anything takes: percentiles, goodput, LoadGen's summary."""

import asyncio
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import flyball.errors
from flyball.config import Engine
from flyball.ports import Answer, InferRequest, Tensor, Timing

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield {name: importlib.import_module(name) for name in ("_rig", "overload", "loadgen")}


@pytest.fixture
def rig(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["_rig"]


@pytest.fixture
def overload(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["overload"]


@pytest.fixture
def loadgen(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["loadgen"]


def test_a_percentile_is_a_value_that_was_measured(rig: ModuleType) -> None:
    values = [float(v) for v in range(100, 0, -1)]
    assert rig.percentile(values, 0.5) == 50
    assert rig.percentile(values, 0.99) == 99
    assert rig.percentile(values, 1.0) == 100
    assert rig.percentile([7.0], 0.01) == 7
    assert rig.percentile([], 0.99) == 0


@pytest.mark.anyio
async def test_a_ladder_of_one_file_answers(rig: ModuleType, shared_data: Path) -> None:
    async with rig.running(rig.SMALL, Engine(threads=1)) as runner:
        pictures = rig.images(runner.interface, 2)
        first, second = await rig.answers_of(runner, pictures)
        assert len(first) == 1001
        assert first != second
        load = await rig.closed_loop(runner, pictures, 2, 0.1)
    assert load.latencies_s
    assert load.per_s <= len(load.latencies_s) / 0.1


def test_arrivals_are_poisson_and_the_same_every_time(overload: ModuleType) -> None:
    times = overload.schedule(1000, 20.0, np.random.default_rng(1))
    assert times == overload.schedule(1000, 20.0, np.random.default_rng(1))
    gaps = np.diff(times)
    assert times[-1] < 20
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05)


def block(overload: ModuleType, load: float, *arrivals: tuple[str, float, float]) -> Any:
    made = [overload.Arrival(kind=k, due_s=due, lag_s=0.001, ended_s=end) for k, due, end in arrivals]
    return overload.Block(load=load, seconds=10.0, arrivals=made)


def test_only_right_answers_in_time_count_as_goodput(overload: ModuleType) -> None:
    counted = [("answered", 3.0 + i / 10, 3.05 + i / 10) for i in range(16)]
    not_counted = [
        ("answered", 1.0, 1.05),  # the queue is still filling
        ("answered", 9.96, 10.01),  # after the last arrival
        ("answered", 5.0, 5.2),  # late
        ("wrong", 6.0, 6.01),
        ("refused", 7.0, 7.001),
        ("expired", 8.0, 8.1),
        ("failed", 9.0, 9.1),
    ]
    assert block(overload, 5.0, *counted, *not_counted).goodput(0.1) == pytest.approx(16 / 8)


def test_the_figures_of_an_overload(overload: ModuleType) -> None:
    calm = block(overload, 1.0, *[("answered", 2 + i / 2, 2.02 + i / 2) for i in range(16)])
    flood = block(
        overload,
        5.0,
        *[("answered", 2.0 + i, 2.08 + i) for i in range(8)],
        *[("refused", 2.5 + i, 2.503 + i) for i in range(7)],
        *[("expired", 4.5, 4.6), ("wrong", 4.6, 4.61), ("failed", 4.7, 4.71), ("answered", 5.5, 5.65)],
    )
    figures = overload.judge([calm, flood], 0.1)
    assert figures["goodput_1x"] == 2.0
    assert figures["goodput_5x"] == 1.0
    assert figures["goodput_at_5x_ratio"] == 0.5
    assert figures["accepted_p99_over_deadline"] == 1.5, "answers that came late are answers"
    assert figures["refusal_p99_ms"] == 100.0, "one that had waited before it was refused is a refusal too"
    assert figures["expired_at_5x_pct"] == pytest.approx(100 / 19, abs=0.001)
    assert figures["late_at_5x_pct"] == pytest.approx(100 / 19, abs=0.001)
    assert figures["error_pct"] == pytest.approx(100 * 2 / 35, abs=0.001)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("waits", "error", "kind"),
    [
        (0.0, "QueueFullError", "refused"),
        (0.05, "QueueFullError", "refused"),
        (0.0, "DeadlineError", "refused"),
        (0.05, "DeadlineError", "expired"),
        (0.0, "WorkerError", "failed"),
        (0.0, "", "answered"),
    ],
)
async def test_a_refusal_is_told_from_a_deadline_that_ran_out(
    overload: ModuleType, waits: float, error: str, kind: str
) -> None:
    picture = Tensor("x", "UINT8", (1,), b"x")

    class Runner:
        async def infer(self, request: InferRequest) -> Answer:
            if waits:
                await asyncio.sleep(waits)
            if error:
                raise getattr(flyball.errors, error)("no")
            timing = Timing(queue_s=0, pre_s=0, run_s=0, post_s=0, total_s=0)
            return Answer(outputs=request.inputs, rung="r", timing=timing)

    target = overload.Target(Runner(), [picture], [b"x"], 1.0)
    arrival = await target.ask(3, time.perf_counter(), 0.0)
    assert arrival.kind == kind
    assert arrival.took_s >= waits * 0.9  # uvloop's timers have whole milliseconds


SUMMARY = """
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : SingleStream
Mode     : PerformanceOnly
90.0th percentile latency (ns) : 4432635
Result is : VALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
Early Stopping Result:
 * Processed at least 64 queries (910).
 * Early stopping 90.0th percentile estimate: 4684150

QPS w/ loadgen overhead         : 226.77
99.00 percentile latency (ns)   : 9027021
"""


def test_the_summary_of_loadgen_is_read(loadgen: ModuleType) -> None:
    summary = loadgen.parse(SUMMARY, "singlestream")
    assert summary.valid
    assert summary.early_stopping is True
    assert (summary.percentile_ms, summary.estimate_ms) == (4.432635, 4.68415)
    assert summary.p99_ms == 9.027021
    bad = SUMMARY.replace(": VALID", ": INVALID").replace("satisfied: Yes", "satisfied: NO")
    assert not loadgen.parse(bad, "singlestream").valid
    assert loadgen.parse(bad, "singlestream").early_stopping is False
    server = loadgen.parse("Completed samples per second    : 145.70\nResult is : VALID\n", "server")
    assert (server.per_s, server.early_stopping, server.percentile_ms) == (145.7, None, None)
    with pytest.raises(SystemExit, match="no result"):
        loadgen.parse("", "server")
