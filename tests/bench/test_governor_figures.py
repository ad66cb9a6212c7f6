"""What bench/governor.py makes of the scores, and of wrong arguments; no trace is run here."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from flyball.errors import ConfigError, FlyballError
from flyball.governor.replay import standard
from flyball.governor.replay.score import Score

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("governor")


def one(policy: str, violations: float | None, accuracy: float | None, **other: Any) -> Score:
    usual: dict[str, Any] = dict.fromkeys(Score.__struct_fields__, 0)
    usual |= {"policy": policy, "requests": 100, "answered": 100, "violations": violations, "accuracy": accuracy}
    known = violations is not None and accuracy is not None
    usual["on_time_accuracy"] = (1.0 - violations) * accuracy if known else None
    usual |= {"joules_per_answer": 1.0, "gross_joules_per_answer": 10.0}
    return Score(**{**usual, **other})


def seeds(
    governor: tuple[float | None, float | None],
    hysteresis: tuple[float | None, float | None] = (0.02, 0.9),
    oracle: tuple[float, float] = (0.02, 0.9),
    own: dict[str, Any] | None = None,
    best: dict[str, Any] | None = None,
) -> list[dict[str, Score]]:
    """Four seeds of (violations, accuracy), each off by its own little."""
    found = []
    for i in range(4):
        off = 1e-4 * i
        named = {"governor": governor, "hysteresis": hysteresis, "oracle": oracle, "static": oracle}
        extras = {"governor": own or {}, "oracle": best or {}}
        found.append(
            {
                name: one(
                    name,
                    None if pair[0] is None else pair[0] + off * (name == "governor"),
                    None if pair[1] is None else pair[1] - off * (name == "governor"),
                    **extras.get(name, {}),
                )
                for name, pair in named.items()
            }
        )
    return found


@pytest.mark.parametrize(
    ("governor", "better", "worse", "worse_on_time"),
    [
        ((0.010, 0.900), True, False, False),  # fewer late
        ((0.020, 0.900), False, False, False),  # the same, but for chance
        ((0.025, 0.950), True, False, False),  # half a point more late, but surely truer
        ((0.035, 0.950), False, True, False),  # truer, and more than a point more late: more are right and in time
        ((0.020, 0.880), False, True, True),  # two points less accurate for nothing
        ((0.010, 0.880), True, False, True),  # two points less accurate, and one fewer late
    ],
)
def test_better_and_worse(
    bench: ModuleType, governor: tuple[float, float], better: bool, worse: bool, worse_on_time: bool
) -> None:
    found = seeds(governor)
    assert (bench.better(found), bench.worse(found)) == (better, worse)
    assert bench.worse_on_time(found) is worse_on_time


def test_one_seed_proves_nothing(bench: ModuleType) -> None:
    assert not bench.better(seeds((0.010, 0.900))[:1])


def test_the_worst_trace_counts_and_the_weaker_ladder(bench: ModuleType) -> None:
    found = {
        ("defects", "steady"): seeds((0.020, 0.900)),
        ("defects", "cpu-bursts"): seeds((0.010, 0.890)),
        ("defects", "boundary"): seeds((0.020, 0.890), own={"switches_per_h": 4.0}),
        ("mobilenets", "cpu-bursts"): seeds((0.030, 0.905), own={"gross_joules_per_answer": 10.2, "throttled_s": 3.0}),
        # judged by violations alone, and throttled where the oracle is too
        ("mobilenets", "sensor-drop-out"): seeds(
            (0.025, 0.800),
            own={"gross_joules_per_answer": 90.0, "throttled_s": 9.0},
            best={"throttled_s": 1.0},
        ),
        ("mobilenets", "boundary"): seeds((0.020, 0.900), own={"switches_per_h": 2.0}),
    }
    figures = bench.figures(found)
    assert figures["violation_gap_points"] == pytest.approx(1.015, abs=0.006)
    assert figures["violation_gap_worst"] == "mobilenets/cpu-bursts"
    assert figures["accuracy_gap_pct"] == pytest.approx(100 * 0.01015 / 0.9, abs=0.01)
    assert figures["energy_gap_pct"] == pytest.approx(2.0)
    assert figures["net_energy_gap_pct"] == 0.0
    assert figures["better_than_hysteresis"] == 0, "one of the defects' traces, none of the MobileNets'"
    assert figures["dynamic_traces"] == 2
    assert figures["worse_by_over_1"] == 2
    assert figures["worse_on_time_by_over_1"] == 1
    assert figures["boundary_switches_per_h"] == 4.0
    assert figures["boundary_accuracy_gap_pct"] == pytest.approx(100 * 0.01015 / 0.9, abs=0.01)
    assert figures["throttled_s"] == 3.0
    assert figures["seeds"] == 4
    assert isinstance(figures["decision_us"], float)


def test_where_the_oracle_throttles_too_nothing_is_said(bench: ModuleType) -> None:
    every = seeds((0.02, 0.9), own={"throttled_s": 5.0}, best={"throttled_s": 5.0})
    found = {("defects", trace): every for trace in ("cpu-bursts", "boundary")}
    assert bench.figures(found)["throttled_s"] is None


def test_who_answered_nothing_has_no_gap_of_0(bench: ModuleType) -> None:
    silent = seeds((1.0, None))
    with pytest.raises(FlyballError, match="no accuracy for some seed"):
        bench.gap_pct(silent, "oracle", "accuracy")
    with pytest.raises(FlyballError, match="hysteresis has no accuracy"):
        bench.better(seeds((0.02, 0.9), hysteresis=(1.0, None)))


def test_the_baseline_is_tuned_on_other_seeds_than_it_is_scored_on(bench: ModuleType) -> None:
    assert set(bench.GRID_SEEDS) == set(range(10))
    assert set(bench.SEEDS) == set(range(100, 120))
    assert set(bench.QUICK_SEEDS) <= set(bench.SEEDS)
    grid = msgspec.json.decode(bench.GRID.read_bytes(), type=bench.Grid)
    assert grid.seeds == tuple(bench.GRID_SEEDS)
    assert grid.traces == standard.NAMES
    assert {point for point, _ in grid.coarse} == set(bench.POINTS), "the file is of another search: --grid"
    kept = sorted(grid.coarse, key=lambda each: each[1])[: bench.KEPT]
    assert {point for point, _ in grid.points} == {point for point, _ in kept}
    assert grid.best == min(grid.points, key=lambda each: each[1])[0]


def test_a_best_point_at_the_edge_of_the_grid_is_told(bench: ModuleType) -> None:
    points = [bench.Hysteresis(down=down, up=up) for down in (0.4, 0.6, 0.8) for up in (0.3, 0.5)]
    assert bench.edges(points[2], points) == ["up"], "down has points on both sides; dwell_s was not searched"
    assert bench.edges(points[0], points) == ["down", "up"]


def test_a_file_that_is_no_grid_is_told(bench: ModuleType, tmp_path: Path) -> None:
    assert bench.tuned_by(tmp_path / "none.json") == bench.TUNED
    for content in (b"", b"{}", b"\xff\xfe", b'{"best": {"down": NaN}}'):
        (tmp_path / "grid.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"grid\.json: not what --grid writes"):
            bench.tuned_by(tmp_path / "grid.json")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--workers", "0"), 2, "expected a whole number from 1 to 64, found '0'"),
        (("--workers", "nan"), 2, "1 to 64, found 'nan'"),
        (("--workers", "1.5"), 2, "1 to 64, found '1.5'"),
        (("--trace", "steady"), 2, "name a file with --html"),
        (("--html", "x", "--trace", "stormy"), 2, "invalid choice: 'stormy'"),
        (("--html", "/nowhere/page.html"), 1, "error: --html /nowhere/page.html: cannot be written"),
    ],
)
def test_mistakes_are_told_before_anything_is_run(arguments: tuple[str, ...], code: int, told: str) -> None:
    command = [sys.executable, BENCH / "governor.py", "--quick", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
