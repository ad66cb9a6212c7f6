"""Waiting before the next try."""

from flyball.engine.backoff import Backoff
from flyball.testing import FakeClock


def test_the_first_failure_costs_nothing_and_further_ones_double_up_to_the_limit() -> None:
    backoff = Backoff(0.5, 3.0, FakeClock())
    assert [backoff.next_s() for _ in range(6)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_long_peace_forgets() -> None:
    clock = FakeClock()
    backoff = Backoff(0.5, 3.0, clock)
    backoff.next_s()
    clock.advance(59)
    assert backoff.next_s() == 0.5
    clock.advance(61)
    assert backoff.next_s() == 0.0


def test_very_many_failures_do_not_overflow() -> None:
    backoff = Backoff(0.5, 3.0, FakeClock())
    assert [backoff.next_s() for _ in range(5000)][-1] == 3.0
