"""The one thread that writes fleet.db, many messages to a commit.

put(message) -> queue -> read, Store.apply ... COMMIT -> done(messages, outcomes), back on the event loop

While one commit waits for the disk the next messages gather, so the busier it is, the larger the commits. A message
that cannot be used is written down as rejected and done with; a disk that cannot be written ends in `failed`, with
nothing done, so that the broker keeps the messages. Never drops one silently.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from flyball.clock import Clock, wall_is_synchronized
from flyball.errors import MessageError, StateError
from flyball.uplink.cure import cure
from flyball_fleet import intake, retention, schema
from flyball_fleet.limits import Limits
from flyball_fleet.link import Link, Message
from flyball_fleet.store import Outcome, Store

log = logging.getLogger(__name__)

AT_ONCE = 500  # messages to a commit
PRUNE_EVERY_S = 60.0
_DISK = (sqlite3.OperationalError, sqlite3.DatabaseError)  # full, locked, corrupt; its subclasses are of one message

Item = tuple[Link, Message]
Finished = Outcome | MessageError | None  # None: ignored
Done = Callable[[Sequence[tuple[Item, Finished]]], None]


class Writer:
    """`done` and `failed` are called on the event loop that start() ran on."""

    def __init__(self, path: Path, limits: Limits, clock: Clock, done: Done, failed: Callable[[str], None]) -> None:
        self._path = path
        self._limits = limits
        self._clock = clock
        self._done = done
        self._failed = failed
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.commits = 0
        self.used_bytes = 0
        self.pruned = 0

    def start(self) -> None:
        """Raises StateError when the file cannot be opened."""
        db = schema.open_writer(self._path)
        self.used_bytes = retention.used_bytes(db)
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(db, loop), name="fleet-writer", daemon=True)
        self._thread.start()

    def put(self, link: Link, message: Message) -> None:
        """Of QoS 1 the receive maximum of the link bounds how many wait; of QoS 0 the caller has to (waiting())."""
        self._queue.put((link, message))

    def waiting(self) -> int:
        return self._queue.qsize()

    async def stop(self) -> None:
        """After what was put until now."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    # ------------------------------------------------------------------------------------------------- in the thread

    def _run(self, db: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        store = Store(db, self._limits)
        prune_at = self._clock.monotonic_s() + PRUNE_EVERY_S
        ended = False
        while not ended:
            items: list[Item] = []
            try:
                ended = self._gather(items, max(0.0, prune_at - self._clock.monotonic_s()))
                if items:
                    finished = self._commit(db, store, items)
                    loop.call_soon_threadsafe(self._done, finished)
                if self._clock.monotonic_s() >= prune_at:
                    prune_at = self._clock.monotonic_s() + PRUNE_EVERY_S
                    self._prune(db)
            except (sqlite3.Error, StateError) as error:
                with contextlib.suppress(sqlite3.Error):  # the disk may be gone altogether
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                loop.call_soon_threadsafe(
                    self._failed, f"{self._path} cannot be written: {error}; {cure(self._path, error)}"
                )
        db.close()

    def _gather(self, items: list[Item], timeout_s: float) -> bool:
        try:
            item = self._queue.get(timeout=timeout_s)
            while item is not None:
                items.append(item)
                if len(items) >= AT_ONCE:
                    return False
                item = self._queue.get_nowait()
        except queue.Empty:
            return False
        return True

    def _commit(self, db: sqlite3.Connection, store: Store, items: Sequence[Item]) -> list[tuple[Item, Finished]]:
        now = self._clock.wall_s()
        db.execute("BEGIN IMMEDIATE")
        finished = [(item, self._one(db, store, item[1], now)) for item in items]
        db.execute("COMMIT")
        self.commits += 1
        return finished

    def _one(self, db: sqlite3.Connection, store: Store, message: Message, now: float) -> Finished:
        db.execute("SAVEPOINT one")
        try:
            arrival = intake.read(message.topic, message.payload, deflated=message.deflated, retain=message.retain)
            return store.apply(arrival, message.payload, message.deflated, now)
        except intake.Ignored:
            return None
        except MessageError as error:
            db.execute("ROLLBACK TO one")
            store.reject(message.topic, str(error), len(message.payload), now)
            return error
        except Exception as error:
            if type(error) in _DISK:
                raise
            # The boundary of this loop: one strange message must not hold up the others.
            log.exception("fleet: a message on %.200r could not be stored", message.topic)
            db.execute("ROLLBACK TO one")
            refusal = MessageError(f"could not be stored: {type(error).__name__}")
            store.reject(message.topic, str(refusal), len(message.payload), now)
            return refusal
        finally:
            if db.in_transaction:
                db.execute("RELEASE one")

    def _prune(self, db: sqlite3.Connection) -> None:
        while removed := retention.prune(db, self._limits, self._clock.wall_s(), wall_is_synchronized()):
            self.pruned += removed
            if not self._queue.empty():
                break
        self.used_bytes = retention.used_bytes(db)
