"""Events reach every subscriber, whatever one of them does."""

import logging

import pytest

from flyball.events import Event, Events


def test_a_subscriber_that_raises_does_not_keep_the_others_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    events, heard = Events(), []

    def broken(event: Event) -> None:
        raise RuntimeError("no")

    events.subscribe(broken)
    events.subscribe(heard.append)
    event = Event(kind="switch", t_s=1.0, message="a to b")
    with caplog.at_level(logging.ERROR):
        events.publish(event)
    assert heard == [event]
    assert "switch" in caplog.text
