"""Waits between attempts to connect."""

import heapq
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.uplink.backoff import TAKEN_OVER, Backoff, Waits


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    backoff = Backoff(uniform=lambda: 1.0)
    assert [backoff.failed(None) for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(st.lists(st.sampled_from([None, 0x80, 0x88, 0x8B]), max_size=60))
def test_full_jitter_is_between_nothing_and_the_ceiling(codes: list[int | None]) -> None:
    backoff = Backoff()
    for failures, code in enumerate(codes):
        assert 0 <= backoff.failed(code) <= min(300, 2**failures)


def test_only_a_stable_link_starts_the_count_anew() -> None:
    backoff = Backoff(uniform=lambda: 1.0)
    assert [backoff.failed(None), backoff.failed(None, 29.9), backoff.failed(None, 30.0)] == [1, 2, 1]


@pytest.mark.parametrize(
    ("code", "least_s", "most_s"),
    [(0x86, 300, 600), (0x87, 300, 600), (0x89, 60, 300), (0x97, 60, 300), (0x9F, 60, 300), (TAKEN_OVER, 900, 900)],
)
def test_reason_codes_have_waits_of_their_own(code: int, least_s: float, most_s: float) -> None:
    assert Backoff(uniform=lambda: 0.0).failed(code) == least_s
    assert Backoff(uniform=lambda: 1.0).failed(code) == most_s


def test_a_fleet_that_lost_its_broker_does_not_come_back_in_storms() -> None:
    """500 devices whose broker is away for 10 s and then takes 50 connections a second, refusing more: all are back
    within 90 s, it is never asked by many at once, and there is no second wave."""
    jitter = random.Random(1)
    devices = [Backoff(uniform=jitter.random) for _ in range(500)]
    attempts = [(device.failed(None, 3600.0), number) for number, device in enumerate(devices)]
    heapq.heapify(attempts)
    back_s: list[float] = []
    asked: Counter[int] = Counter()  # by the second, once the broker is back
    while attempts:
        now_s, number = heapq.heappop(attempts)
        if now_s >= 10:
            asked[int(now_s)] += 1
            if sum(now_s - t < 1 for t in back_s[-50:]) < 50:
                back_s.append(now_s)
                continue
        heapq.heappush(attempts, (now_s + devices[number].failed(None), number))
    assert max(back_s) < 90
    assert max(asked.values()) < 100
    assert max(n for second, n in asked.items() if second > 30) < 20


def test_credentials_wait_long_whatever_the_code() -> None:
    assert Backoff(uniform=lambda: 0.0).failed(None, credentials=True) == 300


def test_spread_is_a_share_of_its_limit() -> None:
    assert Backoff(Waits(spread_s=8.0), uniform=lambda: 0.5).spread() == 4.0


def test_waits_can_be_set() -> None:
    assert Backoff(Waits(base_s=5, cap_s=7), uniform=lambda: 1.0).failed(None) == 5
