"""The share of late requests, against queues that are simulated one request at a time.

Whoever would wait too long is refused at once, as the engine does, and counts as late. Tolerance: 0.03 of all requests,
or a quarter of the share, whichever is more.
"""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.governor.queueing import latency_s, missed

WORK_S = 0.010
REQUESTS = 30_000
LOADS = (0.1, 0.3, 0.5, 0.7, 0.9)
DEADLINES = (1.2, 2.0, 4.0, 8.0)  # times the work


def simulated(load: float, spread: float, seed: int, deadline_s: float = math.inf) -> list[float]:
    """Latencies of a single server with Poisson arrivals and normal work (Lindley's recursion); inf if refused."""
    draw = random.Random(seed)
    rate, wait_s, latencies = load / WORK_S, 0.0, []
    for _ in range(REQUESTS):
        work_s = max(draw.gauss(WORK_S, spread * WORK_S), 0.0) if spread else WORK_S
        refused = wait_s + WORK_S > deadline_s
        latencies.append(math.inf if refused else wait_s + work_s)
        wait_s = max(0.0, wait_s + (0.0 if refused else work_s) - draw.expovariate(rate))
    return latencies


def predicted(deadline_s: float, load: float, spread: float) -> float:
    sd_s = spread * WORK_S
    return missed(deadline_s, WORK_S, sd_s, load, load / WORK_S * (WORK_S**2 + sd_s**2))


@pytest.mark.parametrize(("load", "spread"), list(itertools.product(LOADS, (0.0, 0.1, 0.3))))
def test_the_missed_share_is_that_of_a_real_queue(load: float, spread: float) -> None:
    for times in DEADLINES:
        deadline_s = times * WORK_S
        latencies = simulated(load, spread, round(load * 10 + spread * 100), deadline_s)
        true = sum(latency > deadline_s for latency in latencies) / REQUESTS
        assert predicted(deadline_s, load, spread) == pytest.approx(true, abs=max(0.03, 0.25 * true)), times


@pytest.mark.parametrize("load", LOADS[:-1])  # at 0.9 thirty thousand requests are too few to tell
def test_the_latency_that_a_share_stays_under_is_about_that_of_a_real_queue(load: float) -> None:
    latencies = sorted(simulated(load, 0.1, seed=3))
    for quantile in (0.9, 0.95, 0.99):
        true = latencies[math.ceil(quantile * REQUESTS) - 1]
        sd_s = 0.1 * WORK_S
        told = latency_s(quantile, WORK_S, sd_s, load, load / WORK_S * (WORK_S**2 + sd_s**2))
        assert told == pytest.approx(true, rel=0.3), quantile


def test_another_ladders_long_work_in_the_way_counts_by_its_square() -> None:
    """Two kinds of work on one accelerator: 2 ms at 100/s, and 40 ms at 10/s."""
    draw = random.Random(1)
    wait_s, late, count = 0.0, 0, 0
    for _ in range(4 * REQUESTS):
        mine = draw.random() < 100 / 110
        work_s = 0.002 if mine else 0.040
        if mine:
            count += 1
            late += wait_s + work_s > 0.030
        if wait_s + work_s > 0.030 + 0.038 * (not mine):  # the long ones may wait as long, for a later deadline
            work_s = 0.0
        wait_s = max(0.0, wait_s + work_s - draw.expovariate(110))
    told = missed(0.030, 0.002, 0.0, 0.6, 100 * 0.002**2 + 10 * 0.040**2)
    assert told == pytest.approx(late / count, abs=0.08)


def test_without_arrivals_only_the_work_counts() -> None:
    assert missed(0.02, 0.01, 0.0, 0.0, 0.0) == 0.0
    assert missed(0.005, 0.01, 0.0, 0.0, 0.0) == 1.0
    assert missed(0.01, 0.01, 0.001, 0.0, 0.0) == pytest.approx(0.5, abs=0.03)


def test_beyond_what_the_accelerator_can_do_the_rest_is_late() -> None:
    assert predicted(1.0, 2.0, 0.0) >= 0.5
    assert predicted(1.0, 10.0, 0.0) >= 0.9


loads, shares = st.floats(0, 3), st.floats(0, 0.5)


@settings(max_examples=300, deadline=None)
@given(st.floats(0.0001, 1), st.floats(0.0001, 1), loads, shares)
def test_a_later_deadline_is_missed_no_more_often(one_s: float, other_s: float, load: float, spread: float) -> None:
    early, late = sorted((one_s, other_s))
    assert predicted(late, load, spread) <= predicted(early, load, spread) + 1e-9


@settings(max_examples=300, deadline=None)
@given(loads, loads, st.floats(0.0001, 1), shares)
def test_more_load_is_missed_no_less_often(one: float, other: float, deadline_s: float, spread: float) -> None:
    little, much = sorted((one, other))
    assert predicted(deadline_s, little, spread) <= predicted(deadline_s, much, spread) + 1e-3


@settings(max_examples=300, deadline=None)
@given(
    st.floats(-1e15, 1e15), st.floats(1e-11, 1e21), st.floats(0, 1e30), st.floats(0, 1e36), st.floats(0, 1e60),
    st.floats(0.5, 0.9999),
)  # fmt: skip
def test_always_a_share_and_a_time(
    deadline_s: float, work_s: float, sd_s: float, load: float, square: float, quantile: float
) -> None:
    assert 0.0 <= missed(deadline_s, work_s, sd_s, load, square) <= 1.0
    assert work_s <= latency_s(quantile, work_s, sd_s, load, square) < math.inf
