"""The states of orders in fleet.db, as far as one device's share goes.

CommandState -> keep -> table command; what no longer fits: the oldest words, then the oldest orders, both counted

The device says how many orders there are and what they gave, so both are bounded, and `device` counts what was dropped:
an order whose words went (step, reason, result) keeps its state and their size. What is old is told by the order in
which it came, never by a clock. Inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from typing import Literal

from flyball.uplink.messages import CommandState
from flyball_fleet.limits import Limits
from flyball_fleet.words import storable

NOTHING = b"null"


def keep(
    db: sqlite3.Connection,
    limits: Limits,
    device: str,
    kind: str,
    id: str,
    state: CommandState,
    now: float,
    *,
    retain: bool,
) -> Literal["stored", "duplicate", "outdated"]:
    """Gives "duplicate" when this state, or a later one, is known, and "outdated" for a retained one that has no room.
    `now` is the server's wall clock."""
    before = db.execute("SELECT epoch, rev FROM command WHERE device = ? AND id = ?", (device, id)).fetchone()
    if before is not None and before[0] == state.epoch and before[1] >= state.rev:
        return "duplicate"
    if before is None and retain and _held(db, device) >= limits.commands:
        # Every connection brings all that is retained: taken in again, each would push out one that is known.
        _count_refused(db, limits, device, id)
        return "outdated"
    step, reason, result = storable(state.step, 200), storable(state.reason, 2000), bytes(state.result)
    words_b = len(step.encode()) + len(reason.encode()) + (len(result) if result != NOTHING else 0)
    (newest,) = db.execute("SELECT MAX(number) FROM command WHERE device = ?", (device,)).fetchone()
    db.execute(
        "INSERT OR REPLACE INTO command VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
        (
            device, id, kind, state.epoch, storable(state.state, 32), state.rev,
            step, state.progress, reason, result, now, (newest or 0) + 1, words_b,
        ),
    )  # fmt: skip
    if words_b:
        _drop_words(db, device, limits.words_bytes)
    if before is None:
        _drop_orders(db, limits, device)
    return "stored"


def _held(db: sqlite3.Connection, device: str) -> int:
    return int(db.execute("SELECT COUNT(*) FROM command WHERE device = ?", (device,)).fetchone()[0])


def _drop_words(db: sqlite3.Connection, device: str, most_bytes: int) -> None:
    """Of the newest, so many stay as fit."""
    held = db.execute("SELECT SUM(words_b) FROM command WHERE device = ?", (device,)).fetchone()[0]
    if held <= most_bytes:
        return
    dropped = db.execute(
        "UPDATE command SET step = '', reason = '', result = ?, result_dropped_b = words_b, words_b = 0"
        " WHERE device = ? AND id IN (SELECT id FROM (SELECT id, words_b, SUM(words_b) OVER (ORDER BY number DESC)"
        " AS so_far FROM command WHERE device = ?) WHERE so_far > ? AND words_b > 0)",
        (NOTHING, device, device, most_bytes),
    ).rowcount
    db.execute("UPDATE device SET results_dropped = results_dropped + ? WHERE device = ?", (dropped, device))


def _drop_orders(db: sqlite3.Connection, limits: Limits, device: str) -> None:
    oldest = "SELECT id FROM command WHERE device = ? ORDER BY number DESC LIMIT -1 OFFSET ?"
    for (id,) in db.execute(oldest, (device, limits.commands)).fetchall():
        db.execute("DELETE FROM command WHERE device = ? AND id = ?", (device, id))
        if not _remembered(db, device, id):
            _remember(db, limits, device, id)
            _count(db, device)


def _count_refused(db: sqlite3.Connection, limits: Limits, device: str, id: str) -> None:
    """Each once, although it comes again. Where no more can be remembered it is not counted: perhaps it was before."""
    if not _remembered(db, device, id) and _remember(db, limits, device, id):
        _count(db, device)


def _remembered(db: sqlite3.Connection, device: str, id: str) -> bool:
    key = (device, id)
    return db.execute("SELECT 1 FROM order_dropped WHERE device = ? AND id = ?", key).fetchone() is not None


def _remember(db: sqlite3.Connection, limits: Limits, device: str, id: str) -> bool:
    """Whether there was room."""
    return bool(
        db.execute(
            "INSERT INTO order_dropped SELECT ?, ? WHERE (SELECT COUNT(*) FROM order_dropped WHERE device = ?) < ?",
            (device, id, device, limits.commands_dropped),
        ).rowcount
    )


def _count(db: sqlite3.Connection, device: str) -> None:
    db.execute("UPDATE device SET orders_dropped = orders_dropped + 1 WHERE device = ?", (device,))
