"""What bench/contention.py makes of a live run beside the simulator's prediction; nothing is run here."""

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from flyball.demo.stream import Sample
from flyball.errors import ConfigError
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
def live() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("_live")


@pytest.fixture(scope="module")
def curves() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("_curves")


def latencies(simulator: ModuleType, p50_s: float | None, p95_s: float | None, late: float = 0.0) -> Any:
    return simulator.Latencies(p50_s=p50_s, p95_s=p95_s, late=late)


def point(simulator: ModuleType, live: Any, simulated: Any) -> Any:
    return simulator.Point(rung="a", burners_per_core=0, requests=100, live=live, own=live, simulated=simulated)


def test_what_did_not_come_is_late_and_has_no_latency(simulator: ModuleType) -> None:
    found = simulator.latencies_of([0.010, None, 0.030, 0.020], 0.025)
    assert (found.p50_s, found.p95_s, found.late) == (0.020, 0.030, 0.5)
    none = simulator.latencies_of([None, None], 0.025)
    assert (none.p50_s, none.p95_s, none.late) == (None, None, 1.0)


def test_the_error_is_relative_to_the_live_run(simulator: ModuleType) -> None:
    one = point(simulator, latencies(simulator, 0.010, 0.020, 0.10), latencies(simulator, 0.012, 0.018, 0.05))
    other = point(simulator, latencies(simulator, 0.010, 0.100, 0.50), latencies(simulator, 0.013, 0.050, 0.52))
    assert (one.p50_error(), one.p95_error()) == (pytest.approx(0.2), pytest.approx(0.1))
    assert simulator.summary([one, other]) == {
        "simulator_error_pct": 25.0,
        "simulator_p50_error_pct": 25.0,
        "simulator_p95_error_pct": 30.0,
        "simulator_worst_error_pct": 50.0,
        "simulator_late_points": 3.5,
        "simulator_points": 2,
    }
    assert len(simulator.table([one, other]).splitlines()) == 3


