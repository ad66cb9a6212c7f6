"""Records become batches, whatever the snapshot function does."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flyball.testing import FakeClock
from flyball.uplink.batch import decode
from flyball.uplink.messages import Batch
from flyball.uplink.record import LadderRecord, Record
from flyball.uplink.redating import ClockChange
from flyball.uplink.spool import SpoolFile
from flyball.uplink.spooled import TELEMETRY, Sealed, Start
from flyball.uplink.stamp import Stamper
from flyball.uplink.state import Stream
from flyball.uplink.telemetry import Telemetry
from flyball.uplink.writer import Writer

pytestmark = pytest.mark.anyio


async def granted(streams: Mapping[str, Stream]) -> None:
    pass


class SetClock(FakeClock):
    """Somebody sets its wall clock."""

    off_by_s = 0.0

    def wall_s(self) -> float:
        return super().wall_s() + self.off_by_s


class Bench:
    """A Telemetry driven by hand, over a real spool."""

    def __init__(
        self, folder: Path, *, batch_records: int = 600, batch_s: float = 3600.0, period_s: float = 1.0
    ) -> None:
        self.clock = SetClock(wall_s=5.0)
        self.synchronized = False
        self.batches: list[Batch] = []
        self.changes: list[ClockChange] = []
        self.make: Callable[[], Record] = lambda: Record(ts=self.clock.wall_s(), mono=self.clock.boot_s())
        self.writer = Writer(
            SpoolFile(folder, batch_records=batch_records),
            grant=granted,
            stored=lambda trouble: None,
            replaced=lambda why: None,
            sealed=self._sealed,
        )
        self.telemetry = Telemetry(
            snapshot=lambda: self.make(),
            stamper=Stamper(self.clock, "boot-1", lambda: self.synchronized),
            writer=self.writer,
            period_s=period_s,
            batch_records=batch_records,
            batch_s=batch_s,
            clock_changed=self.changes.append,
        )
        self.period_s = period_s
        self.writer.begin("epoch-1", {"main": Start(klass=TELEMETRY, next=100, settled=100)})

    def _sealed(self, sealed: Sequence[Sealed]) -> None:
        self.batches += [decode(s.encoded.payload, deflated=s.encoded.deflated) for s in sealed]

    async def collect(self, times: int) -> None:
        for _ in range(times):
            self.telemetry.collect()
            self.clock.advance(self.period_s)
        await self.writer.written(10)


@asynccontextmanager
async def bench_in(folder: Path, **settings: Any) -> AsyncIterator[Bench]:
    bench = Bench(folder, **settings)
    try:
        yield bench
    finally:
        await bench.writer.close(10)


async def test_a_batch_is_sealed_when_it_is_full_and_numbers_go_on(tmp_path: Path) -> None:
    async with bench_in(tmp_path, batch_records=3) as bench:
        await bench.collect(6)
        assert [(b.first_seq, b.count) for b in bench.batches] == [(100, 3), (103, 3)]
        batch = bench.batches[1]
        assert (batch.epoch, batch.boot, batch.clk, batch.hist) == ("epoch-1", "boot-1", "unsynced", False)
        assert batch.columns["mono"] == (1003.0, 1004.0, 1005.0)


@pytest.mark.parametrize(("period_s", "expected"), [(1.0, 60), (0.1, 600), (7.0, 9), (60.0, 1), (600.0, 1)])
async def test_a_batch_is_sealed_when_its_time_is_over(tmp_path: Path, period_s: float, expected: int) -> None:
    async with bench_in(tmp_path, batch_s=60.0, period_s=period_s) as bench:
        await bench.collect(expected)
        assert [batch.count for batch in bench.batches] == [expected]


async def test_what_cannot_be_read_is_left_out_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench_in(tmp_path, batch_records=2) as bench:
        good = bench.make

        def broken() -> Record:
            raise OSError("sensor gone")

        with caplog.at_level(logging.INFO, "flyball"):
            await bench.collect(1)
            bench.make = broken
            await bench.collect(5)
            bench.make = good
            await bench.collect(1)
        assert bench.batches[0].columns["mono"] == (1000.0, 1006.0)
        assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]


async def test_a_batch_too_large_for_a_message_is_split(tmp_path: Path) -> None:
    async with bench_in(tmp_path, batch_records=600) as bench:
        source = random.Random(7)

        def wide() -> Record:
            noise = [round(source.random(), 9) for _ in range(75)]
            ladders = {
                f"ladder-{n}": LadderRecord(state="ready", rung="big", p50_s=a, p95_s=b, p99_s=c)
                for n, (a, b, c) in enumerate(zip(noise[::3], noise[1::3], noise[2::3], strict=True))
            }
            return Record(ts=bench.clock.wall_s(), mono=bench.clock.boot_s(), ladders=ladders)

        bench.make = wide
        await bench.collect(600)
        assert len(bench.batches) > 1
        numbers = [b.first_seq + i for b in bench.batches for i in range(b.count)]
        assert numbers == list(range(100, 700))


async def test_the_offset_is_told_when_the_clock_is_synchronized(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.collect(3)
        bench.clock.off_by_s = 1_700_000_000.5
        bench.synchronized = True
        await bench.collect(2)
        bench.telemetry.flush()
        await bench.writer.written(10)
        (change,) = bench.changes
        assert (change.kind, change.offset_s, change.boot, change.mono) == (
            "clock_synchronized", 1_700_000_000.5, "boot-1", 1003.0,
        )  # fmt: skip
        assert [(b.clk, b.count) for b in bench.batches] == [("unsynced", 3), ("synced", 2)]
        before, after = (b.columns["ts"] for b in bench.batches)
        assert isinstance(before[0], float)
        assert isinstance(after[0], float)
        assert before[0] + change.offset_s + 3 == pytest.approx(after[0])


async def test_flushing_nothing_seals_nothing(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        bench.telemetry.flush()
        await asyncio.sleep(0)
        await bench.writer.written(10)
        assert bench.batches == []
