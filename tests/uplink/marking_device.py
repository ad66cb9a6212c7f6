"""A device in a process of its own, to be killed.

    marking_device.py PORT STATE_DIR MARKS [PERIOD_S BATCH_RECORDS [COLLECT_S]]

Its command `mark` appends its name to the file MARKS, flushed, and then returns, or waits for ever if asked to.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
from device_side import QUICK, make

from flyball.uplink.commands import Handler, Order


class MarkArgs(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    wait: bool = False


def mark(marks: Path) -> Handler[MarkArgs]:
    async def run(args: MarkArgs, _: Order) -> None:
        with marks.open("a") as file:
            file.write(args.name + "\n")
            file.flush()
            os.fsync(file.fileno())
        if args.wait:
            await asyncio.Event().wait()

    return Handler(name="mark", args=MarkArgs, run=run)


async def main(
    port: int, state_dir: Path, marks: Path, period_s: str = "1", batch_records: str = "60", collect_s: str = "10"
) -> None:
    pace = {"telemetry_period_s": float(period_s), "batch_records": int(batch_records)}
    timing = replace(QUICK, collect_s=float(collect_s))
    uplink = make(port, state_dir, handlers=[mark(marks)], timing=timing, **pace)
    await uplink.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:]))
