"""Collects a record every period and hands them on to the spool.

snapshot() -> Record -> row with its stamp -> spool; sealed when it is a batch (batch_records or batch_s)

Knows nothing of the link. A snapshot that fails leaves out its record and is logged once; it never becomes a record of
zeros.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from flyball.uplink.record import Record, row
from flyball.uplink.redating import ClockChange, ClockWatch
from flyball.uplink.stamp import Stamper
from flyball.uplink.writer import Writer

log = logging.getLogger(__name__)

STREAM = "main"


class Telemetry:
    """`clock_changed` hears of a wall clock that was synchronized or set."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], Record],
        stamper: Stamper,
        writer: Writer,
        period_s: float,
        batch_records: int,
        batch_s: float,
        clock_changed: Callable[[ClockChange], None] = lambda change: None,
    ) -> None:
        self._snapshot = snapshot
        self._stamper = stamper
        self._writer = writer
        self._period_s = period_s
        self._most = batch_records
        self._batch_s = batch_s
        self._clock_changed = clock_changed
        self._watch = ClockWatch()
        self._count = 0  # since the last seal
        self._since = 0.0
        self._failing = False

    async def run(self) -> None:
        """Collects for ever, on a grid of `period_s`; what a suspend left out is not caught up."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            self.collect()
            at = max(at + self._period_s, loop.time())
            await asyncio.sleep(at - loop.time())

    def collect(self) -> None:
        try:
            self._collect()
        except Exception:
            # The boundary of this loop: telemetry goes on with the next period.
            if not self._failing:
                log.exception("telemetry: no record can be made; going on without, until one can")
            self._failing = True
        else:
            if self._failing:
                log.info("telemetry: records are made again")
            self._failing = False

    def flush(self) -> None:
        """Seals what there is."""
        if self._count:
            self._count = 0
            self._writer.flush()

    def _collect(self) -> None:
        stamp = self._stamper.now()
        change = self._watch.see(stamp)
        if change is not None:
            self.flush()
            self._clock_changed(change)
        record = self._snapshot()
        totals = self._writer.totals()
        if totals is not None:
            record = msgspec.structs.replace(record, spool_b=round(totals.bytes, -3))
        if not self._count:
            self._since = record.mono
        self._writer.put_row(STREAM, row(record), stamp)
        self._count += 1
        # Half a period of tolerance: at 1 Hz a 60 s batch is 60 records, not 61 because of a late timer.
        covered_s = record.mono - self._since + 1.5 * self._period_s
        if self._count >= self._most or covered_s > self._batch_s:
            self.flush()
