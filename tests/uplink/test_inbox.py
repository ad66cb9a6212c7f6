"""What comes from the broker, before it is an order."""

from __future__ import annotations

import pytest

from flyball.uplink.inbox import MOST_QOS_0, Inbox
from flyball.uplink.mqtt import Received
from flyball.uplink.topics import Device

pytestmark = pytest.mark.anyio


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def inbox(heard: list[str]) -> Inbox:
    return Inbox(
        device=Device("t", "d"),
        execution=None,  # type: ignore[arg-type]  # nothing is carried out here
        own=lambda topic: topic,
        signals={},
        aside=lambda message: pytest.fail("nothing is taken here"),
        ignored=heard.append,
        stored=lambda trouble: None,
    )


def received(qos: int) -> Received:
    return Received(topic="flyball/v1/t/d/cmd/ping/i/req", payload=b"{}", retain=False, expiry_s=None, qos=qos, id=1)


async def test_a_flood_without_acknowledgements_is_cut_and_told_once(inbox: Inbox, heard: list[str]) -> None:
    for _ in range(3 * MOST_QOS_0):
        inbox.put(None, received(0))  # type: ignore[arg-type]
    assert inbox._queue.qsize() == MOST_QOS_0
    assert len(heard) == 1
    assert "QoS 0" in heard[0]
    inbox.put(None, received(1))  # type: ignore[arg-type]
    assert inbox._queue.qsize() == MOST_QOS_0 + 1
