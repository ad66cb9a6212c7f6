"""Which devices there are, in which epoch and session, and of which the birth is known.

device, epoch, session -> known, supersede, has_birth -> tables device and epoch

Bounded: more devices than allowed are refused, and of a device's epochs the oldest goes with all its records.
"""

from __future__ import annotations

import sqlite3

from flyball.errors import MessageError
from flyball_fleet.limits import Limits
from flyball_fleet.presence import Known

_OF_AN_EPOCH = ("epoch", "batch", "event", "span", "gap_reason")


class Registry:
    """Inside the caller's transaction."""

    def __init__(self, db: sqlite3.Connection, limits: Limits) -> None:
        self._db = db
        self._limits = limits
        self._devices: set[str] = set()

    def know(self, device: str, now: float) -> None:
        """Takes it up when it is new. Raises MessageError when there are too many."""
        if device in self._devices:
            return
        if self._db.execute("SELECT 1 FROM device WHERE device = ?", (device,)).fetchone():
            self._devices.add(device)
            return
        if self._db.execute("SELECT COUNT(*) FROM device").fetchone()[0] >= self._limits.devices:
            raise MessageError(f"more than {self._limits.devices} devices; raise --most-devices if they are yours")
        # Remembered at its next message: this transaction may yet fail.
        self._db.execute(
            "INSERT INTO device (device, epoch, session, state, commands, first_at) VALUES (?, '', 0, '', '', ?)",
            (device, now),
        )

    def known(self, device: str) -> Known:
        row = self._db.execute("SELECT epoch, session FROM device WHERE device = ?", (device,)).fetchone()
        if row is None:
            return Known()
        past = self._db.execute("SELECT epoch, session FROM epoch WHERE device = ? AND epoch != ?", (device, row[0]))
        return Known(row[0], row[1], dict(past.fetchall()))

    def supersede(self, device: str, known: Known, epoch: str, session: int, now: float) -> None:
        """A newer session, perhaps of another epoch, is the current one from now on."""
        if known.epoch and known.epoch != epoch:
            self.remember_epoch(device, known.epoch, known.session, now)
            self._db.execute("DELETE FROM alarm WHERE device = ?", (device,))  # of a store that is no more
        self.remember_epoch(device, epoch, session, now)
        self._db.execute(
            "UPDATE device SET epoch = ?, session = ?, state = '' WHERE device = ?", (epoch, session, device)
        )

    def remember_epoch(self, device: str, epoch: str, session: int, now: float) -> None:
        self._db.execute(
            "INSERT INTO epoch VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET session = MAX(session, excluded.session)",
            (device, epoch, session, now),
        )
        held = self._db.execute("SELECT COUNT(*) FROM epoch WHERE device = ?", (device,)).fetchone()[0]
        if held > self._limits.epochs:
            oldest = self._db.execute(
                "SELECT epoch FROM epoch WHERE device = ? AND epoch != ? AND epoch NOT IN"
                " (SELECT epoch FROM device WHERE device = ?) ORDER BY first_at LIMIT 1",
                (device, epoch, device),  # never the one in force, however old
            ).fetchone()[0]
            for table in _OF_AN_EPOCH:
                self._db.execute(f"DELETE FROM {table} WHERE device = ? AND epoch = ?", (device, oldest))  # noqa: S608

    def has_birth(self, device: str, epoch: str, session: int | None = None) -> bool:
        """Of this session, or for None of any session of the epoch. An epoch that is over needs none."""
        row = self._db.execute(
            "SELECT birth_epoch, birth_session, epoch FROM device WHERE device = ?", (device,)
        ).fetchone()
        if row is None:
            return False
        if session is None and row[2] not in ("", epoch):
            return True
        return bool(row[0] == epoch and session in (None, row[1]))
