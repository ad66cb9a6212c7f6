"""Token buckets, and what a client over its rate is told over real HTTP."""

import pytest

from flyball.errors import QueueFullError
from flyball.serving.rate import RateLimit
from flyball.testing import FakeClock


def test_a_burst_then_the_lasting_rate() -> None:
    clock = FakeClock()
    rate = RateLimit(per_s=2.0, burst=3, clock=clock)
    for _ in range(3):
        rate.take("a")
    with pytest.raises(QueueFullError, match=r"more than 2 requests a second from a .*retry in 0\.5 s"):
        rate.take("a")
    clock.advance(0.5)
    rate.take("a")
    with pytest.raises(QueueFullError):
        rate.take("a")


def test_refusals_cost_no_token() -> None:
    clock = FakeClock()
    rate = RateLimit(per_s=1.0, burst=1, clock=clock)
    rate.take("a")
    for _ in range(10):
        clock.advance(0.09)
        with pytest.raises(QueueFullError):
            rate.take("a")
    clock.advance(0.11)
    rate.take("a")


def test_every_client_has_its_own() -> None:
    rate = RateLimit(per_s=1.0, burst=1, clock=FakeClock())
    rate.take("a")
    rate.take("b")
    with pytest.raises(QueueFullError):
        rate.take("a")


def test_a_pause_fills_the_bucket_and_no_more() -> None:
    clock = FakeClock()
    rate = RateLimit(per_s=1.0, burst=2, clock=clock)
    clock.advance(1000)
    rate.take("a")
    rate.take("a")
    with pytest.raises(QueueFullError):
        rate.take("a")


def test_many_clients_take_bounded_memory() -> None:
    rate = RateLimit(per_s=1.0, burst=1, clock=FakeClock())
    for number in range(5000):
        rate.take(str(number))
    assert len(rate._buckets) == 4096
