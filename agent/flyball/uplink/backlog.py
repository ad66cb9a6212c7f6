"""What waits in the spool, as it is read from the file.

tables `batch<class>` and `gap` -> oldest, gaps, oldest_number -> Sealed, GapRow

Reads only, and of what it is asked for no more: a full spool has a million records.
"""

from __future__ import annotations

import sqlite3

from flyball.uplink.messages import Encoded
from flyball.uplink.spooled import GapRow, Sealed
from flyball.uplink.streams import Stream, Streams


def oldest(db: sqlite3.Connection, streams: Streams, klass: int, after: int, most: int) -> list[Sealed]:
    """The sealed batches of a class behind id `after`, oldest first."""
    rows = db.execute(
        f"SELECT id, stream, first, count, name, deflated, body FROM batch{klass} WHERE id > ? "  # noqa: S608  # our own tables
        "ORDER BY id LIMIT ?",
        (after, most),
    ).fetchall()
    return [
        Sealed(
            id=id,
            klass=klass,
            stream=streams.by_id[stream_id].name,
            epoch=streams.by_id[stream_id].epoch,
            first=first,
            count=count,
            name=name,
            encoded=Encoded(payload=body, deflated=bool(deflated)),
        )
        for id, stream_id, first, count, name, deflated, body in rows
    ]


def gaps(db: sqlite3.Connection, streams: Streams, after: int, most: int) -> list[GapRow]:
    """Behind id `after`, oldest first."""
    rows = db.execute(
        "SELECT id, stream, first, last, reason FROM gap WHERE id > ? ORDER BY id LIMIT ?", (after, most)
    ).fetchall()
    by_id = streams.by_id
    return [
        GapRow(id=id, stream=by_id[s].name, epoch=by_id[s].epoch, first=first, last=last, reason=reason)
        for id, s, first, last, reason in rows
    ]


def oldest_number(db: sqlite3.Connection, stream: Stream) -> int:
    """Of its epoch nothing below this waits, neither as a batch nor as a gap."""
    head = db.execute(f"SELECT first, stream FROM batch{stream.klass} ORDER BY id LIMIT 1").fetchone()  # noqa: S608  # our own tables
    gap = db.execute("SELECT first, stream FROM gap ORDER BY id LIMIT 1").fetchone()
    heads = [int(first) for first, id in filter(None, (head, gap)) if id == stream.id]
    return min([stream.next, *heads])
