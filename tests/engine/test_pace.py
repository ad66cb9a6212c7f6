"""What is expected of a rung, from its answers."""

import pytest

from flyball.engine.pace import Pace


def test_before_any_answer_it_is_what_the_warm_up_measured() -> None:
    pace = Pace(0.01)
    assert pace.done_s(0) == 0.01
    assert pace.done_s(3) == pytest.approx(0.04)


def test_it_follows_the_answers() -> None:
    pace = Pace(0.01)
    for n in range(40):
        pace.answered(n, 0.05, 0.05, left=0)
    assert pace.own_s == pytest.approx(0.05, rel=0.01)
    assert pace.service_s == pace.own_s


def test_with_work_all_the_time_the_gap_between_answers_is_what_a_queue_costs() -> None:
    pace = Pace(0.01)
    for n in range(40):
        pace.answered(n * 0.004, 0.01, 0.01, left=3)
    assert pace.service_s == pytest.approx(0.004, rel=0.05)
    assert pace.done_s(10) == pytest.approx(10 * 0.004 + 0.01, rel=0.05)


def test_idle_time_between_answers_is_not_work() -> None:
    pace = Pace(0.01)
    for n in range(40):
        pace.answered(n * 10.0, 0.01, 0.01, left=0)
    assert pace.service_s <= 0.011


def test_a_queue_never_costs_more_than_a_request_alone() -> None:
    pace = Pace(0.01)
    for n in range(40):
        pace.answered(n * 0.5, 0.01, 0.01, left=2)
    assert pace.service_s <= pace.own_s


def test_the_least_is_unknown_before_the_first_answer_and_shared_by_those_that_run_together() -> None:
    pace = Pace(0.01, together=4)
    assert pace.least_s(100) == 0.0
    pace.answered(1.0, 0.05, 0.04, left=0)
    assert pace.least_s(0) == pytest.approx(0.04)
    assert pace.least_s(8) == pytest.approx(0.12)


def test_those_that_run_together_wait_for_runs_and_not_for_each_other() -> None:
    pace = Pace(0.01, together=4)
    for n in range(40):  # with others there all the time, who came every 8 ms
        pace.answered(n * 0.008, 0.01, 0.01, left=2)
    assert pace.done_s(0) == pytest.approx(0.01)
    assert pace.done_s(4) == pytest.approx(0.02)
    assert pace.done_s(5) == pytest.approx(0.03)


def test_one_long_run_makes_nothing_sure_that_a_short_one_does_not_take_back() -> None:
    pace = Pace(0.01)
    pace.answered(1.0, 0.01, 0.01, left=0)
    pace.answered(2.0, 10.0, 10.0, left=0)
    assert 1.0 < pace.least_s(0) < 3.0
    pace.answered(3.0, 0.01, 0.01, left=0)
    assert pace.least_s(0) == pytest.approx(0.01)


def test_a_rung_that_has_become_slow_is_tried_now_and_then_but_never_one_that_always_was() -> None:
    pace = Pace(0.01)
    for n in range(20):
        pace.answered(float(n), 0.2, 0.2, left=0)
    assert not pace.try_again(20.0, 0.1)
    assert pace.try_again(30.0, 0.1)
    assert not pace.try_again(30.1, 0.1), "one trial at a time"
    assert pace.try_again(40.0, 0.1)
    assert not pace.try_again(99.0, 0.005), "its warm-up was too slow for this limit"
