"""The tables of fleet.db, and how the file is opened.

path -> open_writer / reading -> sqlite3.Connection (WAL), or StateError

A file of an older version is brought up to date by a writer, one of a newer version is left alone. Writers commit with
synchronous=FULL: what was acknowledged to the broker is on the disk.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from flyball.errors import StateError

VERSION = 2
BUSY_S = 10.0  # another server of this host commits
DEFAULT_PATH = Path("/var/lib/flyball-fleet/fleet.db")

_FIRST = """
CREATE TABLE device (
  device TEXT PRIMARY KEY, epoch TEXT NOT NULL, session INTEGER NOT NULL, state TEXT NOT NULL, commands TEXT NOT NULL,
  state_at REAL, heard_at REAL, birth BLOB, birth_epoch TEXT, birth_session INTEGER, desc_version INTEGER,
  first_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE epoch (
  device TEXT, epoch TEXT, session INTEGER NOT NULL, first_at REAL NOT NULL, PRIMARY KEY (device, epoch)) WITHOUT ROWID;
CREATE TABLE batch (
  device TEXT, epoch TEXT, stream TEXT, first_seq INTEGER, count INTEGER NOT NULL, hist INTEGER NOT NULL,
  deflated INTEGER NOT NULL, payload BLOB NOT NULL, received_at REAL NOT NULL,
  PRIMARY KEY (device, epoch, stream, first_seq));
CREATE INDEX batch_received ON batch (received_at);
CREATE TABLE event (
  device TEXT, epoch TEXT, stream TEXT, first_seq INTEGER, kind TEXT NOT NULL, severity TEXT NOT NULL,
  ladder TEXT NOT NULL, message TEXT NOT NULL, payload BLOB NOT NULL, received_at REAL NOT NULL,
  PRIMARY KEY (device, epoch, stream, first_seq));
CREATE INDEX event_received ON event (received_at);
CREATE TABLE span (
  device TEXT, epoch TEXT, stream TEXT, kind TEXT, first INTEGER, last INTEGER NOT NULL,
  PRIMARY KEY (device, epoch, stream, kind, first)) WITHOUT ROWID;
CREATE TABLE gap_reason (
  device TEXT, epoch TEXT, stream TEXT, first INTEGER, last INTEGER, reason TEXT NOT NULL, received_at REAL NOT NULL,
  PRIMARY KEY (device, epoch, stream, first, last)) WITHOUT ROWID;
CREATE TABLE latest (
  device TEXT, stream TEXT, epoch TEXT NOT NULL, seq INTEGER NOT NULL, received_at REAL NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (device, stream)) WITHOUT ROWID;
CREATE TABLE alarm (
  device TEXT, name TEXT, message TEXT NOT NULL, ts REAL NOT NULL, clk TEXT NOT NULL, received_at REAL NOT NULL,
  PRIMARY KEY (device, name)) WITHOUT ROWID;
CREATE TABLE twin (
  device TEXT, side TEXT, version INTEGER NOT NULL, document BLOB NOT NULL, received_at REAL NOT NULL,
  PRIMARY KEY (device, side)) WITHOUT ROWID;
CREATE TABLE command (
  device TEXT, id TEXT, type TEXT NOT NULL, epoch TEXT NOT NULL, state TEXT NOT NULL, rev INTEGER NOT NULL,
  step TEXT NOT NULL, progress REAL, reason TEXT NOT NULL, result BLOB NOT NULL, updated_at REAL NOT NULL,
  PRIMARY KEY (device, id)) WITHOUT ROWID;
CREATE TABLE rejected (
  number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, reason TEXT NOT NULL, size INTEGER NOT NULL,
  received_at REAL NOT NULL);
"""
_SINCE_2 = f"""
ALTER TABLE device ADD COLUMN orders_dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device ADD COLUMN results_dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE command ADD COLUMN result_dropped_b INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = {VERSION};
"""
TABLES = _FIRST + _SINCE_2


def open_writer(path: Path) -> sqlite3.Connection:
    """Makes the file when it is not there. Used from one thread."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        _refuse_strangers(db, path)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has to be said before the first table is made
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")  # two servers may begin at once
        found = db.execute("PRAGMA user_version").fetchone()[0]
        for statement in filter(str.strip, {0: TABLES, 1: _SINCE_2}.get(found, "").split(";")):
            db.execute(statement)
        db.execute("COMMIT")
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"{path} cannot be opened: {error}") from error
    return db


def _refuse_strangers(db: sqlite3.Connection, path: Path) -> None:
    """Before anything is changed. Raises StateError."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if not 0 <= found <= VERSION:
        db.close()
        raise StateError(f"{path} has version {found}, this program knows {VERSION}: use the program that wrote it")
    if found == 0 and tables:
        db.close()
        raise StateError(f"{path} is another program's database: name a file of its own with --db")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Never makes or changes the file; all that is read is of one moment. Raises StateError."""
    with closing(_open_reader(path)) as db:
        try:
            db.execute("BEGIN")
            yield db
        except sqlite3.Error as error:
            raise StateError(f"{path} cannot be read: {error}") from error
        except msgspec.MsgspecError as error:
            raise StateError(f"{path} holds what this program cannot read: {error}") from error


def _open_reader(path: Path) -> sqlite3.Connection:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise StateError(f"{path} is a folder: name the fleet server's file with --db")
    except FileNotFoundError:
        raise StateError(
            f"{path} is not there: name the fleet server's file with --db, or start `flyball fleet serve` first"
        ) from None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    try:
        db = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=BUSY_S, check_same_thread=False)
        found = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise StateError(f"{path} cannot be read: {error}") from error
    if found != VERSION:
        db.close()
        hint = "; start `flyball fleet serve` on it once" if 0 < found < VERSION else ""
        raise StateError(f"{path} is no fleet database of version {VERSION} (found {found}){hint}")
    db.row_factory = sqlite3.Row
    return db


def _quoted(path: Path) -> str:
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
