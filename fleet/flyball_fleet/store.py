"""What the fleet says, in SQLite: every message once, however often it is delivered.

Arrival -> Store.apply, inside one transaction of many -> tables of schema.py; Outcome

Telemetry and events are keyed by (device, epoch, stream, first_seq), so a redelivery and a second server change
nothing. Beside the records stand their ranges (`span`), which outlive them: the ledger adds up after old records were
pruned. Used from one thread; raises sqlite3.Error for the disk, MessageError for what a device may not do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from flyball.errors import MessageError
from flyball.uplink.batch import rows
from flyball.uplink.messages import (
    Alarm,
    Batch,
    Birth,
    CommandState,
    EventMessage,
    Gap,
    Status,
    TwinDesired,
    TwinReported,
)
from flyball_fleet import orders
from flyball_fleet.intake import Arrival
from flyball_fleet.limits import Limits
from flyball_fleet.presence import ALIVE, judge
from flyball_fleet.registry import Registry
from flyball_fleet.words import storable

EVENTS = "events"  # the stream that numbers them
Result = Literal["stored", "duplicate", "outdated"]


@dataclass(frozen=True)
class Outcome:
    """`lacks_birth` asks for a rebirth of `device`; `probes` for an answer."""

    result: Result
    device: str
    records: int = 0
    lacks_birth: bool = False
    probes: bool = False


class Store:
    """`payload` of apply() is what is kept of a batch or an event, as it came."""

    def __init__(self, db: sqlite3.Connection, limits: Limits) -> None:
        self._db = db
        self._limits = limits
        self._registry = Registry(db, limits)
        self._apply: dict[str, Callable[[Arrival, bytes, bool, float], Outcome]] = {
            "status": self._status,
            "birth": self._birth,
            "t": self._batch,
            "e": self._event,
            "gap": self._gap,
            "a": self._alarm,
            "twin": self._twin,
            "st": self._command,
        }

    def apply(self, arrival: Arrival, payload: bytes, deflated: bool, now: float) -> Outcome:
        """`now` is the server's wall clock."""
        by_fleet = arrival.kind == "twin" and arrival.name == "desired"
        if arrival.message is not None and not by_fleet:
            self._registry.know(arrival.device, now)
            if not arrival.retain and not (arrival.kind == "status" and arrival.message.state == "lost"):
                self._db.execute("UPDATE device SET heard_at = ? WHERE device = ?", (now, arrival.device))
        return self._apply[arrival.kind](arrival, payload, deflated, now)

    def reject(self, topic: str, reason: str, size: int, now: float) -> None:
        """Kept apart, with the reason; the oldest gives way."""
        cursor = self._db.execute(
            "INSERT INTO rejected (topic, reason, size, received_at) VALUES (?, ?, ?, ?)",
            (storable(topic, 200), storable(reason, 500), size, now),
        )
        self._db.execute("DELETE FROM rejected WHERE number <= ?", ((cursor.lastrowid or 0) - self._limits.rejected,))

    # ----------------------------------------------------------------------------------------------- state of a device

    def _status(self, arrival: Arrival, _payload: bytes, _deflated: bool, now: float) -> Outcome:
        status: Status | None = arrival.message
        device = arrival.device
        if status is None:
            return Outcome("outdated", device)  # somebody emptied the retained topic; what we know stays
        known = self._registry.known(device)
        verdict = judge(known, status.epoch, status.session, status.state in ALIVE)
        if verdict == "older":
            return Outcome("outdated", device)
        if verdict == "newer":
            self._registry.supersede(device, known, status.epoch, status.session, now)
        self._db.execute(
            "UPDATE device SET state = ?, commands = ?, state_at = ? WHERE device = ?",
            (status.state, status.commands, now, device),
        )
        lacking = status.state == "ready" and not self._registry.has_birth(device, status.epoch, status.session)
        return Outcome("stored", device, lacks_birth=lacking)

    def _birth(self, arrival: Arrival, payload: bytes, deflated: bool, now: float) -> Outcome:
        birth: Birth | None = arrival.message
        device = arrival.device
        if birth is None:
            return Outcome("outdated", device)
        known = self._registry.known(device)
        verdict = judge(known, birth.epoch, birth.session, True)
        if verdict == "older":
            return Outcome("outdated", device)
        if verdict == "newer":
            self._registry.supersede(device, known, birth.epoch, birth.session, now)
        cursor = self._db.execute(
            "UPDATE device SET birth = ?, birth_epoch = ?, birth_session = ?, desc_version = ? WHERE device = ? AND NOT"
            " (birth_epoch IS ? AND birth_session = ? AND desc_version >= ?)",
            (
                msgspec.json.encode(birth), birth.epoch, birth.session, birth.desc_version, device,
                birth.epoch, birth.session, birth.desc_version,
            ),
        )  # fmt: skip
        return Outcome("stored" if cursor.rowcount else "duplicate", device)

    def _alarm(self, arrival: Arrival, _payload: bytes, _deflated: bool, now: float) -> Outcome:
        alarm: Alarm | None = arrival.message
        device = arrival.device
        if alarm is None:
            self._db.execute("DELETE FROM alarm WHERE device = ? AND name = ?", (device, arrival.name))
            return Outcome("stored", device)
        names = {row[0] for row in self._db.execute("SELECT name FROM alarm WHERE device = ?", (device,))}
        if arrival.name not in names and len(names) >= self._limits.alarms:
            raise MessageError(f"more than {self._limits.alarms} alarms of one device")
        self._db.execute(
            "INSERT OR REPLACE INTO alarm VALUES (?, ?, ?, ?, ?, ?)",
            (device, arrival.name, storable(alarm.message, 2000), alarm.stamp.ts, alarm.stamp.clk, now),
        )
        return Outcome("stored", device)

    def _twin(self, arrival: Arrival, _payload: bytes, _deflated: bool, now: float) -> Outcome:
        twin: TwinDesired | TwinReported | None = arrival.message
        key = (arrival.device, arrival.name)
        if twin is None:
            self._db.execute("DELETE FROM twin WHERE device = ? AND side = ?", key)
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO twin VALUES (?, ?, ?, ?, ?)",
                (*key, twin.version, msgspec.json.encode(twin), now),
            )
        return Outcome("stored", arrival.device)

    def _command(self, arrival: Arrival, _payload: bytes, _deflated: bool, now: float) -> Outcome:
        state: CommandState | None = arrival.message
        device = arrival.device
        if state is None:
            return Outcome("outdated", device)
        kept = orders.keep(self._db, self._limits, device, arrival.name, arrival.id, state, now, retain=arrival.retain)
        return Outcome(kept, device)

    # ------------------------------------------------------------------------------------------------ numbered streams

    def _batch(self, arrival: Arrival, payload: bytes, deflated: bool, now: float) -> Outcome:
        batch: Batch = arrival.message
        key = (arrival.device, batch.epoch, arrival.name)
        last_seq = batch.first_seq + batch.count - 1
        self._open_stream(key, now)
        # A batch that was divided or joined before it was sent again may begin alike and reach further.
        cursor = self._db.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " count = excluded.count, hist = excluded.hist, deflated = excluded.deflated, payload = excluded.payload,"
            " received_at = excluded.received_at WHERE excluded.count > count",
            (*key, batch.first_seq, batch.count, batch.hist, deflated, payload, now),
        )
        lacking = not self._registry.has_birth(arrival.device, batch.epoch)
        if not cursor.rowcount:
            return Outcome("duplicate", arrival.device, lacks_birth=lacking)
        self._extend(key, "received", batch.first_seq, last_seq)
        if self._registry.known(arrival.device).epoch in ("", batch.epoch):
            record = msgspec.json.encode(rows(batch)[-1])
            self._db.execute(
                "INSERT INTO latest VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET epoch = excluded.epoch,"
                " seq = excluded.seq, received_at = excluded.received_at, record = excluded.record"
                " WHERE excluded.epoch != epoch OR excluded.seq > seq",
                (arrival.device, arrival.name, batch.epoch, last_seq, now, record),
            )
        return Outcome("stored", arrival.device, batch.count, lacks_birth=lacking)

    def _event(self, arrival: Arrival, payload: bytes, _deflated: bool, now: float) -> Outcome:
        event: EventMessage = arrival.message
        key = (arrival.device, event.epoch, EVENTS)
        self._open_stream(key, now)
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *key, event.seq, storable(event.kind, 64), event.severity, storable(event.ladder, 64),
                storable(event.message, 2000), msgspec.json.encode(event), now,
            ),
        )  # fmt: skip
        if cursor.rowcount:
            self._extend(key, "received", event.seq, event.seq)
        return Outcome(
            "stored" if cursor.rowcount else "duplicate",
            arrival.device,
            cursor.rowcount,
            lacks_birth=not self._registry.has_birth(arrival.device, event.epoch),
            probes=event.kind == "probe" and not arrival.retain,
        )

    def _gap(self, arrival: Arrival, _payload: bytes, _deflated: bool, now: float) -> Outcome:
        gap: Gap = arrival.message
        if not 1 <= len(gap.stream) <= 64 or not gap.stream.isprintable():
            raise MessageError(f"stream: expected 1 to 64 characters, found {gap.stream[:80]!r}")
        key = (arrival.device, gap.epoch, gap.stream)
        self._open_stream(key, now)
        for first, last in gap.ranges:
            self._extend(key, "gap", first, last)
            self._db.execute(
                "INSERT OR IGNORE INTO gap_reason VALUES (?, ?, ?, ?, ?, ?, ?,"
                " (SELECT COALESCE(MAX(number), 0) + 1 FROM gap_reason WHERE device = ?))",
                (*key, first, last, storable(gap.reason, 500), now, arrival.device),
            )
        self._db.execute(
            "DELETE FROM gap_reason WHERE device = ? AND (epoch, stream, first, last) IN"
            " (SELECT epoch, stream, first, last FROM gap_reason WHERE device = ?"
            " ORDER BY number DESC LIMIT -1 OFFSET ?)",
            (arrival.device, arrival.device, self._limits.reasons),
        )
        return Outcome("stored", arrival.device)

    def _extend(self, key: tuple[str, str, str], kind: str, first: int, last: int) -> None:
        """Joins the range with those that it touches."""
        where = "device = ? AND epoch = ? AND stream = ? AND kind = ?"
        touching = self._db.execute(
            f"SELECT first, last FROM span WHERE {where} AND first <= ? AND last >= ?",  # noqa: S608 - fixed text
            (*key, kind, last + 1, first - 1),
        ).fetchall()
        if not touching:
            held = self._db.execute(f"SELECT COUNT(*) FROM span WHERE {where}", (*key, kind)).fetchone()[0]  # noqa: S608
            if held >= self._limits.spans:
                raise MessageError(f"stream {key[2]}: more than {self._limits.spans} ranges that do not touch")
        for begin, _ in touching:
            self._db.execute(f"DELETE FROM span WHERE {where} AND first = ?", (*key, kind, begin))  # noqa: S608
        begins, ends = [first, *(t[0] for t in touching)], [last, *(t[1] for t in touching)]
        self._db.execute("INSERT INTO span VALUES (?, ?, ?, ?, ?, ?)", (*key, kind, min(begins), max(ends)))

    def _open_stream(self, key: tuple[str, str, str], now: float) -> None:
        device, epoch, stream = key
        if self._db.execute("SELECT 1 FROM span WHERE device = ? AND epoch = ? AND stream = ? LIMIT 1", key).fetchone():
            return
        streams = {r[0] for r in self._db.execute("SELECT DISTINCT stream FROM span WHERE device = ?", (device,))}
        if stream not in streams and len(streams) >= self._limits.streams:
            raise MessageError(f"more than {self._limits.streams} streams of one device")
        self._registry.remember_epoch(device, epoch, 0, now)
