"""SQLite files that are damaged: how that is recognized, and what becomes of them.

error -> is_corrupt; row -> check; path -> set_aside -> another name. Never deletes one and never repairs one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path


def is_corrupt(error: BaseException) -> bool:
    # Full, locked, read-only and I/O errors are OperationalError; "malformed" and "not a database" are their parent.
    return type(error) is sqlite3.DatabaseError


def check(where: str, row: Sequence[object], kinds: Sequence[type]) -> None:
    """Raises sqlite3.DatabaseError when a value is of another kind: SQLite keeps any in any column."""
    for value, kind in zip(row, kinds, strict=True):
        if type(value) is not kind:
            raise sqlite3.DatabaseError(f"{where}: expected {kind.__name__}, found {repr(value)[:40]}")


def set_aside(path: Path) -> Path | None:
    """Keeps the damaged file for whoever wants to look, under a name that is free; None when there is none."""
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside
