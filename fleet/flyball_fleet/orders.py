"""The states of orders in fleet.db, as far as one device's share goes.

CommandState -> keep -> table command; what no longer fits: the oldest results, then the oldest orders, both counted

The device says how many orders there are and what they gave, so both are bounded, and `device` counts what was dropped:
an order whose result went keeps its state and the size of what it gave. Inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3

from flyball.uplink.messages import CommandState
from flyball_fleet.limits import Limits
from flyball_fleet.words import storable

NOTHING = b"null"


def keep(
    db: sqlite3.Connection, limits: Limits, device: str, kind: str, id: str, state: CommandState, now: float
) -> bool:
    """False when this state, or a later one, is known. `now` is the server's wall clock."""
    before = db.execute("SELECT epoch, rev FROM command WHERE device = ? AND id = ?", (device, id)).fetchone()
    if before is not None and before[0] == state.epoch and before[1] >= state.rev:
        return False
    result = bytes(state.result)
    db.execute(
        "INSERT OR REPLACE INTO command VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            device, id, kind, state.epoch, storable(state.state, 32), state.rev,
            storable(state.step, 200), state.progress, storable(state.reason, 2000), result, now,
        ),
    )  # fmt: skip
    if result != NOTHING:
        _drop_results(db, device, limits.result_bytes)
    if before is None:
        _drop_orders(db, device, limits.commands)
    return True


def _drop_results(db: sqlite3.Connection, device: str, most_bytes: int) -> None:
    """Of the newest, so many stay as fit; of equally new ones it does not matter which."""
    held = "SELECT SUM(LENGTH(result)) FROM command WHERE device = ? AND result != ?"
    if (db.execute(held, (device, NOTHING)).fetchone()[0] or 0) <= most_bytes:
        return
    dropped = db.execute(
        "UPDATE command SET result = ?, result_dropped_b = LENGTH(result) WHERE device = ? AND id IN (SELECT id FROM"
        " (SELECT id, SUM(LENGTH(result)) OVER (ORDER BY updated_at DESC, id) AS so_far FROM command"
        " WHERE device = ? AND result != ?) WHERE so_far > ?)",
        (NOTHING, device, device, NOTHING, most_bytes),
    ).rowcount
    db.execute("UPDATE device SET results_dropped = results_dropped + ? WHERE device = ?", (dropped, device))


def _drop_orders(db: sqlite3.Connection, device: str, most: int) -> None:
    dropped = db.execute(
        "DELETE FROM command WHERE device = ? AND id IN (SELECT id FROM command WHERE device = ?"
        " ORDER BY updated_at DESC LIMIT -1 OFFSET ?)",
        (device, device, most),
    ).rowcount
    if dropped:
        db.execute("UPDATE device SET orders_dropped = orders_dropped + ? WHERE device = ?", (dropped, device))
