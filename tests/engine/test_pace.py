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
        pace.answered(n, 0.05, left=0)
    assert pace.own_s == pytest.approx(0.05, rel=0.01)
    assert pace.service_s == pace.own_s


def test_with_work_all_the_time_the_gap_between_answers_is_what_a_queue_costs() -> None:
    pace = Pace(0.01)
    for n in range(40):
        pace.answered(n * 0.004, 0.01, left=3)
    assert pace.service_s == pytest.approx(0.004, rel=0.05)
    assert pace.done_s(10) == pytest.approx(10 * 0.004 + 0.01, rel=0.05)


def test_idle_time_between_answers_is_not_work() -> None:
    pace = Pace(0.01)
    for n in range(40):
        pace.answered(n * 10.0, 0.01, left=0)
    assert pace.service_s <= 0.011


def test_a_queue_never_costs_more_than_a_request_alone() -> None:
    pace = Pace(0.01)
    for n in range(40):
        pace.answered(n * 0.5, 0.01, left=2)
    assert pace.service_s <= pace.own_s
