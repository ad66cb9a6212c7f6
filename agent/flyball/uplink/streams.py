"""The streams of the spool: what each of them counts, held in memory as the file has it.

table `stream` -> Streams.load -> changed within a transaction -> save -> table `stream`

Holds values only; spool.py decides when they change.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from flyball.uplink import batch as batches
from flyball.uplink.damage import check
from flyball.uplink.messages import Batch
from flyball.uplink.spooled import CLASSES, Rows, Totals

ROW_BYTES = 48  # what a batch costs beside its body


@dataclass(kw_only=True)
class Stream:
    """One (name, epoch). `bytes` and `records` are of what is sealed; `waiting` is not sealed yet. No batch of it has a
    lower id than `oldest_id`."""

    id: int
    name: str
    epoch: str
    klass: int
    next: int
    bytes: int = 0
    records: int = 0
    waiting: Rows | None = None
    oldest_id: int = 0
    changed: bool = False
    waits_anew: bool = False

    def take(self, count: int) -> int:
        first, self.next = self.next, self.next + count
        self.changed = True
        return first

    def account(self, records: int, body_bytes: int, sign: int = 1) -> None:
        self.records += sign * records
        self.bytes += sign * (body_bytes + ROW_BYTES)
        self.changed = True

    def wait(self, rows: Rows | None) -> None:
        self.waiting = rows
        self.changed = self.waits_anew = True


@dataclass
class Streams:
    by_id: dict[int, Stream] = field(default_factory=dict)

    @staticmethod
    def load(db: sqlite3.Connection) -> Streams:
        """Raises MessageError for a blob that is none of ours, sqlite3.DatabaseError for other values that are not."""
        found = db.execute("SELECT id, name, epoch, class, next, bytes, records, waiting FROM stream").fetchall()
        for id, *row, blob in found:
            check(f"stream {id}", row, (str, str, int, int, int, int))
            if row[2] not in CLASSES or not isinstance(blob, bytes | None):
                raise sqlite3.DatabaseError(f"stream {id}: expected class {CLASSES} and rows that wait, found others")
        return Streams(
            {
                id: Stream(
                    id=id,
                    name=name,
                    epoch=epoch,
                    klass=klass,
                    next=next,
                    bytes=size,
                    records=records,
                    waiting=_unpack(blob),
                )
                for id, name, epoch, klass, next, size, records, blob in found
            }
        )

    def save(self, db: sqlite3.Connection) -> None:
        for stream in self.by_id.values():
            if stream.changed:
                values = (stream.next, stream.bytes, stream.records)
                db.execute("UPDATE stream SET next = ?, bytes = ?, records = ? WHERE id = ?", (*values, stream.id))
            if stream.waits_anew:
                db.execute("UPDATE stream SET waiting = ? WHERE id = ?", (_pack(stream.waiting), stream.id))
            stream.changed = stream.waits_anew = False

    def add(self, db: sqlite3.Connection, name: str, epoch: str, klass: int, next: int) -> Stream:
        cursor = db.execute(
            "INSERT INTO stream (name, epoch, class, next, bytes, records) VALUES (?, ?, ?, ?, 0, 0)",
            (name, epoch, klass, next),
        )
        stream = Stream(id=cursor.lastrowid or 0, name=name, epoch=epoch, klass=klass, next=next)
        self.by_id[stream.id] = stream
        return stream

    def forget_if_empty(self, db: sqlite3.Connection, stream: Stream) -> None:
        if not stream.records and not db.execute("SELECT 1 FROM gap WHERE stream = ?", (stream.id,)).fetchone():
            db.execute("DELETE FROM stream WHERE id = ?", (stream.id,))
            del self.by_id[stream.id]

    def known(self, id: int) -> Stream:
        """Raises sqlite3.DatabaseError when a row names a stream that the file does not have."""
        if id not in self.by_id:
            raise sqlite3.DatabaseError(f"stream {repr(id)[:40]} is not among the streams")
        return self.by_id[id]

    def of(self, name: str, epoch: str) -> Stream:
        """Raises KeyError."""
        return self.current(epoch)[name]

    def current(self, epoch: str) -> dict[str, Stream]:
        return {s.name: s for s in self.by_id.values() if s.epoch == epoch}

    def outdated(self, epoch: str) -> list[Stream]:
        """Of earlier epochs."""
        return [s for s in self.by_id.values() if s.epoch != epoch]

    def used(self, *classes: int) -> int:
        """Bytes of the sealed ones of these classes."""
        return sum(s.bytes for s in self.by_id.values() if s.klass in classes)

    def totals(self) -> Totals:
        waiting = sum(len(s.waiting.rows) for s in self.by_id.values() if s.waiting)
        return Totals(
            records=waiting + sum(s.records for s in self.by_id.values()),
            bytes=sum(s.bytes for s in self.by_id.values()),
        )


def _pack(waiting: Rows | None) -> bytes | None:
    """As a batch without its numbers."""
    if waiting is None:
        return None
    columns = batches.table(waiting.rows)
    batch = Batch(epoch="", first_seq=0, count=len(waiting.rows), boot=waiting.boot, clk=waiting.clk, columns=columns)
    return batches.encode(batch).payload


def _unpack(blob: bytes | None) -> Rows | None:
    if blob is None:
        return None
    batch = batches.decode(blob, deflated=blob[:1] != b"{")
    return Rows(boot=batch.boot, clk=batch.clk, rows=tuple(batches.rows(batch)))
