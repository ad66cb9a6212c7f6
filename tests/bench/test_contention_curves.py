"""What bench/contention.py makes of what it saw, apart from how long anything takes."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from flyball.ports import RungStatus, Timing

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("contention"), importlib.import_module("_curves")


def cell(contention: ModuleType, level: int, works_ms: list[float], **seen: Any) -> Any:
    timings = [
        Timing(queue_s=0.5, pre_s=ms / 4000, run_s=ms / 2000, post_s=ms / 4000, total_s=0.5 + ms / 1000)
        for ms in works_ms
    ]
    return contention.Cell(burners_per_core=level, burners=2 * level, timings=timings, **seen)


def rung(modules: tuple[ModuleType, ModuleType], name: str, alone: list[float], beside: dict[int, list[float]]) -> Any:
    contention, _ = modules
    subject = contention.Subject("mobilenet", name, None, None, 0.5, "a source", 0.3)
    cells = {0: cell(contention, 0, alone)} | {n: cell(contention, n, works) for n, works in beside.items()}
    status = RungStatus(name=name, state="standby", load_s=0.1, rss_bytes=1000)
    return contention.rung_of(subject, status, cells, cell(contention, 0, [3.0, 3.0]), 6.0)


def result(modules: tuple[ModuleType, ModuleType], *rungs: Any) -> Any:
    return modules[1].Contention(
        date="2026-01-01", machine="m", cpus=2, autogroup=True, idle_w=6.0, load_w=18.0, power_basis="a guess",
        per_s=20.0, seconds=1.0, rungs=rungs,
    )  # fmt: skip


def test_work_is_without_waiting_and_signals_are_means(modules: tuple[ModuleType, ModuleType]) -> None:
    seen = cell(
        modules[0], 3, [1.0, 2.0, 3.0, 10.0], runnable=[6, 8], rivals=[6, 6], utilization=[0.9, 1.0],
        stalls=[(2.0, 1_000_000), (2.0, 2_000_000)],
    )  # fmt: skip
    level = seen.level()
    assert (level.burners_per_core, level.burners, level.n) == (3, 6, 4)
    assert level.work_mean_s == pytest.approx(0.004)
    assert level.work_std_s == pytest.approx(0.0040825, abs=1e-6)
    assert (level.work_p50_s, level.work_p95_s) == (pytest.approx(0.002), pytest.approx(0.010))
    assert level.total_p50_s == pytest.approx(0.502)
    assert (level.runnable, level.rivals, level.cpu_utilization, level.cpu_some) == (7.0, 6.0, 0.95, 0.75)


def test_what_was_not_seen_is_not_known(modules: tuple[ModuleType, ModuleType]) -> None:
    level = cell(modules[0], 0, [1.0]).level()
    assert (level.work_std_s, level.runnable, level.rivals, level.cpu_utilization, level.cpu_some) == (None,) * 5


def test_both_times_alone_count_and_their_quotient_is_the_drift(modules: tuple[ModuleType, ModuleType]) -> None:
    found = rung(modules, "v1_0.25_128", [1.0, 2.0, 2.0, 1.0], {8: [4.0]})
    assert found.drift == 2.0
    assert (found.levels[0].n, found.levels[0].work_mean_s) == (6, pytest.approx(0.002))
    assert found.joules == pytest.approx(0.002 * 6.0)
    assert modules[1].slow_downs(found.levels) == {0: 1.0, 8: 2.0}


def test_the_last_line_names_the_small_the_large_and_the_worst(modules: tuple[ModuleType, ModuleType]) -> None:
    small = rung(modules, "v1_0.25_128", [3.0, 3.0], {2: [3.0], 8: [3.3]})
    large = rung(modules, "v2_1.0_224", [3.0, 3.0], {2: [6.0], 8: [9.0]})
    other = rung(modules, "r224-fp32", [1.5, 1.5], {2: [12.0], 8: [9.0]})
    found = modules[1].summary(result(modules, small, large, other))
    assert found == {
        "rungs": 3,
        "levels": 3,
        "worst_slow_down": pytest.approx(12 / 2.25, abs=1e-3),
        "slow_down_small_at_8": 1.1,
        "slow_down_large_at_8": 3.0,
        "worst_drift": 2.0,
    }
    assert modules[1].summary(result(modules, other))["slow_down_small_at_8"] is None
    assert len(modules[1].table(result(modules, small, large)).splitlines()) == 3


def test_the_committed_figures_are_what_a_reader_of_the_file_gets(modules: tuple[ModuleType, ModuleType]) -> None:
    _, curves = modules
    made = result(modules, rung(modules, "v1_0.25_128", [3.0, 3.0], {8: [4.0]}))
    assert msgspec.json.decode(msgspec.json.encode(made), type=curves.Contention) == made
    committed = BENCH / "contention.json"
    if committed.exists():
        found = msgspec.json.decode(committed.read_bytes(), type=curves.Contention)
        assert {level.burners_per_core for r in found.rungs for level in r.levels} == {0, 1, 2, 3, 4, 6, 8}
        assert all(level.n > 1 for r in found.rungs for level in r.levels)


def test_a_quick_run_is_not_committed() -> None:
    command = [sys.executable, BENCH / "contention.py", "--quick", "--write"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--write is for a whole run" in done.stderr
