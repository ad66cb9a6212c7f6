"""What waits in the spool, as it is read from the file.

tables `batch<class>` and `gap` -> oldest, gaps, oldest_number -> Sealed, GapRow

Reads only, and of what it is asked for no more: a full spool has a million records. What is none of ours raises
sqlite3.DatabaseError, as a damaged file does.
"""

from __future__ import annotations

import sqlite3

from flyball.uplink.damage import check
from flyball.uplink.messages import Encoded
from flyball.uplink.spooled import CLASSES, GapRow, Sealed
from flyball.uplink.streams import Stream, Streams


def oldest(db: sqlite3.Connection, streams: Streams, klass: int, after: int, most: int) -> list[Sealed]:
    """The sealed batches of a class behind id `after`, oldest first."""
    rows = db.execute(
        f"SELECT id, stream, first, count, name, deflated, body FROM batch{klass} WHERE id > ? "  # noqa: S608  # our own tables
        "ORDER BY id LIMIT ?",
        (after, most),
    ).fetchall()
    found = []
    for id, stream_id, *row in rows:
        check(f"batch{klass} {id}", row, (int, int, str, int, bytes))
        stream, (first, count, name, deflated, body) = streams.known(stream_id), row
        encoded = Encoded(payload=body, deflated=bool(deflated))
        found.append(
            Sealed(
                id=id, klass=klass, stream=stream.name, epoch=stream.epoch,
                first=first, count=count, name=name, encoded=encoded,
            )
        )  # fmt: skip
    return found


def gaps(db: sqlite3.Connection, streams: Streams, after: int, most: int) -> list[GapRow]:
    """Behind id `after`, oldest first."""
    rows = db.execute(
        "SELECT id, stream, first, last, reason FROM gap WHERE id > ? ORDER BY id LIMIT ?", (after, most)
    ).fetchall()
    found = []
    for id, stream_id, *row in rows:
        check(f"gap {id}", row, (int, int, str))
        stream, (first, last, reason) = streams.known(stream_id), row
        found.append(GapRow(id=id, stream=stream.name, epoch=stream.epoch, first=first, last=last, reason=reason))
    return found


def oldest_number(db: sqlite3.Connection, stream: Stream) -> int:
    """Of its epoch nothing below this waits, neither as a batch nor as a gap. Other streams may stand before it."""
    numbers = [stream.next]
    if stream.records:
        query = f"SELECT id, first FROM batch{stream.klass} WHERE id >= ? AND stream = ? ORDER BY id LIMIT 1"  # noqa: S608  # our own tables
        head = db.execute(query, (stream.oldest_id, stream.id)).fetchone()
        if head is not None:
            check(f"batch{stream.klass}", head, (int, int))
            stream.oldest_id = head[0]  # this is asked after every commit, and an older epoch's backlog may be long
            numbers.append(head[1])
    # Not in the order of their numbers: the spool thins from the oldest on, again and again.
    gap = db.execute("SELECT MIN(first) FROM gap WHERE stream = ?", (stream.id,)).fetchone()
    if gap[0] is not None:
        check("gap", gap, (int,))
        numbers.append(gap[0])
    return min(numbers)


def check_ends(db: sqlite3.Connection, streams: Streams) -> None:
    """Of each table the last row: whether its stream is known, and behind it."""
    for klass in CLASSES:
        query = f"SELECT id, stream, first, count FROM batch{klass} ORDER BY id DESC LIMIT 1"  # noqa: S608  # our own tables
        for id, stream_id, *row in db.execute(query).fetchall():
            check(f"batch{klass} {id}", row, (int, int))
            stream = streams.known(stream_id)
            if stream.klass != klass or sum(row) > stream.next:
                raise sqlite3.DatabaseError(f"batch{klass} {id} is not of stream {stream.name}, or beyond its numbers")
    for (stream_id,) in db.execute("SELECT stream FROM gap ORDER BY id DESC LIMIT 1").fetchall():
        streams.known(stream_id)
