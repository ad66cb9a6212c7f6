"""What leaves the spool, in which order, and when it is deleted."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from device_side import until
from hypothesis import given
from hypothesis import strategies as st

from flyball.testing import FakeClock
from flyball.uplink.batch import decode
from flyball.uplink.drain import MOST_LATE, Drain, TokenBucket
from flyball.uplink.messages import EventMessage, Gap
from flyball.uplink.messages import decode as decode_message
from flyball.uplink.outbox import Publication
from flyball.uplink.spool import SpoolFile
from flyball.uplink.spooled import EVENTS, TELEMETRY, Start
from flyball.uplink.stamp import Stamper
from flyball.uplink.state import Stream
from flyball.uplink.topics import Device
from flyball.uplink.writer import Writer

pytestmark = pytest.mark.anyio


async def granted(streams: Mapping[str, Stream]) -> None:
    pass


class Rig:
    """A Writer and a Drain over a real spool; `sent` is what a Post would have got."""

    def __init__(self, folder: Path, rate: float) -> None:
        self.stamper = Stamper(FakeClock(), "b1", lambda: True)
        self.sent: list[Publication] = []
        self.writer = Writer(
            SpoolFile(folder, batch_records=2),
            grant=granted,
            stored=lambda trouble: None,
            replaced=lambda why: None,
            sealed=lambda batches: self.drain.sealed(batches),
        )
        self.drain = Drain(self.writer, self, Device("acme", "edge-1"), self.stamper, rate)
        self.writer.busy = self.drain.busy
        self.writer.begin("e1", {"main": Start(klass=TELEMETRY), "events": Start(klass=EVENTS)})
        self.at = 0

    def add(self, publication: Publication) -> None:
        self.sent.append(publication)

    async def measure(self, count: int) -> None:
        """So many records, sealed two by two."""
        for _ in range(count):
            self.writer.put_row("main", {"n": float(self.at)}, self.stamper.now())
            self.at += 1
        self.writer.flush()
        await self.writer.written(10)

    def batches(self) -> list[tuple[int, bool]]:
        """First number and `hist` of all that were sent."""
        found = [decode(p.payload, deflated=p.deflated) for p in self.sent if "/t/" in p.topic]
        return [(b.first_seq, b.hist) for b in found]

    def gaps(self) -> list[Gap]:
        return [decode_message(p.payload, Gap, deflated=p.deflated) for p in self.sent if p.topic.endswith("/gap")]

    def acknowledge(self, chosen: Callable[[Publication], bool] = lambda p: True) -> None:
        for publication in [p for p in self.sent if chosen(p)]:
            self.sent.remove(publication)
            assert publication.acknowledged is not None
            publication.acknowledged()

    def records(self) -> int:
        totals = self.writer.totals()
        return -1 if totals is None else totals.records


@asynccontextmanager
async def rig_in(folder: Path, rate: float = 0.0) -> AsyncIterator[Rig]:
    rig = Rig(folder, rate)
    task = asyncio.create_task(rig.drain.run())
    try:
        yield rig
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await rig.writer.close(10)


async def test_new_batches_go_at_once_and_leave_the_disk_when_they_are_acknowledged(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.drain.link_ready()
        await rig.measure(4)
        assert rig.batches() == [(0, False), (2, False)]
        await rig.writer.written(10)
        assert rig.records() == 4
        rig.acknowledge()
        await rig.writer.written(10)
        assert rig.records() == 0


async def test_the_backlog_is_marked_and_new_batches_overtake_it(tmp_path: Path) -> None:
    async with rig_in(tmp_path, rate=4.0) as rig:  # the bucket holds 8 records, then one batch in half a second
        await rig.measure(20)
        assert rig.sent == []
        rig.drain.link_ready()
        await until(lambda: len(rig.batches()) >= 5)
        await rig.measure(2)
        assert rig.batches()[-1] == (20, False)
        late = rig.batches()[:-1]
        assert late == [(n, True) for n in range(0, 2 * len(late), 2)]
        assert len(late) < 10  # the rest waits for its tokens


async def test_no_more_than_a_few_are_in_memory_and_none_is_sent_twice(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        await rig.measure(200)
        rig.drain.link_ready()
        seen: list[tuple[int, bool]] = []
        while len(seen) < 100:
            await until(lambda: bool(rig.sent))
            await asyncio.sleep(0.02)
            assert len(rig.sent) <= MOST_LATE
            seen += rig.batches()
            rig.acknowledge()
        await until(lambda: rig.records() == 0)
        assert seen == [(n, True) for n in range(0, 200, 2)]


async def test_what_is_under_way_when_the_link_is_lost_stays_where_it_is(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.drain.link_ready()
        await rig.measure(4)
        rig.drain.link_lost()  # the Post keeps both, and sends them again
        await rig.measure(4)
        assert rig.batches() == [(0, False), (2, False)]
        rig.drain.link_ready()
        await until(lambda: len(rig.sent) == 4)
        assert sorted(rig.batches()) == [(0, False), (2, False), (4, True), (6, True)]


async def test_what_the_post_has_no_room_for_waits_on_the_disk(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.drain.link_ready()
        await rig.measure(2)
        publication = rig.sent.pop()
        assert publication.lost is not None
        publication.lost("")
        await until(lambda: rig.batches() == [(0, True)])
        assert rig.records() == 2


async def test_what_the_broker_refuses_becomes_a_gap_which_stays_until_it_is_known(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.drain.link_ready()
        await rig.measure(2)
        publication = rig.sent.pop()
        assert publication.lost is not None
        publication.lost("not authorized")
        await until(lambda: bool(rig.gaps()))
        (gap,) = rig.gaps()
        assert (gap.epoch, gap.stream, gap.ranges, gap.reason) == ("e1", "main", ((0, 1),), "refused: not authorized")
        assert rig.records() == 0
        lost = rig.sent.pop()
        assert lost.lost is not None
        lost.lost("")  # told again with the next session
        rig.drain.link_ready()
        await until(lambda: bool(rig.gaps()))
        rig.acknowledge()
        await rig.writer.written(10)
        assert await rig.writer.gaps(10) == []


async def test_events_of_the_backlog_come_before_telemetry(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        await rig.measure(4)
        stamp = rig.stamper.now()
        message = EventMessage(epoch="", seq=0, stamp=stamp, kind="switch", severity="info", message="x")
        rig.writer.put_message("events", message)
        await rig.writer.written(10)
        rig.drain.link_ready()
        await until(lambda: len(rig.sent) == 3)
        assert [p.topic.rpartition("edge-1/")[2] for p in rig.sent] == ["e/switch", "t/main", "t/main"]


async def test_after_a_restart_what_was_not_acknowledged_comes_again(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.drain.link_ready()
        await rig.measure(6)
        rig.acknowledge(lambda p: decode(p.payload, deflated=p.deflated).first_seq == 2)
    async with rig_in(tmp_path) as rig:
        rig.drain.link_ready()
        await until(lambda: len(rig.sent) == 2)
        assert rig.batches() == [(0, True), (4, True)]


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 60)), min_size=1, max_size=50))
def test_the_bucket_keeps_to_its_rate(steps: list[tuple[float, int]]) -> None:
    """Whoever waits as told has taken, at any time, no more than the burst, the rate and one piece on credit."""
    bucket, now_s, taken = TokenBucket(10.0, 20.0), 0.0, 0
    for pause_s, count in steps:
        now_s += pause_s
        taken += count
        now_s += bucket.take(count, now_s)
        assert taken <= 20.0 + 10.0 * now_s + 1e-6


def test_a_bucket_without_a_rate_lets_all_pass() -> None:
    assert TokenBucket(0.0, 0.0).take(10**9, 0.0) == 0.0


def test_a_clock_that_goes_back_gives_no_tokens_and_takes_none() -> None:
    bucket = TokenBucket(10.0, 20.0)
    assert bucket.take(20, 100.0) == 0.0
    assert bucket.take(10, 50.0) == pytest.approx(1.0)


async def test_one_damaged_batch_is_told_as_lost_and_the_others_go_out(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        await rig.measure(6)
    db = sqlite3.connect(tmp_path / "spool.db")
    with db:
        db.execute("UPDATE batch2 SET body = x'00ff' WHERE first = 2")
    db.close()
    async with rig_in(tmp_path) as rig:
        rig.drain.link_ready()
        await until(lambda: bool(rig.gaps()))
        assert rig.batches() == [(0, True), (4, True)]
        assert (rig.gaps()[0].ranges, rig.gaps()[0].reason) == (((2, 3),), "damaged on the disk")
