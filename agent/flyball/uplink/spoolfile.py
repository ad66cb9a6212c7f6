"""spool.db as a file: its tables and its settings.

path -> connect -> SQLite connection

Opening reads the log that a kill left (bounded) and the first page; not one batch.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from flyball.errors import StateError
from flyball.uplink.spooled import CLASSES

VERSION = 1
PAGE_BYTES = 2048  # a batch of 60 records fits one; with 4096 a small commit would write twice as much
CHECKPOINT_PAGES = 128  # bounds the log, which is read whole when the file is opened after a kill
BUSY_S = 2.0  # somebody looks at the file with sqlite3

_TABLES = "".join(
    f"CREATE TABLE batch{n} (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, first INTEGER NOT NULL, "
    "count INTEGER NOT NULL, name TEXT NOT NULL, deflated INTEGER NOT NULL, body BLOB NOT NULL);\n"
    for n in CLASSES
)
_SCHEMA = f"""
CREATE TABLE stream (id INTEGER PRIMARY KEY, name TEXT NOT NULL, epoch TEXT NOT NULL, class INTEGER NOT NULL,
    next INTEGER NOT NULL, bytes INTEGER NOT NULL, records INTEGER NOT NULL, waiting BLOB);
CREATE TABLE gap (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    reason TEXT NOT NULL);
{_TABLES}
PRAGMA user_version = {VERSION};
"""


def connect(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.Error, and StateError for a file of a newer version."""
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError(f"journal_mode is {mode}, expected wal; is the file system a network one?")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StateError(f"{path}: version {version}, expected at most {VERSION}; install a newer Flyball")
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    except BaseException:
        db.close()
        raise
    return db
