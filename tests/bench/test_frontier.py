"""What bench/frontier.py makes of its points, and of wrong arguments."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("frontier")


@pytest.mark.parametrize(
    ("late", "most"),
    [
        (0.03, 0.9),  # later than all: the most accurate
        (0.025, 0.9),
        (0.015, 0.85),  # half way between the two ends, above the point inside
        (0.005, 0.8),
        (0.001, None),
    ],
)
def test_the_edge_is_of_mixtures(bench: ModuleType, late: float, most: float | None) -> None:
    points = [(0.005, 0.8), (0.016, 0.81), (0.025, 0.9)]
    assert bench.edge(points, late) == (None if most is None else pytest.approx(most))


def test_what_has_to_be_given_up_is_of_the_oracles_accuracy(bench: ModuleType) -> None:
    oracle, hysteresis = (0.025, 0.9), (0.005, 0.7)  # so 1.5 % late may be had
    assert bench.loss_pct([oracle, hysteresis, (0.005, 0.8), (0.025, 0.9)]) == pytest.approx(100 * 0.05 / 0.9)
    assert bench.loss_pct([oracle, hysteresis, (0.001, 0.95)]) == 0.0, "more than the oracle: nothing is given up"
    assert bench.loss_pct([oracle, hysteresis, (0.1, 0.95)]) is None, "none of the paths is late so seldom"


def test_a_quick_run_finds_the_gap_that_no_law_bridges() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "frontier.py", "--quick", "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["least_loss_worst"] == "mobilenets/arrival-bursts"
    assert figures["least_loss_pct"] > 2.0
    assert figures["seeds"] == 2


@pytest.mark.parametrize("name", ["mobilenets", "nobody/steady", "defects/nothing", "/"])
def test_a_trace_that_is_not_there_is_told(name: str) -> None:
    done = subprocess.run([sys.executable, BENCH / "frontier.py", "--trace", name], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"--trace {name}: expected defects or mobilenets, a slash and one of steady, cpu-bursts" in done.stderr
