"""Whose word counts."""

from __future__ import annotations

import pytest

from flyball_fleet.presence import Known, judge, shown_state

NOW = Known("new", 5, {"old": 9})


@pytest.mark.parametrize(
    ("epoch", "session", "alive", "verdict"),
    [
        ("new", 6, True, "newer"),
        ("new", 5, True, "same"),
        ("new", 5, False, "same"),  # the will of the session that is current
        ("new", 4, False, "older"),  # a will that comes after the next session's birth
        ("new", 6, False, "newer"),  # lost before it said a word
        ("old", 9, False, "older"),  # the will of the device before it was re-flashed
        ("old", 9, True, "older"),  # redelivered
        ("old", 10, True, "newer"),  # the old card was put back
        ("fresh", 1, True, "newer"),  # re-flashed
        ("fresh", 1, False, "older"),  # a will of nobody
    ],
)
def test_the_current_session_of_the_current_epoch_counts(epoch: str, session: int, alive: bool, verdict: str) -> None:
    assert judge(NOW, epoch, session, alive) == verdict


def test_of_an_unknown_device_every_word_counts() -> None:
    assert judge(Known(), "e", 1, False) == "newer"


@pytest.mark.parametrize(
    ("state", "heard_at", "shown"),
    [
        ("ready", 900.0, "ready"),
        ("ready", 800.0, "stale"),
        ("ready", None, "stale"),  # only what was retained at the broker
        ("init", 800.0, "stale"),
        ("sleeping", 800.0, "sleeping"),
        ("disconnected", 1.0, "disconnected"),
        ("lost", 1.0, "lost"),
        ("", 950.0, "unknown"),
    ],
)
def test_a_ready_device_that_says_nothing_is_stale(state: str, heard_at: float | None, shown: str) -> None:
    assert shown_state(state, heard_at, now=1000.0, stale_after_s=180.0) == shown
