"""Counting: windows hold what is recent, percentiles are nearest rank, no data is None."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.engine.tally import Tally, mean_and_deviation, percentile
from flyball.ports import Timing


def timing(total_s: float) -> Timing:
    return Timing(queue_s=0.0, pre_s=0.0, run_s=total_s, post_s=0.0, total_s=total_s)


def test_a_window_holds_what_is_recent_and_nothing_of_other_rungs() -> None:
    tally = Tally()
    for at_s in range(10):
        tally.inferred("a", timing(at_s / 1000), float(at_s))
    tally.inferred("b", timing(9.0), 9.0)
    window = tally.window("a", 3.0, 9.5)
    assert (window.count, window.p50_s, window.p99_s) == (3, 0.008, 0.009)
    assert tally.window("a", 3.0, 100.0).count == 0
    assert tally.window("a", 3.0, 100.0).p95_s is None
    assert tally.window("c", 3.0, 9.5).p50_s is None


def worked(queue_s: float, pre_s: float, run_s: float, post_s: float) -> Timing:
    total_s = queue_s + pre_s + run_s + post_s
    return Timing(queue_s=queue_s, pre_s=pre_s, run_s=run_s, post_s=post_s, total_s=total_s)


def test_work_is_what_an_answer_took_without_its_waiting() -> None:
    tally = Tally()
    tally.inferred("a", worked(9.0, 1.0, 2.0, 3.0), 0.0)  # too old
    tally.inferred("a", worked(5.0, 0.001, 0.002, 0.003), 10.0)
    one = tally.window("a", 3.0, 11.0)
    assert (one.work_mean_s, one.work_std_s) == (pytest.approx(0.006), None)
    tally.inferred("a", worked(0.0, 0.002, 0.004, 0.004), 11.0)
    two = tally.window("a", 3.0, 11.0)
    assert two.work_mean_s == pytest.approx(0.008)
    assert two.work_std_s == pytest.approx(0.002 * 2**0.5)
    assert (two.count, two.p95_s) == (2, pytest.approx(5.006))
    none = tally.window("a", 3.0, 99.0)
    assert (none.count, none.work_mean_s, none.work_std_s) == (0, None, None)


def test_late_answers_are_those_that_took_longer_than_the_deadline() -> None:
    tally = Tally()
    for total_s in (0.010, 0.020, 0.020, 0.021, 0.5):
        tally.inferred("a", timing(total_s), 1.0)
    assert tally.window("a", 3.0, 1.0).late is None
    assert tally.window("a", 3.0, 1.0, deadline_s=0.020).late == 2
    assert tally.window("a", 3.0, 1.0, deadline_s=0.5).late == 0
    assert tally.window("a", 3.0, 1.0, deadline_s=0.001).late == 5
    assert tally.window("a", 3.0, 99.0, deadline_s=0.02).late == 0


def test_totals_add_up() -> None:
    tally = Tally()
    for total_s in (0.0005, 0.001, 0.3, 60.0):
        tally.answered(timing(total_s))
    tally.failed("BACKEND")
    tally.switched("a", "b", "latency")
    totals = tally.totals(1.0)
    assert totals.success == 4
    assert totals.failure == {"BACKEND": 1}
    assert totals.switches == {"a>b:latency": 1}
    assert totals.request_ns == pytest.approx(60.3015e9)
    assert totals.latency_buckets[0.001] == 2
    assert totals.latency_buckets[0.5] == 3
    assert totals.latency_buckets[float("inf")] == 4


@given(st.lists(st.floats(0, 10), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_percentiles_are_nearest_rank(values: list[float], q: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, q)
    assert found in ordered
    assert sum(v <= found for v in ordered) >= q * len(ordered)
    assert sum(v < found for v in ordered) < q * len(ordered)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_mean_and_deviation_are_those_of_the_statistics_module(values: list[float]) -> None:
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(statistics.fmean(values))
    assert deviation == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)


def test_the_percentile_of_nothing_is_none() -> None:
    assert percentile([], 0.5) is None


def test_a_rung_is_busy_from_the_beginning_of_an_inference_and_once_for_those_that_overlap() -> None:
    tally = Tally()
    tally.begun("a", 10.0)
    assert tally.totals(13.0).busy_s_by_rung == {"a": 3.0}
    tally.begun("a", 14.0)
    tally.ended("a", 15.0)
    tally.ended("a", 16.0)
    tally.begun("b", 16.0)
    tally.ended("b", 16.5)
    assert tally.totals(99.0).busy_s_by_rung == {"a": 6.0, "b": 0.5}
    assert tally.totals(99.0).executions == 3
