"""Collects a record every period and hands them on as batches.

snapshot() -> Record -> [up to batch_records or batch_s] -> numbered batch of columns -> publish

Knows nothing of the link: batches are handed on whether it is up or not, and bounded there (outbox.py). A snapshot
that fails leaves out its record and is logged once; it never becomes a record of zeros.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from flyball.errors import MessageError
from flyball.uplink.messages import Batch, Encoded, encode
from flyball.uplink.outbox import Span
from flyball.uplink.record import Record, columns
from flyball.uplink.sequence import Counter
from flyball.uplink.stamp import Stamper

log = logging.getLogger(__name__)

STREAM = "main"


class Telemetry:
    """`publish` gets every sealed batch with its numbers; `epoch` is asked when a batch is sealed."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], Record],
        counter: Counter,
        stamper: Stamper,
        epoch: Callable[[], str],
        publish: Callable[[Encoded, Span], None],
        period_s: float,
        batch_records: int,
        batch_s: float,
    ) -> None:
        self._snapshot = snapshot
        self._counter = counter
        self._stamper = stamper
        self._epoch = epoch
        self._publish = publish
        self._period_s = period_s
        self._most = batch_records
        self._batch_s = batch_s
        self._records: list[Record] = []
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

    def _collect(self) -> None:
        record = self._snapshot()
        self._records.append(record)
        # Half a period of tolerance: at 1 Hz a 60 s batch is 60 records, not 61 because of a late timer.
        covered_s = record.mono - self._records[0].mono + 1.5 * self._period_s
        if len(self._records) >= self._most or covered_s > self._batch_s:
            self.flush()

    def flush(self) -> None:
        """Seals what there is."""
        records, self._records = self._records, []
        if records:
            self._seal(records, self._counter.take(len(records)))

    def _seal(self, records: list[Record], first: int) -> None:
        stamp = self._stamper.now()
        batch = Batch(
            epoch=self._epoch(),
            first_seq=first,
            count=len(records),
            boot=stamp.boot,
            clk=stamp.clk,
            columns=columns(records),
        )
        try:
            encoded = encode(batch)
        except MessageError:
            if len(records) == 1:
                raise
            half = len(records) // 2
            self._seal(records[:half], first)
            self._seal(records[half:], first + half)
            return
        self._publish(encoded, Span(STREAM, first, first + len(records) - 1))
