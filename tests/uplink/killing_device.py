"""A device in a process of its own that kills itself at one point.

    killing_device.py PORT STATE_DIR MARKS [POINT [PERIOD_S BATCH]]

POINT is WHEN:WHAT, where WHEN is before or after a commit, and WHAT a state that is written to the journal, session,
streams (numbers are granted), or NAME.NUMBER, the NUMBERth time that the document NAME is saved. Its commands: `mark`
appends its name to MARKS, `config` and `restart` are the real ones; a restart here is a SIGKILL.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from device_side import make
from marking_device import mark
from orders_side import Daemon

from flyball.uplink.commands import Row
from flyball.uplink.configuring import Configuring
from flyball.uplink.handlers import config, restart
from flyball.uplink.journal import Journal
from flyball.uplink.stamp import Stamp
from flyball.uplink.state import Opened, Stream
from flyball.uplink.twin import Twin

TRIAL_S = 0.05


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillingJournal(Journal):
    def __init__(self, folder: Path, point: str) -> None:
        super().__init__(folder)
        self._point = point
        self._saves: Counter[str] = Counter()

    async def begin_session(self, streams: Mapping[str, Stream], now: Stamp) -> Opened:
        self._reach("before", "session")
        opened = await super().begin_session(streams, now)
        self._reach("after", "session")
        return opened

    async def save_streams(self, streams: Mapping[str, Stream]) -> None:
        self._reach("before", "streams")
        await super().save_streams(streams)
        self._reach("after", "streams")

    async def admit(self, row: Row) -> Row | None:
        self._reach("before", row.state)
        known = await super().admit(row)
        self._reach("after", row.state)
        return known

    async def put(self, row: Row) -> None:
        self._reach("before", row.state)
        await super().put(row)
        self._reach("after", row.state)

    async def told(self, id: str, rev: int) -> None:
        self._reach("before", "told")
        await super().told(id, rev)
        self._reach("after", "told")

    async def save_document(self, name: str, body: bytes) -> None:
        self._saves[name] += 1
        self._reach("before", f"{name}.{self._saves[name]}")
        await super().save_document(name, body)
        self._reach("after", f"{name}.{self._saves[name]}")

    def _reach(self, when: str, what: str) -> None:
        if self._point == f"{when}:{what}":
            die()


class Process:
    """Implements handlers.Restarting."""

    def restart(self) -> None:
        die()

    def version(self) -> str:
        return "1"


async def main(
    port: int, state_dir: Path, marks: Path, point: str = "", period_s: str = "1", batch_records: str = "60"
) -> None:
    journal = KillingJournal(state_dir, point)
    configuring = Configuring(Daemon(), journal, TRIAL_S)
    handlers = [mark(marks), config(configuring), restart(Process())]
    pace = {"telemetry_period_s": float(period_s), "batch_records": int(batch_records)}
    uplink = make(port, state_dir, handlers=handlers, journal=journal, twin=Twin(configuring, journal), **pace)
    await uplink.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:]))
