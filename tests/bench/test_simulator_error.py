"""What bench/contention.py makes of a live run beside the simulator's prediction; nothing is run here."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flyball.governor.replay import profiles
from flyball.governor.replay.trace import Model

BENCH = Path(__file__).resolve().parents[2] / "bench"
EVEN = [i / 20 for i in range(200)]  # 20 a second for 10 s
STEADY = Model(
    name="a", accuracy=0.9, work_s=0.010, joules=0.01, rss_bytes=1e8, load_s=0.3,
    slow_down=((0.0, 1.0, 0.0), (4.0, 3.0, 0.0)),
)  # fmt: skip


@pytest.fixture(scope="module")
def simulator() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("_simulator")


@pytest.fixture(scope="module")
def curves() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("_curves")


def latencies(simulator: ModuleType, p50_s: float | None, p95_s: float | None, late: float = 0.0) -> Any:
    return simulator.Latencies(p50_s=p50_s, p95_s=p95_s, late=late)


def point(simulator: ModuleType, live: Any, simulated: Any) -> Any:
    return simulator.Point(rung="a", burners_per_core=0, requests=100, live=live, simulated=simulated)


def test_what_did_not_come_is_late_and_has_no_latency(simulator: ModuleType) -> None:
    found = simulator.latencies_of([0.010, None, 0.030, 0.020], 0.025)
    assert (found.p50_s, found.p95_s, found.late) == (0.020, 0.030, 0.5)
    none = simulator.latencies_of([None, None], 0.025)
    assert (none.p50_s, none.p95_s, none.late) == (None, None, 1.0)


def test_the_error_is_relative_to_the_live_run(simulator: ModuleType) -> None:
    one = point(simulator, latencies(simulator, 0.010, 0.020, 0.10), latencies(simulator, 0.012, 0.018, 0.05))
    other = point(simulator, latencies(simulator, 0.010, 0.100, 0.50), latencies(simulator, 0.013, 0.050, 0.52))
    assert one.errors() == [pytest.approx(0.2), pytest.approx(0.1)]
    found = simulator.summary([one, other])
    assert found == {"simulator_error_pct": 25.0, "simulator_late_points": 3.5, "simulator_points": 2}
    assert len(simulator.table([one, other]).splitlines()) == 3


def test_what_is_not_known_is_no_error_of_nothing(simulator: ModuleType) -> None:
    silent = point(simulator, latencies(simulator, None, None, 1.0), latencies(simulator, 0.012, 0.018, 0.2))
    assert silent.errors() == []
    assert simulator.summary([silent])["simulator_error_pct"] is None
    assert simulator.summary([silent])["simulator_late_points"] == 80.0
    assert simulator.summary([]) == {
        "simulator_error_pct": None,
        "simulator_late_points": None,
        "simulator_points": 0,
    }
    assert simulator.table([silent]).splitlines()[1].split()[2] == "-"


def test_the_prediction_takes_the_curve_and_the_very_arrivals(simulator: ModuleType) -> None:
    calm = simulator.predict(STEADY, EVEN, 10.0, 0, 0.015, profiles.COOLED)
    assert (calm.p50_s, calm.p95_s, calm.late) == (pytest.approx(0.010), pytest.approx(0.010), 0.0)
    loaded = simulator.predict(STEADY, EVEN, 10.0, 4, 0.015, profiles.COOLED)
    assert (loaded.p50_s, loaded.late) == (pytest.approx(0.030), 1.0)
    between = simulator.predict(STEADY, EVEN, 10.0, 2, 0.015, profiles.COOLED)
    assert between.p50_s == pytest.approx(0.020)
    together = simulator.predict(STEADY, [0.5, 0.5, 0.5, 0.5], 1.0, 0, 0.015, profiles.COOLED)
    assert (together.p50_s, together.p95_s) == (pytest.approx(0.020), pytest.approx(0.040)), "one after the other"
    assert together.late == 0.75


def test_nothing_is_refused_however_long_the_queue(simulator: ModuleType) -> None:
    crowd = [0.9 + i * 1e-4 for i in range(100)]
    found = simulator.predict(STEADY, crowd, 1.0, 0, 0.015, profiles.COOLED)
    assert found.p95_s == pytest.approx(0.95, abs=0.02)


def test_the_curves_come_in_as_every_reader_gets_them(simulator: ModuleType, curves: ModuleType) -> None:
    def level(burners: int, mean_s: float) -> Any:
        return curves.Level(
            burners_per_core=burners, burners=2 * burners, n=10, work_mean_s=mean_s, work_std_s=None,
            work_p50_s=mean_s, work_p95_s=mean_s * 1.2, work_p99_s=mean_s * 1.3, total_p50_s=mean_s,
            total_p95_s=mean_s, runnable=None, rivals=None, cpu_utilization=None, cpu_some=None,
        )  # fmt: skip

    def rung(ladder: str, name: str) -> Any:
        return curves.Rung(
            ladder=ladder, rung=name, precision="fp32", accuracy=0.9, accuracy_source="", open_s=0.3, load_s=None,
            rss_bytes=None, joules=0.1, drift=1.0, levels=(level(0, 0.01), level(2, 0.025)),
        )  # fmt: skip

    made = curves.Contention(
        date="2026-01-01", machine="m", cpus=2, autogroup=True, idle_w=6.0, load_w=18.0, power_basis="a guess",
        per_s=20.0, seconds=1.0, rungs=(rung("defects", "r224-fp32"), rung("mobilenet", "v1")),
    )  # fmt: skip
    found = simulator.models_of(made)
    assert set(found) == {"r224-fp32"}, "the rig serves no other ladder"
    assert found["r224-fp32"].slowed(2.0)[0] == pytest.approx(2.5)
