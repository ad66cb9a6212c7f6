"""Waits between attempts to connect."""

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


def test_waits_can_be_set() -> None:
    assert Backoff(Waits(base_s=5, cap_s=7), uniform=lambda: 1.0).failed(None) == 5
