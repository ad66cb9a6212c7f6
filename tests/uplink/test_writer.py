"""The spool's writer: nobody waits for it, and what the disk does not take now is counted."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from device_side import until

from flyball.errors import StateError
from flyball.uplink.batch import decode
from flyball.uplink.messages import EventMessage
from flyball.uplink.spool import FILE_NAME, SpoolFile
from flyball.uplink.spooled import EVENTS, TELEMETRY, Sealed, Start
from flyball.uplink.stamp import Stamp
from flyball.uplink.state import Stream
from flyball.uplink.writer import BLOCK, MAX_MESSAGES, MAX_ROWS, Writer

pytestmark = pytest.mark.anyio

STARTS = {"main": Start(klass=TELEMETRY), "events": Start(klass=EVENTS)}
STAMP = Stamp(ts=1.0, mono=1.0, boot="b1", clk="synced")


class Rig:
    def __init__(self, folder: Path) -> None:
        self.sealed: list[Sealed] = []
        self.troubles: list[str] = []
        self.replaced: list[str] = []
        self.grants: list[dict[str, int]] = []
        self.grant_fails = False
        self.writer = Writer(
            SpoolFile(folder, batch_records=10),
            grant=self._grant,
            stored=self._stored,
            replaced=self.replaced.append,
            sealed=self.sealed.extend,
        )

    async def _grant(self, streams: Mapping[str, Stream]) -> None:
        if self.grant_fails:
            raise StateError("state.db: full")
        self.grants.append({name: stream.next for name, stream in streams.items()})

    def _stored(self, trouble: str) -> None:
        if trouble:
            self.troubles.append(trouble)

    def put(self, first: int, count: int) -> None:
        for n in range(first, first + count):
            self.writer.put_row("main", {"n": float(n)}, STAMP)

    def numbers(self, stream: str = "main") -> list[int]:
        return [n for s in self.sealed if s.stream == stream for n in range(s.first, s.last + 1)]


@asynccontextmanager
async def rig_in(folder: Path, starts: Mapping[str, Start] = STARTS) -> AsyncIterator[Rig]:
    rig = Rig(folder)
    rig.writer.begin("e1", starts)
    try:
        yield rig
    finally:
        await rig.writer.close(10)


def event(kind: str) -> EventMessage:
    return EventMessage(epoch="", seq=0, stamp=STAMP, kind=kind, severity="info", message="x")


async def test_no_number_leaves_before_its_block_stands_in_the_state_store(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.grant_fails = True
        rig.put(0, 10)
        await until(lambda: bool(rig.troubles))
        assert rig.sealed == []
        rig.grant_fails = False
        await until(lambda: rig.numbers() == list(range(10)))
        assert rig.grants == [{"main": BLOCK, "events": BLOCK}]


async def test_events_are_written_at_once_and_those_of_a_storm_together(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        for _ in range(50):
            rig.writer.put_message("events", event("storm"))
        await until(lambda: rig.numbers("events") == list(range(50)))


async def test_a_disk_that_cannot_be_used_costs_the_oldest_and_a_gap_says_how_many(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("a file where a folder should be")
    async with rig_in(folder) as rig:
        rig.put(0, MAX_ROWS + 25)
        for _ in range(MAX_MESSAGES + 3):
            rig.writer.put_message("events", event("storm"))
        await until(lambda: bool(rig.troubles))
        rig.put(MAX_ROWS + 25, 5)
        assert rig.sealed == []
        assert rig.writer.totals() is None
        folder.unlink()
        await until(lambda: len(rig.numbers()) == MAX_ROWS)
        assert rig.numbers() == list(range(30, MAX_ROWS + 30))
        gaps = {g.stream: (g.first, g.last, g.reason) for g in await rig.writer.gaps(10)}
        assert gaps["main"][:2] == (0, 29)
        assert gaps["events"][:2] == (0, 2)
        assert "no room in memory" in gaps["main"][2]
        first = next(s.encoded for s in rig.sealed if s.stream == "main")
        assert decode(first.payload, deflated=first.deflated).columns["n"][0] == 30.0


async def test_a_locked_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.put(0, 10)
        await until(lambda: len(rig.numbers()) == 10)
        holder = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        rig.put(10, 10)
        rig.writer.flush()
        ticks = 0
        while not rig.troubles and ticks < 2000:
            await asyncio.sleep(0.005)
            ticks += 1
        assert 20 < ticks < 2000  # the loop went on all the while, and then the lock was told of
        holder.execute("ROLLBACK")
        holder.close()
        await until(lambda: rig.numbers() == list(range(20)))


async def test_damage_while_running_is_put_aside_and_the_numbers_go_on_behind_the_block(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.put(0, 20)
        await until(lambda: len(rig.numbers()) == 20)
        await rig.writer.close(10)
    (tmp_path / FILE_NAME).write_bytes(b"something else!!" * 1000)
    for suffix in ("-wal", "-shm"):
        (tmp_path / (FILE_NAME + suffix)).unlink(missing_ok=True)
    starts = {"main": Start(klass=TELEMETRY, next=BLOCK, settled=5), "events": Start(klass=EVENTS)}
    async with rig_in(tmp_path, starts) as rig:
        rig.put(20, 10)
        await until(lambda: len(rig.numbers()) == 10)
        assert rig.numbers()[0] == BLOCK
        assert "kept as" in rig.replaced[0]
        (gap,) = await rig.writer.gaps(10)
        assert (gap.first, gap.last) == (5, BLOCK - 1)
    assert (tmp_path / f"{FILE_NAME}.corrupt-1").exists()


async def test_a_clean_end_says_exactly_where_the_streams_stand(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        rig.put(0, 10)
        await until(lambda: len(rig.numbers()) == 10)
        rig.writer.acknowledge(rig.sealed[0])
        rig.put(10, 3)
        marks = await rig.writer.close(10)
        assert marks["main"] == Stream(next=13, settled=10)


@asynccontextmanager
async def a_slow_write(folder: Path, rig: Rig) -> AsyncIterator[None]:
    """Within it a write of the numbers 0 to 9 is under way, and comes to its end after it."""
    rig.put(0, 1)
    rig.writer.flush()
    await until(lambda: rig.numbers() == [0])
    holder = sqlite3.connect(folder / FILE_NAME, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        rig.put(1, 9)
        rig.writer.flush()
        await asyncio.sleep(0.5)  # more than two writes are apart: it has begun, and waits for the lock
        assert rig.numbers() == [0]
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


async def test_what_was_put_during_a_write_is_waited_for_too(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        async with a_slow_write(tmp_path, rig):
            rig.put(10, 3)
            rig.writer.flush()
            waiting = asyncio.create_task(rig.writer.written(10))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        await waiting
        assert rig.numbers() == list(range(13))


async def test_what_was_put_during_a_write_is_not_lost_by_an_end(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        async with a_slow_write(tmp_path, rig):
            rig.put(10, 3)
            rig.writer.acknowledge(rig.sealed[0])
            ending = asyncio.create_task(rig.writer.close(10))
            await asyncio.sleep(0.05)
            assert not ending.done()
        marks = await ending
        assert marks["main"] == Stream(next=13, settled=1)
    async with rig_in(tmp_path) as rig:
        await until(lambda: rig.writer.totals() is not None)
        assert [n for s in await rig.writer.oldest(TELEMETRY, 0, 9) for n in range(s.first, s.last + 1)] == list(
            range(1, 13)
        )


async def test_whoever_waits_is_not_kept_by_a_write_that_failed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("a file where a folder should be")
    async with rig_in(folder) as rig:
        rig.put(0, 3)
        rig.writer.flush()
        await until(lambda: len(rig.troubles) == 3)  # the next attempt comes four seconds after it
        folder.unlink()
        await rig.writer.written(2)
        assert rig.numbers() == [0, 1, 2]
