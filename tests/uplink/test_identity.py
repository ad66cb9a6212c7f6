"""Whose status it is that stands under our name."""

import pytest

from flyball.uplink.identity import REMEMBERED, Identity
from flyball.uplink.messages import Presence, Status, encode


def status(state: Presence = "ready", epoch: str = "other", session: int = 1, ts: float = 0.0) -> bytes:
    return encode(Status(state=state, session=session, epoch=epoch, ts=ts)).payload


@pytest.fixture
def we() -> Identity:
    """In our session 5, and known to the broker."""
    identity = Identity()
    identity.begin("ours", 5)
    identity.said(status(epoch="ours", session=5))
    identity.acknowledged()
    return identity


def test_somebody_else_is_told_by_epoch_and_session(we: Identity) -> None:
    assert we.stranger(status()) == "epoch other, session 1"


def test_what_we_said_is_ours(we: Identity) -> None:
    assert we.stranger(status(epoch="ours", session=5)) == ""


def test_a_copy_of_our_store_is_a_stranger_once_its_session_is_not_lower(we: Identity) -> None:
    assert we.stranger(status(epoch="ours", session=4, ts=1.0)) == ""  # it meets our 5, and is the one to yield
    assert we.stranger(status(epoch="ours", session=5, ts=1.0)) != ""
    assert we.stranger(status(epoch="ours", session=6)) != ""


def test_before_we_have_spoken_it_may_be_what_was_flashed_over() -> None:
    identity = Identity()
    identity.begin("ours", 1)
    assert identity.stranger(status()) == ""
    identity.acknowledged()
    assert identity.stranger(status()) == ""
    assert identity.stranger(status(session=2)) != ""


@pytest.mark.parametrize("state", ["lost", "disconnected"])
def test_one_that_is_gone_is_none(we: Identity, state: Presence) -> None:
    assert we.stranger(status(state)) == ""


def test_one_that_has_not_moved_since_is_dead(we: Identity) -> None:
    assert we.stranger(status(session=7)) != ""
    assert we.stranger(status(session=7)) == ""
    assert we.stranger(status(session=8)) != ""


@pytest.mark.parametrize("payload", [b"", b"}{", b'{"state": "ready"}', b"\xff"])
def test_what_means_nothing_is_nobody(we: Identity, payload: bytes) -> None:
    assert we.stranger(payload) == ""


def test_it_remembers_so_much_and_no_more(we: Identity) -> None:
    for n in range(10 * REMEMBERED):
        we.said(status(epoch="ours", session=5, ts=float(n)))
    assert len(we._ours) == REMEMBERED
