"""What the uplink must still know after a power cut: epoch, session counter, stream numbers, command journal, and the
documents of the twin and of remote configuration.

calls -> SQLite (WAL, synchronous=FULL: a return means it is on the disk) in state.db

A file that SQLite calls corrupt is kept aside and a new one begun, with a new epoch; a disk that is full or a file
that is locked raises StateError and changes nothing. Blocking: used from one thread only (see journal.py). Never
forgets an order because of the wall clock alone: rows from an untrusted clock are dated anew first.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from flyball.errors import StateError
from flyball.uplink.commands import FINAL, Row
from flyball.uplink.cure import cure
from flyball.uplink.damage import is_corrupt, set_aside
from flyball.uplink.spooled import Span
from flyball.uplink.stamp import Stamp

log = logging.getLogger(__name__)

FILE_NAME = "state.db"
VERSION = 2
KEEP_S = 30 * 86400.0  # longer than session expiry (7 days) plus the longest ttl (21 days)
KEEP_REJECTED = 1000  # they had no effect, so forgetting them is harmless; bounds what a flood can fill
KEEP_RESULTS = 200  # of finished orders, the newest; what a flood of large results can fill
SMALL_RESULT = 1024  # bytes; these are kept in any case
RESERVE_BYTES = 256 * 1024  # room that the file and its log own beforehand, for a disk that has become full
BUSY_S = 2.0  # somebody looks at the file with sqlite3

_COLUMNS = Row.__struct_fields__
_SCHEMA = f"""
CREATE TABLE meta (epoch TEXT NOT NULL, session INTEGER NOT NULL);
CREATE TABLE stream (name TEXT PRIMARY KEY, next INTEGER NOT NULL, settled INTEGER NOT NULL);
CREATE TABLE command (id TEXT PRIMARY KEY, {", ".join(c for c in _COLUMNS if c != "id")});
CREATE TABLE reserve (bytes BLOB);
"""
_SINCE_2 = "CREATE TABLE document (name TEXT PRIMARY KEY, body BLOB NOT NULL);"


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """One CONNECT's identity. `replaced` says why the store was begun anew, "" when it was not."""

    epoch: str
    session: int
    replaced: str = ""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """`next` is the first number that was not handed out. Those below `settled` need no report; at the start those
    from there to `next` were left behind."""

    next: int
    settled: int


class StateFile:
    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._db: sqlite3.Connection | None = None
        self._replaced = ""
        self._told_soon: list[tuple[int, str]] = []  # rev, id

    def begin_session(self, streams: Mapping[str, Stream], now: Stamp) -> Opened:
        """Counts the session up; also writes down how far the streams are."""
        with self._transaction() as db:
            _save_streams(db, streams)
            _forget_old(db, now)
            db.execute("UPDATE meta SET session = session + 1")
            epoch, session = db.execute("SELECT epoch, session FROM meta").fetchone()
        replaced, self._replaced = self._replaced, ""
        return Opened(epoch=epoch, session=session, replaced=replaced)

    def open_stream(self, name: str) -> tuple[int, Span | None]:
        """The first number to give out, and what an earlier run left behind."""
        with self._transaction() as db:
            found = db.execute("SELECT next, settled FROM stream WHERE name = ?", (name,)).fetchone()
        start, settled = found or (0, 0)
        return start, Span(name, settled, start - 1) if settled < start else None

    def save_streams(self, streams: Mapping[str, Stream]) -> None:
        with self._transaction() as db:
            _save_streams(db, streams)

    def admit(self, row: Row) -> Row | None:
        """Writes a new order down; gives back the one that has its id already, and then writes nothing."""
        with self._transaction() as db:
            known = db.execute(f"SELECT {', '.join(_COLUMNS)} FROM command WHERE id = ?", (row.id,)).fetchone()  # noqa: S608  # our own column names
            if known is None:
                _put(db, row)
        return _row(known) if known else None

    def put(self, row: Row) -> None:
        with self._transaction() as db:
            _put(db, row)

    def told(self, id: str, rev: int) -> None:
        """The broker has this state."""
        self._told_soon.append((rev, id))
        with self._transaction():
            pass

    def told_soon(self, id: str, rev: int) -> None:
        """The same, written down with whatever is next: for orders without effect, since a kill before that makes only
        that their state is told once more. Two commits for each of a flood of them would be one too many."""
        self._told_soon.append((rev, id))

    def open_orders(self) -> tuple[Row, ...]:
        """Unfinished ones, and those whose final state the broker may not know; in the order of receipt."""
        final = ", ".join("?" for _ in FINAL)
        query = f"SELECT {', '.join(_COLUMNS)} FROM command WHERE state NOT IN ({final}) OR told < rev ORDER BY rowid"  # noqa: S608  # our own column names
        with self._transaction() as db:
            return tuple(map(_row, db.execute(query, tuple(FINAL)).fetchall()))

    def finished_orders(self, most: int) -> tuple[Row, ...]:
        """The newest final states, told or not, as the broker would still hold them; in the order of receipt."""
        final = ", ".join("?" for _ in FINAL)
        query = f"SELECT {', '.join(_COLUMNS)} FROM command WHERE state IN ({final}) ORDER BY rowid DESC LIMIT ?"  # noqa: S608  # our own column names
        with self._transaction() as db:
            return tuple(map(_row, db.execute(query, (*FINAL, most)).fetchall()))[::-1]

    def document(self, name: str) -> bytes | None:
        with self._transaction() as db:
            found = db.execute("SELECT body FROM document WHERE name = ?", (name,)).fetchone()
        return bytes(found[0]) if found else None

    def save_document(self, name: str, body: bytes) -> None:
        with self._transaction() as db:
            db.execute(
                "INSERT INTO document VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body", (name, body)
            )

    def close(self) -> None:
        if self._db is not None and self._told_soon:
            try:
                with self._transaction():
                    pass
            except StateError as error:
                log.warning("%s; what was refused last is told once more at the next start", error)
        self._close()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commits, or rolls back and raises StateError."""
        try:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany("UPDATE command SET told = max(told, ?) WHERE id = ?", self._told_soon)
                yield db
                db.execute("COMMIT")
                self._told_soon.clear()
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError, msgspec.ValidationError) as error:
            if is_corrupt(error):
                self._close()  # the next call finds it so again, and sets it aside
                raise StateError(f"{self._path}: is damaged: {error}; it is kept aside and begun anew") from error
            raise StateError(f"{self._path}: cannot be written: {error}; {cure(self._path, error)}") from error

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = self._connect()
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                self._replaced = f"{error}; kept as {set_aside(self._path)}"
                self._db = self._connect()
        return self._db

    def _connect(self) -> sqlite3.Connection:
        existed = self._path.exists()
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            # The log is emptied every 32 pages, so that it never outgrows the room reserved for it.
            db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=32")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StateError(
                    f"{self._path}: version {version}, expected at most {VERSION}; install a newer Flyball"
                )
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} {_SINCE_2} PRAGMA user_version = {VERSION};")
                db.execute("INSERT INTO meta VALUES (?, 0)", (secrets.token_hex(8),))
                db.execute("COMMIT")
                if existed:
                    self._replaced = f"{self._path} was empty"
            elif (damage := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(damage)
            elif db.execute("SELECT count(*) FROM meta").fetchone()[0] != 1:
                raise sqlite3.DatabaseError("the row with epoch and session is not there")
            elif version == 1:
                db.executescript(f"BEGIN; {_SINCE_2} PRAGMA user_version = {VERSION}; COMMIT")
            _reserve(db)
        except BaseException:
            db.close()
            raise
        return db


def peek(folder: Path, name: str) -> bytes | None:
    """A document, read before the uplink begins; None when there is none. Changes and repairs nothing. Raises
    StateError when the file is there and cannot be read."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S)
        try:
            if db.execute("PRAGMA user_version").fetchone()[0] < VERSION:
                return None
            found = db.execute("SELECT body FROM document WHERE name = ?", (name,)).fetchone()
        finally:
            db.close()
    except sqlite3.Error as error:
        raise StateError(f"{path}: cannot be read: {error}; {cure(path, error)}") from error
    return bytes(found[0]) if found else None


