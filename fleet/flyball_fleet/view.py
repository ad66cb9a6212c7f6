"""What fleet.db knows, for people and programs.

one or several files -> devices, details, spans -> Structs. Read only; of several files the newest word counts.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from flyball.uplink.messages import NAME, Birth, Cell
from flyball_fleet import schema
from flyball_fleet.presence import STALE_AFTER_S, shown_state
from flyball_fleet.spans import Range, count, merge, subtract

MOST_EVENTS = 20
_NAME = re.compile(NAME)
SILENT = ("stale", "disconnected", "lost")

Key = tuple[str, str, str]  # device, epoch, stream


class Row(msgspec.Struct, kw_only=True):
    """One device, as `ls` and the metrics show it. Times are the server's wall clock."""

    device: str
    state: str
    epoch: str
    session: int
    commands: str
    heard_at: float | None
    groups: Sequence[str] = ()
    tags: dict[str, str] = {}
    birth: Birth | None = None
    record: dict[str, Cell] = {}  # the newest of telemetry; of a device that is gone or stale, none
    record_at: float | None = None
    alarms: dict[str, str] = {}
    gap_records: int = 0
    missing_records: int = 0
    orders_dropped: int = 0  # more than the server keeps of a device
    results_dropped: int = 0  # likewise, of orders that it still knows or knew


def devices(paths: Sequence[Path], now: float, stale_after_s: float = STALE_AFTER_S) -> list[Row]:
    """By name. Raises StateError."""
    found: dict[str, Row] = {}
    for path in paths:
        with schema.reading(path) as db:
            for row in _rows(db, now, stale_after_s):
                before = found.get(row.device)
                if before is None or (row.heard_at or 0.0) > (before.heard_at or 0.0):
                    found[row.device] = row
    return [found[name] for name in sorted(found)]


def _rows(db: sqlite3.Connection, now: float, stale_after_s: float) -> list[Row]:
    rows = {
        r["device"]: Row(
            device=r["device"],
            state=shown_state(r["state"], r["heard_at"], now, stale_after_s),
            epoch=r["epoch"],
            session=r["session"],
            commands=r["commands"],
            heard_at=r["heard_at"],
            birth=msgspec.json.decode(r["birth"], type=Birth) if r["birth"] else None,
            orders_dropped=r["orders_dropped"],
            results_dropped=r["results_dropped"],
        )
        for r in db.execute("SELECT * FROM device")
    }
    for r in db.execute("SELECT * FROM latest WHERE stream = 'main'"):
        row = rows.get(r["device"])
        if row is not None and now - r["received_at"] <= stale_after_s and row.state not in SILENT:
            row.record, row.record_at = msgspec.json.decode(r["record"]), r["received_at"]
    for r in db.execute("SELECT device, name, message FROM alarm"):
        if r["device"] in rows:
            rows[r["device"]].alarms[r["name"]] = r["message"]
    for r in db.execute("SELECT device, document FROM twin WHERE side = 'desired'"):
        if r["device"] in rows:
            doc = msgspec.json.decode(r["document"])["doc"]
            rows[r["device"]].groups, rows[r["device"]].tags = members(doc)
    for (device, _, _), (received, gaps) in _spans(db).items():
        if device in rows:
            holes = missing(received, gaps)
            rows[device].gap_records += count(subtract(gaps, received))
            rows[device].missing_records += count(holes)
    return list(rows.values())


def members(doc: Any) -> tuple[list[str], dict[str, str]]:
    """Groups and tags of a desired document; what is not of their form counts for nothing."""
    if not isinstance(doc, dict):
        return [], {}
    groups, tags = doc.get("groups"), doc.get("tags")
    return (
        [g for g in groups if isinstance(g, str) and _NAME.match(g)] if isinstance(groups, list) else [],
        {k: v for k, v in tags.items() if isinstance(v, str) and v.isprintable() and _NAME.match(k)}
        if isinstance(tags, dict)
        else {},
    )


def missing(received: Sequence[Range], gaps: Sequence[Range]) -> list[Range]:
    """Numbers up to the highest one known that neither came nor were declared lost."""
    known = merge([*received, *gaps])
    return subtract([(0, known[-1][1])], known) if known else []


def spans(paths: Sequence[Path]) -> dict[Key, tuple[list[Range], list[Range]]]:
    """(device, epoch, stream) -> received, declared lost; of all files together. Raises StateError."""
    found: dict[Key, tuple[list[Range], list[Range]]] = {}
    for path in paths:
        with schema.reading(path) as db:
            for key, (received, gaps) in _spans(db).items():
                before = found.get(key, ([], []))
                found[key] = (merge([*before[0], *received]), merge([*before[1], *gaps]))
    return dict(sorted(found.items()))


def _spans(db: sqlite3.Connection) -> dict[Key, tuple[list[Range], list[Range]]]:
    found: dict[Key, tuple[list[Range], list[Range]]] = {}
    for device, epoch, stream, kind, first, last in db.execute(
        "SELECT device, epoch, stream, kind, first, last FROM span ORDER BY device, epoch, stream, kind, first"
    ):
        received, gaps = found.setdefault((device, epoch, stream), ([], []))
        (received if kind == "received" else gaps).append((first, last))
    return found


def details(paths: Sequence[Path], device: str) -> dict[str, Any]:
    """Last events, command states, twins, gaps and epochs of a device; of the file that has most of it."""
    best: dict[str, Any] = {}
    for path in paths:
        with schema.reading(path) as db:
            found = _details(db, device)
            if sum(map(len, found.values())) > sum(map(len, best.values())):
                best = found
    return best


def _details(db: sqlite3.Connection, device: str) -> dict[str, Any]:
    def ask(query: str, *more: Any) -> list[dict[str, Any]]:
        return [dict(r) for r in db.execute(query, (device, *more))]

    twins = ask("SELECT side, document FROM twin WHERE device = ?")
    return {
        "twin": {t["side"]: msgspec.json.decode(t["document"]) for t in twins},
        "events": ask(
            "SELECT epoch, first_seq AS seq, kind, severity, ladder, message, received_at FROM event WHERE device = ?"
            " ORDER BY received_at DESC, first_seq DESC LIMIT ?",
            MOST_EVENTS,
        ),
        "commands": [
            {**c, "result": msgspec.json.decode(c["result"])}
            for c in ask("SELECT * FROM command WHERE device = ? ORDER BY number DESC LIMIT ?", MOST_EVENTS)
        ],
        "gaps": ask(
            "SELECT epoch, stream, first, last, reason FROM gap_reason WHERE device = ? ORDER BY number DESC LIMIT ?",
            MOST_EVENTS,
        ),
        "rejected": [
            dict(r)
            for r in db.execute(
                "SELECT topic, reason, size, received_at FROM rejected WHERE topic LIKE '%/' || ? || '/%' ESCAPE '\\'"
                " ORDER BY number DESC LIMIT ?",
                (device.replace("_", "\\_"), MOST_EVENTS),
            )
        ],
        "epochs": ask("SELECT epoch, session, first_at FROM epoch WHERE device = ? ORDER BY first_at"),
    }


def rejected(paths: Sequence[Path], most: int = MOST_EVENTS) -> list[dict[str, Any]]:
    """The newest messages that could not be used, with the reason."""
    found: list[dict[str, Any]] = []
    for path in paths:
        with schema.reading(path) as db:
            query = "SELECT topic, reason, size, received_at FROM rejected ORDER BY number DESC LIMIT ?"
            found += [dict(r) for r in db.execute(query, (most,))]
    return sorted(found, key=lambda r: -r["received_at"])[:most]
