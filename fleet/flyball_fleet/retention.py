"""How long records are kept: days and bytes, whichever ends first.

fleet.db, Limits -> the oldest batches and events go, some thousand at a time -> what was removed

Removes records only, never ranges: the ledger still adds up. By age only while the wall clock is synchronized, so that
a clock that jumps deletes nothing.
"""

from __future__ import annotations

import sqlite3

from flyball_fleet.limits import Limits

AT_ONCE = 2000
_OLDEST = {
    table: f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE received_at < ?"  # noqa: S608
    " ORDER BY received_at LIMIT ?)"
    for table in ("batch", "event")
}


def used_bytes(db: sqlite3.Connection) -> int:
    """Of the file, without pages that are free."""
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def prune(db: sqlite3.Connection, limits: Limits, now: float, synchronized: bool) -> int:
    """How many rows went; call again while it gives more than none. In a transaction of its own."""
    before = now - limits.keep_days * 86400 if synchronized else None
    if used_bytes(db) > limits.keep_bytes:
        before = None
        rows = db.execute(
            "SELECT received_at FROM (SELECT received_at FROM batch UNION ALL SELECT received_at FROM event)"
            " ORDER BY received_at LIMIT 1 OFFSET ?",
            (AT_ONCE,),
        ).fetchone()
        before = rows[0] if rows else now
    if before is None:
        return 0
    db.execute("BEGIN IMMEDIATE")
    removed = sum(db.execute(_OLDEST[table], (before, AT_ONCE)).rowcount for table in ("batch", "event"))
    if synchronized:
        db.execute("DELETE FROM gap_reason WHERE received_at < ?", (now - limits.keep_days * 86400,))
    db.execute("COMMIT")
    if removed:
        db.execute("PRAGMA incremental_vacuum").fetchall()
    return removed
