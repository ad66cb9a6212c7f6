"""Room in the spool: when it is full, old telemetry is thinned, then the oldest goes; a gap tells of all of it.

over the bound -> thin pairs of batches, from the oldest on, sweep after sweep -> drop the oldest -> gap rows

Works inside the transaction that made the spool too large, so that it never is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from flyball.errors import MessageError
from flyball.uplink import batch as batches
from flyball.uplink import thinning
from flyball.uplink.damage import check
from flyball.uplink.spooled import EVENTS, QUOTA, RESERVED, TELEMETRY, Key
from flyball.uplink.streams import Stream, Streams

STEPS = 16  # pairs that one commit looks at, 4 ms each; usually one makes room
MAX_GAPS = 8192  # rows; beyond it the oldest are joined: "may be missing" is allowed to be too wide


@dataclass
class Sweep:
    """How far the thinning has come; a new sweep begins at the oldest again."""

    after: int = 0
    merged: int = 0


def reclaim(db: sqlite3.Connection, streams: Streams, sweep: Sweep, bound: int, busy: Collection[Key]) -> None:
    """Until every class keeps to its share of `bound` bytes."""
    while streams.used(EVENTS) > QUOTA[EVENTS] * bound and _drop_oldest(db, streams, EVENTS, busy):
        pass
    steps = STEPS
    while streams.used(EVENTS, TELEMETRY) > (1 - RESERVED) * bound:
        steps -= 1
        thinned = steps >= 0 and _thin(db, streams, sweep, busy)
        if not thinned and not _drop_oldest(db, streams, TELEMETRY, busy):
            return


def delete(db: sqlite3.Connection, streams: Streams, klass: int, id: int) -> bool:
    """Whether it was there."""
    found = db.execute(f"SELECT stream, count, length(body) FROM batch{klass} WHERE id = ?", (id,)).fetchone()  # noqa: S608  # our own tables
    if found is None:
        return False
    stream_id, count, size = found
    check(f"batch{klass} {id}", (count, size), (int, int))
    stream = streams.known(stream_id)
    db.execute(f"DELETE FROM batch{klass} WHERE id = ?", (id,))  # noqa: S608  # our own tables
    stream.account(count, size, -1)
    return True


def add_gap(db: sqlite3.Connection, stream: Stream, first: int, last: int, reason: str) -> None:
    """Joined to the newest one where it goes on there."""
    newest = db.execute("SELECT id, stream, last, reason FROM gap ORDER BY id DESC LIMIT 1").fetchone()
    if newest is not None and newest[1:] == (stream.id, first - 1, reason):
        db.execute("UPDATE gap SET last = ? WHERE id = ?", (last, newest[0]))
        return
    row = (stream.id, first, last, reason)
    db.execute("INSERT INTO gap (stream, first, last, reason) VALUES (?, ?, ?, ?)", row)
    oldest, newest_id = db.execute("SELECT min(id), max(id) FROM gap").fetchone()
    if newest_id - oldest >= MAX_GAPS:
        _join_oldest(db)


def _join_oldest(db: sqlite3.Connection) -> None:
    (id, stream, first), *_ = db.execute("SELECT id, stream, first FROM gap ORDER BY id LIMIT 1").fetchall()
    beside = db.execute("SELECT id, first FROM gap WHERE stream = ? AND id > ? ORDER BY id LIMIT 1", (stream, id))
    found = beside.fetchone()
    if found is not None:
        check("gap", (first, found[1]), (int, int))
        db.execute("UPDATE gap SET first = ? WHERE id = ?", (min(first, found[1]), found[0]))
        db.execute("DELETE FROM gap WHERE id = ?", (id,))


def _drop_oldest(db: sqlite3.Connection, streams: Streams, klass: int, busy: Collection[Key]) -> bool:
    rows = db.execute(f"SELECT id, stream, first, count FROM batch{klass} ORDER BY id LIMIT ?", (len(busy) + 1,))  # noqa: S608  # our own tables
    for id, stream, first, count in rows.fetchall():
        if (klass, id) not in busy:
            check(f"batch{klass} {id}", (first, count), (int, int))
            delete(db, streams, klass, id)
            add_gap(db, streams.known(stream), first, first + count - 1, "no room: the oldest gave way")
            return True
    return False


def _thin(db: sqlite3.Connection, streams: Streams, sweep: Sweep, busy: Collection[Key]) -> bool:
    """Looks at one pair; False at the end of a sweep that has merged nothing."""
    query = "SELECT id, stream, body, deflated FROM batch2 WHERE id > ? ORDER BY id LIMIT 2"
    rows = db.execute(query, (sweep.after,)).fetchall()
    if len(rows) < 2:
        fruitful = sweep.merged > 0
        sweep.after = sweep.merged = 0
        return fruitful
    (old, stream_id, *first), (new, other_id, *second) = rows
    sweep.after = old
    if stream_id != other_id or (TELEMETRY, old) in busy or (TELEMETRY, new) in busy:
        return True
    for id, row in ((old, first), (new, second)):
        check(f"batch{TELEMETRY} {id}", row, (bytes, int))
    try:
        a, b = (batches.decode(body, deflated=bool(deflated)) for body, deflated in (first, second))
        merged = thinning.merge(a, b)
        encoded = batches.encode(merged.batch) if merged is not None else None
    except MessageError:
        return True  # an older version's, perhaps: it is left alone, and goes when it is the oldest
    if merged is None or encoded is None:
        return True
    stream, batch = streams.known(stream_id), merged.batch
    delete(db, streams, TELEMETRY, old)
    delete(db, streams, TELEMETRY, new)
    db.execute(
        "INSERT INTO batch2 VALUES (?, ?, ?, ?, '', ?, ?)",
        (new, stream_id, batch.first_seq, batch.count, encoded.deflated, encoded.payload),
    )
    stream.account(batch.count, len(encoded.payload))
    add_gap(db, stream, *merged.gone, "no room: thinned")
    sweep.after = new
    sweep.merged += 1
    return True
