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
from flyball.uplink.cure import cure

VERSION = 3
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
_SINCE_2 = """
ALTER TABLE device ADD COLUMN orders_dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device ADD COLUMN results_dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE command ADD COLUMN result_dropped_b INTEGER NOT NULL DEFAULT 0;
"""
# `number` counts up with what comes from a device: the wall clock may go back, and all of a commit have the same.
# `words_b` are the bytes of step, reason and result. In orders_dropped version 2 had counted deliveries, not orders.
_SINCE_3 = """
ALTER TABLE command ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE command ADD COLUMN words_b INTEGER NOT NULL DEFAULT 0;
UPDATE command SET number = found.number FROM (SELECT device, id, ROW_NUMBER() OVER (
  PARTITION BY device ORDER BY updated_at, id) AS number FROM command) AS found
  WHERE command.device = found.device AND command.id = found.id;
UPDATE command SET words_b = LENGTH(CAST(step AS BLOB)) + LENGTH(CAST(reason AS BLOB))
  + CASE CAST(result AS TEXT) WHEN 'null' THEN 0 ELSE LENGTH(CAST(result AS BLOB)) END;
CREATE INDEX command_number ON command (device, number, words_b);
CREATE TABLE order_dropped (device TEXT, id TEXT, PRIMARY KEY (device, id)) WITHOUT ROWID;
UPDATE device SET orders_dropped = 0;
ALTER TABLE gap_reason ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE gap_reason SET number = found.number FROM (SELECT device, epoch, stream, first, last, ROW_NUMBER() OVER (
  PARTITION BY device ORDER BY received_at, first) AS number FROM gap_reason) AS found
  WHERE (gap_reason.device, gap_reason.epoch, gap_reason.stream, gap_reason.first, gap_reason.last)
  = (found.device, found.epoch, found.stream, found.first, found.last);
CREATE INDEX gap_reason_number ON gap_reason (device, number);
PRAGMA user_version = 3;
"""
_MISSING = {0: _FIRST + _SINCE_2 + _SINCE_3, 1: _SINCE_2 + _SINCE_3, 2: _SINCE_3}  # in a file of that version
TABLES = _MISSING[0]


def open_writer(path: Path) -> sqlite3.Connection:
    """Makes the file when it is not there. Used from one thread. Raises StateError."""
    db = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        _refuse_strangers(db, path)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has to be said before the first table is made
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")  # two servers may begin at once
        found = db.execute("PRAGMA user_version").fetchone()[0]
        for statement in filter(str.strip, _MISSING.get(found, "").split(";")):
            db.execute(statement)
        db.execute("COMMIT")
    except BaseException as error:
        if db is not None:
            db.close()
        if isinstance(error, OSError | sqlite3.Error):
            raise StateError(f"{path} cannot be opened: {error}; {cure(path, error)}") from error
        raise
    return db


def _refuse_strangers(db: sqlite3.Connection, path: Path) -> None:
    """Before anything is changed. Raises StateError."""
    db.execute("BEGIN")  # both answers are of one moment: another server may be making the tables
    found = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    db.execute("COMMIT")
    if not 0 <= found <= VERSION:
        raise StateError(f"{path} has version {found}, this program knows {VERSION}: use the program that wrote it")
    if found == 0 and tables:
        raise StateError(f"{path} is another program's database: name a file of its own with --db")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Never makes or changes the file; all that is read is of one moment. Raises StateError."""
    with closing(_open_reader(path)) as db:
        try:
            db.execute("BEGIN")
            yield db
        except sqlite3.Error as error:
            raise StateError(f"{path} cannot be read: {error}; {cure(path, error)}") from error
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
        raise StateError(f"{path} cannot be read: {error.strerror}; {cure(path, error)}") from error
    try:
        db = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=BUSY_S, check_same_thread=False)
    except sqlite3.Error as error:
        raise StateError(f"{path} cannot be read: {error}; {cure(path, error)}") from error
    try:
        found = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        db.close()
        raise StateError(f"{path} cannot be read: {error}; {cure(path, error)}") from error
    if found != VERSION:
        db.close()
        hint = "; start `flyball fleet serve` on it once" if 0 < found < VERSION else ""
        raise StateError(f"{path} is no fleet database of version {VERSION} (found {found}){hint}")
    db.row_factory = sqlite3.Row
    return db


def _quoted(path: Path) -> str:
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
