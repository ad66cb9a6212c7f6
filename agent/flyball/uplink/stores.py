"""The uplink's two files, and what is said when one of them cannot be used.

state.db (journal.py), spool.db (writer.py) -> begin_session -> Opened; trouble -> an alarm, which goes with it

A session is begun in both: its number is on the disk before CONNECT leaves, and the streams go on behind every number
that may have been given out. Decides nothing and sends nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from flyball.errors import StateError
from flyball.uplink.alarms import STATE_STORE, Alarms
from flyball.uplink.journal import Journal
from flyball.uplink.spooled import Start
from flyball.uplink.stamp import Stamper
from flyball.uplink.state import Opened
from flyball.uplink.writer import Writer

log = logging.getLogger(__name__)


class Stores:
    """`streams` are their classes by name."""

    def __init__(
        self, journal: Journal, writer: Writer, alarms: Alarms, stamper: Stamper, streams: Mapping[str, int]
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._alarms = alarms
        self._stamper = stamper
        self._streams = streams
        self._writing: set[asyncio.Task[None]] = set()

    async def begin_session(self) -> Opened:
        """Raises StateError."""
        starts = {} if self._writer.epoch else await self._starts()
        opened = await self._journal.begin_session(self._writer.marks(), self._stamper.now())
        self._writer.begin(opened.epoch, starts or {n: Start(klass=k) for n, k in self._streams.items()})
        return opened

    def write(self, work: Coroutine[Any, Any, None]) -> None:
        """While other things go on."""

        async def write() -> None:
            try:
                await work
                self.trouble("")
            except StateError as error:
                self.trouble(str(error))

        task = asyncio.get_running_loop().create_task(write())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def trouble(self, trouble: str, alarm: str = STATE_STORE) -> None:
        """ "" when there is none any more."""
        if trouble:
            self._alarms.raise_alarm(alarm, trouble)
        else:
            self._alarms.clear(alarm)

    async def close(self, timeout_s: float) -> None:
        """After what is being written."""
        if self._writing:
            await asyncio.wait(self._writing)
        try:
            marks = await self._writer.close(timeout_s)
            if marks:
                await self._journal.save_streams(marks)
        except StateError as error:
            log.error("uplink: %s", error)
        finally:
            await self._journal.close()

    async def _starts(self) -> dict[str, Start]:
        """Where the streams go on if the spool does not know: behind what may have been given out."""
        starts = {}
        for name, klass in self._streams.items():
            next, left = await self._journal.open_stream(name)
            starts[name] = Start(klass=klass, next=next, settled=next if left is None else left.first)
        return starts
