"""Numbers on the disk before they leave, and few writes for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest
from device_side import until

from flyball.errors import StateError
from flyball.uplink import ledger as module
from flyball.uplink.ledger import BREATH_S, MOST_HELD, SETTLE_S, Ledger
from flyball.uplink.outbox import Publication, Span
from flyball.uplink.post import Post
from flyball.uplink.sequence import Counter
from flyball.uplink.state import Stream

pytestmark = pytest.mark.anyio


class Desk:
    """A ledger over a post without a link, and a disk that does as it is told."""

    def __init__(self) -> None:
        self.post = Post(lambda gaps: [])
        self.written: list[Mapping[str, Stream]] = []
        self.told: list[str] = []
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.ledger = Ledger(self.post, self.save, self.told.append)
        self.ledger.counters = {"main": Counter("main", 10)}

    async def save(self, streams: Mapping[str, Stream]) -> None:
        await self.gate.wait()
        if self.broken:
            raise StateError("disk full")
        self.written.append(streams)

    def hand_out(self, count: int = 1) -> None:
        first = self.ledger.counters["main"].take(count)
        self.ledger.hand_out(Publication("t", b"", "telemetry", spans=(Span("main", first, first + count - 1),)))


async def test_nothing_leaves_before_its_numbers_are_written() -> None:
    desk = Desk()
    desk.gate.clear()
    desk.hand_out(5)
    await asyncio.sleep(0.05)
    assert (desk.written, len(desk.post)) == ([], 0)
    desk.gate.set()
    await until(lambda: len(desk.post) == 1)
    assert desk.written == [{"main": Stream(next=15, settled=10)}]


async def test_what_comes_during_a_write_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.gate.clear()
    desk.hand_out()
    await asyncio.sleep(0.01)
    for _ in range(30):
        desk.hand_out()
    desk.gate.set()
    await until(lambda: len(desk.post) == 1)
    await until(lambda: len(desk.post) == 31)
    assert [s["main"].next for s in desk.written] == [11, 41]


async def test_a_storm_is_no_storm_of_writes() -> None:
    desk = Desk()
    began = time.monotonic()
    for _ in range(100):
        desk.hand_out()
        desk.ledger.settled()
        await asyncio.sleep(0.005)
    assert len(desk.written) <= (time.monotonic() - began) / BREATH_S + 1


async def test_an_acknowledgement_is_written_soon_and_once() -> None:
    desk = Desk()
    for _ in range(20):
        desk.ledger.settled()
    await asyncio.sleep(SETTLE_S / 2)
    assert desk.written == []
    await until(lambda: len(desk.written) == 1)
    await asyncio.sleep(SETTLE_S * 1.2)
    assert len(desk.written) == 1


async def test_a_batch_and_its_acknowledgement_are_two_writes() -> None:
    desk = Desk()
    for _ in range(3):
        desk.hand_out(60)
        desk.ledger.settled()
        await asyncio.sleep(SETTLE_S * 1.2)
    assert len(desk.written) <= 6


async def test_while_the_store_fails_they_wait_and_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", (0.05, 0.1))
    desk = Desk()
    desk.broken = True
    for _ in range(MOST_HELD + 7):
        desk.hand_out()
    await asyncio.sleep(0.3)
    assert desk.told
    assert set(desk.told) == {"disk full"}
    assert (len(desk.post), desk.post.dropped) == (0, 7)
    desk.broken = False
    await until(lambda: desk.told[-1] == "")
    await until(lambda: len(desk.post) > 0)
    assert desk.ledger.streams()["main"].settled == 10  # the loss is still to be reported


async def test_at_the_end_what_is_held_is_written_or_left_as_a_gap() -> None:
    good, bad = Desk(), Desk()
    good.hand_out()
    await good.ledger.close(1.0)
    assert len(good.post) == 1
    bad.broken = True
    bad.hand_out(3)
    await bad.ledger.close(0.05)
    bad.hand_out()
    assert (len(bad.post), bad.post.dropped) == (0, 2)
    assert bad.ledger.streams() == {"main": Stream(next=14, settled=10)}
