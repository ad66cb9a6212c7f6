"""The bounded queue on the disk between the daemon and the broker.

Work (rows, messages, acknowledgements) -> commit -> numbered, sealed -> spool.db -> oldest() -> sent -> deleted

Rows wait in one blob per stream until they are a batch: row by row they would wear the flash out. Numbers are given out
in the transaction that seals, and that one is flushed, so that no number that was sent is ever given to another record;
the other transactions are left to the kernel (synchronous=NORMAL): a kill loses none, a power cut half a minute.
Blocking: used from one thread only (writer.py). Looks at no clock, so none can make it delete anything: what leaves was
acknowledged, or there was no room for it, and then a gap says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from flyball.errors import MessageError, StateError
from flyball.uplink import backlog, room
from flyball.uplink import batch as batches
from flyball.uplink.cure import cure
from flyball.uplink.damage import is_corrupt, set_aside
from flyball.uplink.messages import Batch, Encoded, EventMessage, encode
from flyball.uplink.spooled import CLASSES, GapRow, Rows, Sealed, Start, Totals, Work
from flyball.uplink.spoolfile import connect
from flyball.uplink.streams import Stream, Streams

FILE_NAME = "spool.db"
BOUND_BYTES = 64 * 1024 * 1024  # of batches; in pages of 2 KiB they take up to 110 MiB of disk
LIMIT_SHORT = "numbers are not granted yet"


class SpoolFile:
    """Raises StateError when the file cannot be used; nothing was changed then."""

    def __init__(self, folder: Path, bound_bytes: int = BOUND_BYTES, batch_records: int = 60) -> None:
        self._path = folder / FILE_NAME
        self._bound = bound_bytes
        self._batch_records = batch_records
        self._db: sqlite3.Connection | None = None
        self._streams = Streams()
        self._sweep = room.Sweep()
        self._ids: dict[int, int] = {}  # per class, the next id; never used twice while this process lives
        self._epoch = ""
        self._starts: Mapping[str, Start] = {}
        self._limits: dict[str, int] = {}
        self._damage = ""
        self.replaced = ""  # why the file was begun anew; "" when it was not

    def begin(self, epoch: str, starts: Mapping[str, Start]) -> None:
        """The streams of this run. One that the file does not know goes on where `starts` says, and a gap tells what is
        missing before it."""
        if epoch != self._epoch:
            self._limits = {}
        self._epoch, self._starts = epoch, starts
        self.close()
        self._open()

    def grant(self, limits: Mapping[str, int]) -> None:
        """Numbers below these may be given out: the state store would go on there, were this file lost."""
        self._limits = {**limits}

    def marks(self) -> dict[str, tuple[int, int]]:
        """Of every stream its next number, and the first that is neither acknowledged nor told as lost."""
        with self._reading() as db:
            streams = self._streams.current(self._epoch).items()
            return {name: (stream.next, backlog.oldest_number(db, stream)) for name, stream in streams}

    def totals(self) -> Totals:
        """Records that wait, numbered or not, and bytes of the sealed ones."""
        return self._streams.totals()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    # -------------------------------------------------------------------------------------------------------- writing

    def commit(self, work: Work) -> list[Sealed]:
        """All of it in one transaction; gives back what was sealed."""
        self._open()
        sealed: list[Sealed] = []
        with self._transaction(flush=self._gives_numbers(work)) as db:
            for klass, id in work.acknowledged:
                room.delete(db, self._streams, klass, id)
            db.executemany("DELETE FROM gap WHERE id = ? AND last = ?", [(g.id, g.last) for g in work.told])
            for refused, reason in work.refused:
                if room.delete(db, self._streams, refused.klass, refused.id):
                    stream = self._streams.of(refused.stream, refused.epoch)
                    room.add_gap(db, stream, refused.first, refused.last, reason)
            for name, count in work.dropped.items():
                stream = self._streams.of(name, self._epoch)
                first = self._take(stream, count)
                room.add_gap(db, stream, first, first + count - 1, "no room in memory while the disk could not be used")
            for name, message in work.messages:
                sealed.append(self._seal_message(db, self._streams.of(name, self._epoch), message))
            for name, groups in work.rows.items():
                for group in groups:
                    sealed += self._append(db, self._streams.of(name, self._epoch), group)
            if work.seal:
                for stream in self._streams.current(self._epoch).values():
                    sealed += self._seal_waiting(db, stream, 1)
            busy = work.busy | {s.key for s in sealed}
            room.reclaim(db, self._streams, self._sweep, self._bound, busy)
        return sealed

    def _gives_numbers(self, work: Work) -> bool:
        if work.messages or work.seal or work.dropped:
            return True
        for name, groups in work.rows.items():
            waiting = self._streams.of(name, self._epoch).waiting
            kinds = {(g.boot, g.clk) for g in [*([waiting] if waiting else []), *groups]}
            count = sum(len(g.rows) for g in [*([waiting] if waiting else []), *groups])
            if len(kinds) > 1 or count >= self._batch_records:
                return True
        return False

    def _append(self, db: sqlite3.Connection, stream: Stream, group: Rows) -> list[Sealed]:
        sealed: list[Sealed] = []
        waiting = stream.waiting
        if waiting is not None and (waiting.boot, waiting.clk) != (group.boot, group.clk):
            sealed += self._seal_waiting(db, stream, 1)
            waiting = None
        before = waiting.rows if waiting else ()
        stream.wait(Rows(boot=group.boot, clk=group.clk, rows=(*before, *group.rows)))
        return sealed + self._seal_waiting(db, stream, self._batch_records)

    def _seal_waiting(self, db: sqlite3.Connection, stream: Stream, least: int) -> list[Sealed]:
        """As long as `least` rows wait."""
        sealed: list[Sealed] = []
        while stream.waiting is not None and len(stream.waiting.rows) >= least:
            waiting, most = stream.waiting, self._batch_records
            sealed += self._seal_rows(db, stream, waiting, waiting.rows[:most])
            left = waiting.rows[most:]
            stream.wait(Rows(boot=waiting.boot, clk=waiting.clk, rows=left) if left else None)
        return sealed

    def _seal_rows(
        self, db: sqlite3.Connection, stream: Stream, group: Rows, rows: Sequence[batches.Row]
    ) -> list[Sealed]:
        try:
            encoded = batches.encode(
                Batch(
                    epoch=stream.epoch,
                    first_seq=stream.next,
                    count=len(rows),
                    boot=group.boot,
                    clk=group.clk,
                    columns=batches.table(rows),
                )
            )
        except MessageError:
            if len(rows) == 1:
                first = self._take(stream, 1)
                room.add_gap(db, stream, first, first, "a record larger than a message may be")
                return []
            half = len(rows) // 2
            return [
                *self._seal_rows(db, stream, group, rows[:half]),
                *self._seal_rows(db, stream, group, rows[half:]),
            ]
        return [self._insert(db, stream, self._take(stream, len(rows)), len(rows), "", encoded)]

    def _seal_message(self, db: sqlite3.Connection, stream: Stream, message: EventMessage) -> Sealed:
        numbered = msgspec.structs.replace(message, epoch=stream.epoch, seq=stream.next)
        return self._insert(db, stream, self._take(stream, 1), 1, message.kind, encode(numbered))

    def _insert(
        self, db: sqlite3.Connection, stream: Stream, first: int, count: int, name: str, encoded: Encoded
    ) -> Sealed:
        id = self._ids[stream.klass]
        self._ids[stream.klass] += 1
        db.execute(
            f"INSERT INTO batch{stream.klass} VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # our own tables
            (id, stream.id, first, count, name, encoded.deflated, encoded.payload),
        )
        stream.account(count, len(encoded.payload))
        return Sealed(
            id=id,
            klass=stream.klass,
            stream=stream.name,
            epoch=stream.epoch,
            first=first,
            count=count,
            name=name,
            encoded=encoded,
        )

    def _take(self, stream: Stream, count: int) -> int:
        if stream.epoch == self._epoch and stream.next + count > self._limits.get(stream.name, 0):
            raise StateError(f"{self._path}: {LIMIT_SHORT} beyond {stream.next}")
        return stream.take(count)

    # -------------------------------------------------------------------------------------------------------- reading

    def oldest(self, klass: int, after: int, most: int) -> list[Sealed]:
        """The sealed ones of a class behind id `after`, oldest first."""
        with self._reading() as db:
            return backlog.oldest(db, self._streams, klass, after, most)

    def gaps(self, after: int, most: int) -> list[GapRow]:
        with self._reading() as db:
            return backlog.gaps(db, self._streams, after, most)

    # ----------------------------------------------------------------------------------------------------- connection

    @contextmanager
    def _transaction(self, *, flush: bool = False) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute(f"PRAGMA synchronous={'FULL' if flush else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            yield db
            self._streams.save(db)
            db.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Whatever fails, the next call opens the file anew: then memory says what the disk does."""
        try:
            yield self._open()
        except (sqlite3.Error, OSError, MessageError) as error:
            self.close()
            if is_corrupt(error):
                self._damage = str(error)
                raise StateError(f"{self._path}: is damaged: {error}; it is kept aside and begun anew") from error
            raise StateError(f"{self._path}: cannot be used: {error}; {cure(self._path, error)}") from error
        except BaseException:
            self.close()  # rolls back
            raise

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                if self._damage:
                    self._begin_anew(self._damage)
                try:
                    self._db = self._load()
                except sqlite3.DatabaseError as error:
                    if not is_corrupt(error):
                        raise
                    self._begin_anew(str(error))
                    self._db = self._load()
            except (sqlite3.Error, OSError) as error:
                raise StateError(f"{self._path}: cannot be opened: {error}; {cure(self._path, error)}") from error
        return self._db

    def _begin_anew(self, reason: str) -> None:
        aside = set_aside(self._path)
        self._damage = ""
        self._sweep = room.Sweep()
        self.replaced = f"{reason}; kept as {aside}" if aside else reason

    def _load(self) -> sqlite3.Connection:
        """Reads the streams, and of the batches the last id only."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = connect(self._path)
        try:
            try:
                self._streams = Streams.load(db)
            except MessageError as error:
                raise sqlite3.DatabaseError(f"what waits to be sealed cannot be read: {error}") from error
            backlog.check_ends(db, self._streams)
            for klass in CLASSES:
                (last,) = db.execute(f"SELECT max(id) FROM batch{klass}").fetchone()  # noqa: S608  # our own tables
                self._ids[klass] = max(self._ids.get(klass, 1), (last or 0) + 1)
            if self._epoch:
                self._begin_streams(db)
        except BaseException:
            db.close()
            raise
        return db

    def _begin_streams(self, db: sqlite3.Connection) -> None:
        known = self._streams.current(self._epoch)
        if all(name in known for name in self._starts) and not self._streams.outdated(self._epoch):
            return
        db.execute("BEGIN IMMEDIATE")
        for name, start in self._starts.items():
            if name not in known:
                # What this run may have given out before the file was lost ends at its limit.
                first = max(start.next, self._limits.get(name, 0))
                stream = self._streams.add(db, name, self._epoch, start.klass, first)
                if start.settled < first:
                    room.add_gap(db, stream, start.settled, first - 1, "lost with the spool, or with an earlier one")
        for stream in self._streams.outdated(self._epoch):
            self._seal_waiting(db, stream, 1)  # its epoch is over; nobody else gives out its numbers
            self._streams.forget_if_empty(db, stream)
        self._streams.save(db)
        db.execute("COMMIT")
