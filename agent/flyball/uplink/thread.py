"""Blocking work in a thread of its own, for as long as it takes.

await apart(work) -> daemon thread -> result or exception; cancelled: the work is told, and nobody waits for it

Not asyncio's pool: its threads keep a daemon from ending until a socket has timed out.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def apart(work: Callable[[threading.Event], T], name: str) -> T:
    """`work` gets the event that tells it to give up, and has to look at it often."""
    loop = asyncio.get_running_loop()
    cancelled = threading.Event()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # without an error it is a T

    def run() -> None:
        result, error = None, None
        try:
            result = work(cancelled)
        except BaseException as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await done
    finally:
        cancelled.set()
