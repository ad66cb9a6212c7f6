"""Looks after the workers of one ladder: memory limit, heartbeat, canary.

tend (once a second) -> resident memory -> kill;  a worker without an answer for a while -> canary -> right, or kill

Real answers are signs of life, so a busy worker is never asked for its canary. Has no timer of its own: it rides on
the daemon's wake-up.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable

from flyball.config import Engine
from flyball.engine.book import RungBook
from flyball.engine.memory import resident_bytes
from flyball.engine.opened import OpenedRung
from flyball.engine.seats import Seats
from flyball.errors import CanaryError, OpenError, WorkerError

log = logging.getLogger(__name__)

SILENT_AFTER = 3  # heartbeats without any answer: the ladder no longer counts as ready
_FAILED = 3  # requests in a row that a session failed on: is it the requests, or the accelerator?
_STANDBY_BEATS = 6  # a rung on standby is asked so many times less often
_MIB = 1 << 20


class Watch:
    """`distrust` is called when a rung was found to answer wrongly: what it has said lately may be wrong too."""

    def __init__(self, seats: Seats, book: RungBook, config: Engine, distrust: Callable[[], None]) -> None:
        self._seats = seats
        self._book = book
        self._config = config
        self._distrust = distrust
        self._checks: dict[OpenedRung, asyncio.Task[None]] = {}

    def tend(self) -> None:
        now_s = time.monotonic()
        self._limit_memory()
        for opened in self._seats.opened():
            beats = 1 if opened is self._seats.active else _STANDBY_BEATS
            # One of several workers may hang while the others answer.
            heard_s = min([opened.answered_s, *(w.answered_s for w in opened.workers if w.alive())])
            silent = now_s - heard_s > beats * self._config.heartbeat_s
            if opened not in self._checks and (silent or opened.failed >= _FAILED):
                task = asyncio.get_running_loop().create_task(self._check(opened))
                self._checks[opened] = task
                task.add_done_callback(functools.partial(self._checked, opened))

    def close(self) -> None:
        for task in self._checks.values():
            task.cancel()

    def _checked(self, opened: OpenedRung, _: asyncio.Task[None]) -> None:
        self._checks.pop(opened, None)

    def _limit_memory(self) -> None:
        limit_mib = self._config.worker_memory_mib
        if limit_mib is None:
            return
        for worker in self._seats.workers():
            resident = resident_bytes(worker.pid) if worker.alive() else None
            if resident is not None and resident > limit_mib * _MIB:
                log.error("%s: %d MiB, over engine.worker_memory_mib: killed", worker.label, resident // _MIB)
                worker.kill("memory")

    async def _check(self, opened: OpenedRung) -> None:
        # Sooner than a request's limit, but not after a moment: what has been idle for long may have been swapped out.
        limit_s = max(opened.hang_s(), self._config.request_timeout_s / 2)
        try:
            await opened.check(self._book.expected(opened.rung.name), limit_s)
        except CanaryError as error:
            log.error("%s: killed", error)
            self._distrust()
            opened.kill("canary")
        except OpenError as error:
            log.error("%s: killed", error)  # one that refuses is of no use
            opened.kill("canary")
        except WorkerError as error:
            log.error("%s", error)  # it has ended, or has been killed; others of its rung may be well