def test_what_is_not_known_is_no_error_of_nothing(simulator: ModuleType) -> None:
    silent = point(simulator, latencies(simulator, None, None, 1.0), latencies(simulator, 0.012, 0.018, 0.2))
    assert (silent.p50_error(), silent.p95_error()) == (None, None)
    assert simulator.summary([silent])["simulator_error_pct"] is None
    assert simulator.summary([silent])["simulator_late_points"] == 80.0
    assert simulator.summary([]) == {
        "simulator_error_pct": None,
        "simulator_p50_error_pct": None,
        "simulator_p95_error_pct": None,
        "simulator_worst_error_pct": None,
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


# ------------------------------------------------------------------------------------------- from the due moment on


def test_latency_counts_from_the_due_moment_whatever_the_daemon_says(live: ModuleType) -> None:
    """Due at 105, taken by a sender at 105.4, answered at 105.5: of this, the daemon saw 10 ms."""
    found = live.asked_of(Sample(t_s=105.5, latency_s=0.010, rung="a", right=True), 5.0, 100.0)
    assert (found.due_s, found.latency_s, found.since_due_s) == (5.0, 0.010, pytest.approx(0.5))
    assert found.in_time(0.02), "scores are by the daemon's own figure"
    failed = live.asked_of(Sample(t_s=105.5, latency_s=0.5, rung="", right=False, error="no"), 5.0, 100.0)
    assert (failed.latency_s, failed.since_due_s) == (None, None)


def asked(live: ModuleType, due_s: float, own_s: float, since_due_s: float) -> Any:
    return live.Asked(due_s=due_s, latency_s=own_s, since_due_s=since_due_s, rung="a", right=True)


def test_the_simulator_is_held_against_what_begins_at_the_same_moment(simulator: ModuleType, live: ModuleType) -> None:
    plan = live.Plan(phases_s=(0.0, 3.0), rate_per_s=1.0, cores=2, burners_per_core=4)
    came = [asked(live, at_s, 0.030, 0.200) for at_s in (0.5, 1.5, 2.5)]
    found = simulator.point_of(came, STEADY, plan, 0.1, profiles.COOLED, (0.005, 0.0))
    assert (found.rung, found.burners_per_core, found.requests) == ("a", 4, 2)
    assert (found.live.p50_s, found.live.late) == (0.200, 1.0)
    assert (found.own.p50_s, found.own.late) == (0.030, 0.0)
    assert found.simulated.p50_s == pytest.approx(0.035)
    assert found.p50_error() == pytest.approx(0.165 / 0.200)
    assert simulator.table([found]).splitlines()[1].split()[2:5] == ["30.0", "200.0", "35.0"]


def test_what_was_asked_while_the_burners_start_leaves_its_queue(simulator: ModuleType, live: ModuleType) -> None:
    plan = live.Plan(phases_s=(0.0, 2.0), rate_per_s=1.0, cores=2, burners_per_core=0)
    came = [asked(live, 0.999, 0.01, 0.01) for _ in range(10)] + [asked(live, 1.0, 0.01, 0.01)]
    found = simulator.point_of(came, STEADY, plan, 1.0, profiles.COOLED, (0.0, 0.0))
    assert found.requests == 1
    assert found.simulated.p50_s == pytest.approx(0.109), "after the ten, which do not count themselves"


# ---------------------------------------------------------------------------------------------------- the hand-over


def committed(curves: ModuleType) -> Any:
    return msgspec.json.decode((BENCH / "contention.json").read_bytes(), type=curves.Contention)


@pytest.mark.parametrize("rung", ["r224-fp32", "r112-fp32", "r56-fp32"])
@pytest.mark.parametrize("level", [0, 1, 3])
def test_one_at_a_time_the_prediction_is_what_was_measured_in_whole(
    simulator: ModuleType, curves: ModuleType, rung: str, level: int
) -> None:
    """Of requests that do not meet, the simulated total has the percentiles of the measured one."""
    measured = committed(curves)
    hand = simulator.hand_over_of(measured, rung, level)
    apart = [float(i) for i in range(200)]
    model = simulator.models_of(measured)[rung]
    found = simulator.predict(model, apart, 200.0, level, 1.0, profiles.COOLED, hand=hand)
    (seen,) = [each for r in measured.rungs if r.rung == rung for each in r.levels if each.burners_per_core == level]
    assert found.p50_s == pytest.approx(seen.total_p50_s, rel=0.2)
    assert found.p95_s == pytest.approx(seen.total_p95_s, rel=0.2)
    bare = simulator.predict(model, apart, 200.0, level, 1.0, profiles.COOLED)
    assert bare.p95_s < found.p95_s


def test_a_hand_over_that_was_measured_as_none_is_none_to_speak_of(curves: ModuleType) -> None:
    def level(total_p50_s: float, total_p95_s: float) -> Any:
        return curves.Level(
            burners_per_core=0, burners=0, n=10, work_mean_s=0.01, work_std_s=None, work_p50_s=0.01, work_p95_s=0.012,
            work_p99_s=0.013, total_p50_s=total_p50_s, total_p95_s=total_p95_s, runnable=None, rivals=None,
            cpu_utilization=None, cpu_some=None,
        )  # fmt: skip

    assert curves.hand_over(level(0.01, 0.012)) == (1e-6, 0.0)
    assert curves.hand_over(level(0.011, 0.012)) == (pytest.approx(0.001), 0.0), "never shorter at the tail"
    median_s, spread = curves.hand_over(level(0.011, 0.022))
    assert median_s * math.exp(1.645 * spread) == pytest.approx(0.010)


def test_a_level_that_was_not_measured_has_no_hand_over(simulator: ModuleType, curves: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"no defects r56-fp32 beside 5 burner\(s\) per core; measure that level"):
        simulator.hand_over_of(committed(curves), "r56-fp32", 5)


def test_the_hand_over_delays_each_answer_and_keeps_no_other_waiting(simulator: ModuleType) -> None:
    together = [0.5, 0.5, 0.5]
    found = simulator.predict(STEADY, together, 1.0, 0, 1.0, profiles.COOLED, hand=(0.1, 0.0))
    assert (found.p50_s, found.p95_s) == (pytest.approx(0.120), pytest.approx(0.130))
