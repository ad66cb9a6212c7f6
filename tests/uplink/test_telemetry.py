"""Records become batches, whatever the snapshot function does."""

import logging
from collections.abc import Callable

import pytest

from flyball.testing import FakeClock
from flyball.uplink.messages import Batch, Encoded, decode
from flyball.uplink.outbox import Span
from flyball.uplink.record import LadderRecord, Record
from flyball.uplink.sequence import Counter
from flyball.uplink.stamp import Stamper
from flyball.uplink.telemetry import Telemetry


class Bench:
    """A Telemetry driven by hand."""

    def __init__(self, *, batch_records: int = 600, batch_s: float = 3600.0, period_s: float = 1.0) -> None:
        self.clock = FakeClock()
        self.sealed: list[tuple[Batch, Span]] = []
        self.make: Callable[[], Record] = lambda: Record(ts=self.clock.wall_s(), mono=self.clock.boot_s())
        self.telemetry = Telemetry(
            snapshot=lambda: self.make(),
            counter=Counter("main", 100),
            stamper=Stamper(self.clock, "boot-1", lambda: False),
            epoch=lambda: "epoch-1",
            publish=self.publish,
            period_s=period_s,
            batch_records=batch_records,
            batch_s=batch_s,
        )
        self.period_s = period_s

    def publish(self, encoded: Encoded, span: Span) -> None:
        self.sealed.append((decode(encoded.payload, Batch, deflated=encoded.deflated), span))

    def collect(self, times: int) -> None:
        for _ in range(times):
            self.telemetry.collect()
            self.clock.advance(self.period_s)


def test_a_batch_is_sealed_when_it_is_full_and_numbers_go_on() -> None:
    bench = Bench(batch_records=3)
    bench.collect(7)
    assert [span for _, span in bench.sealed] == [Span("main", 100, 102), Span("main", 103, 105)]
    batch = bench.sealed[1][0]
    assert (batch.epoch, batch.first_seq, batch.count, batch.boot, batch.clk) == (
        "epoch-1",
        103,
        3,
        "boot-1",
        "unsynced",
    )
    assert batch.columns["mono"] == (1003.0, 1004.0, 1005.0)
    assert not batch.hist


@pytest.mark.parametrize(("period_s", "expected"), [(1.0, 60), (0.1, 600), (7.0, 9), (60.0, 1), (600.0, 1)])
def test_a_batch_is_sealed_when_its_time_is_over(period_s: float, expected: int) -> None:
    bench = Bench(batch_s=60.0, period_s=period_s)
    bench.collect(expected)
    assert [batch.count for batch, _ in bench.sealed] == [expected]


def test_what_cannot_be_read_is_left_out_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(batch_records=2)
    good = bench.make

    def broken() -> Record:
        raise OSError("sensor gone")

    with caplog.at_level(logging.INFO):
        bench.collect(1)
        bench.make = broken
        bench.collect(5)
        bench.make = good
        bench.collect(1)
    assert bench.sealed[0][0].columns["mono"] == (1000.0, 1006.0)
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]


def test_a_batch_too_large_for_a_message_is_split() -> None:
    bench = Bench(batch_records=200)

    def wide() -> Record:
        ladders = {
            f"ladder-{n}": LadderRecord(state="ready", rung="big", p50_s=(hash((n, self_mono)) % 10**9) / 10**9)
            for n in range(180)
            for self_mono in [bench.clock.boot_s()]
        }
        return Record(ts=bench.clock.wall_s(), mono=bench.clock.boot_s(), ladders=ladders)

    bench.make = wide
    bench.collect(200)
    assert len(bench.sealed) > 1
    assert [span.first for _, span in bench.sealed] == [batch.first_seq for batch, _ in bench.sealed]
    numbers = [n for _, span in bench.sealed for n in range(span.first, span.last + 1)]
    assert numbers == list(range(100, 300))


def test_flushing_nothing_publishes_nothing() -> None:
    bench = Bench()
    bench.telemetry.flush()
    assert bench.sealed == []