def _reserve(db: sqlite3.Connection) -> None:
    """Leaves free pages in the file and a log of that size, both of which SQLite fills again in place."""
    try:
        db.execute("INSERT INTO reserve VALUES (zeroblob(?))", (RESERVE_BYTES,))
    except sqlite3.OperationalError:
        return  # the disk is full already: what comes is tried, and its failure told
    db.execute("DELETE FROM reserve")
    db.execute("PRAGMA wal_checkpoint(RESTART)")


def _save_streams(db: sqlite3.Connection, streams: Mapping[str, Stream]) -> None:
    # An upsert changes the row in place and leaves the index alone: one page a write, where a replacement writes two.
    db.executemany(
        "INSERT INTO stream VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET next = excluded.next, settled = excluded.settled",
        [(n, s.next, s.settled) for n, s in streams.items()],
    )


def _forget_old(db: sqlite3.Connection, now: Stamp) -> None:
    final = ", ".join("?" for _ in FINAL)
    if now.clk == "synced":
        # What came under an untrusted clock is dated anew: 1970 must not make an id forgotten that may come again.
        db.execute(
            f"UPDATE command SET ts = ?, clk = 'synced' WHERE clk != 'synced' AND state IN ({final})",  # noqa: S608  # placeholders
            (now.ts, *FINAL),
        )
        db.execute(
            f"DELETE FROM command WHERE clk = 'synced' AND ts < ? AND state IN ({final})",  # noqa: S608  # placeholders
            (now.ts - KEEP_S, *FINAL),
        )
    db.execute(
        f"UPDATE command SET result = CAST('null' AS BLOB) WHERE length(result) > ? AND state IN ({final}) "  # noqa: S608  # placeholders
        "AND rowid NOT IN (SELECT rowid FROM command WHERE length(result) > ? ORDER BY rowid DESC LIMIT ?)",
        (SMALL_RESULT, *FINAL, SMALL_RESULT, KEEP_RESULTS),
    )
    db.execute(
        "DELETE FROM command WHERE state = 'rejected' AND rowid NOT IN "
        "(SELECT rowid FROM command WHERE state = 'rejected' ORDER BY rowid DESC LIMIT ?)",
        (KEEP_REJECTED,),
    )


def _put(db: sqlite3.Connection, row: Row) -> None:
    values = [getattr(row, c) for c in _COLUMNS]
    marks = ", ".join("?" for _ in _COLUMNS)
    updates = ", ".join(f"{c} = excluded.{c}" for c in _COLUMNS if c not in ("id", "told"))
    columns = ", ".join(_COLUMNS)
    # An upsert keeps the rowid, and with it the order of receipt.
    db.execute(f"INSERT INTO command ({columns}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}", values)  # noqa: S608  # our own column names


def _row(values: tuple[object, ...]) -> Row:
    return msgspec.convert(dict(zip(_COLUMNS, values, strict=True)), Row)
