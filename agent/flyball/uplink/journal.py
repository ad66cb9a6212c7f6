"""The state file, seen from the event loop.

await call -> the one thread that touches SQLite -> result, or StateError

One thread, so that writes happen in the order in which they were asked for; it sleeps between them. Never runs SQLite
on the event loop: a flush takes 5 ms on good flash and seconds on a worn card.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from flyball.uplink.commands import Row
from flyball.uplink.spooled import Span
from flyball.uplink.stamp import Stamp
from flyball.uplink.state import Opened, StateFile, Stream

T = TypeVar("T")


class Journal:
    def __init__(self, folder: Path) -> None:
        self._file = StateFile(folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flyball-state")

    async def begin_session(self, streams: Mapping[str, Stream], now: Stamp) -> Opened:
        return await self._call(lambda: self._file.begin_session(streams, now))

    async def open_stream(self, name: str) -> tuple[int, Span | None]:
        return await self._call(lambda: self._file.open_stream(name))

    async def save_streams(self, streams: Mapping[str, Stream]) -> None:
        await self._call(lambda: self._file.save_streams(streams))

    async def admit(self, row: Row) -> Row | None:
        return await self._call(lambda: self._file.admit(row))

    async def put(self, row: Row) -> None:
        await self._call(lambda: self._file.put(row))

    async def told(self, id: str, rev: int) -> None:
        await self._call(lambda: self._file.told(id, rev))

    async def told_soon(self, id: str, rev: int) -> None:
        await self._call(lambda: self._file.told_soon(id, rev))

    async def open_orders(self) -> tuple[Row, ...]:
        return await self._call(self._file.open_orders)

    async def finished_orders(self, most: int) -> tuple[Row, ...]:
        return await self._call(lambda: self._file.finished_orders(most))

    async def document(self, name: str) -> bytes | None:
        return await self._call(lambda: self._file.document(name))

    async def save_document(self, name: str, body: bytes) -> None:
        await self._call(lambda: self._file.save_document(name, body))

    async def close(self) -> None:
        await self._call(self._file.close)
        self._thread.shutdown(wait=False)  # it has nothing left to do

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
