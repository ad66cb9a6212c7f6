"""What goes into the spool and what comes out of it: values only.

Work -> SpoolFile.commit -> Sealed, GapRow; three classes share the room, and these are their rules
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from flyball.uplink.batch import Row
from flyball.uplink.messages import Encoded, EventMessage

# P0 is what says that something is lost: gaps, in a table of their own with room of their own. Status, alarms and
# command states are P0 too, and need no room here: the broker retains one of each, and the state store repeats them.
# Log lines have none: they are asked for, and travel as the result of a command.
EVENTS, TELEMETRY = 1, 2
CLASSES = (EVENTS, TELEMETRY)
RESERVED = 1 / 32  # of the bound, for P0
Key = tuple[int, int]  # class, id
QUOTA = {EVENTS: 1 / 8, TELEMETRY: 1.0}  # of the bound, at most; telemetry has what the others leave


@dataclass(frozen=True)
class Span:
    """Sequence numbers of a stream, both ends included."""

    stream: str
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Records of one boot and one state of the clock, not numbered yet."""

    boot: str
    clk: Literal["synced", "unsynced"]
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A batch or a message with its numbers, in the file until it is acknowledged. `name` is an event's kind."""

    id: int
    klass: int
    stream: str
    epoch: str
    first: int
    count: int
    name: str
    encoded: Encoded

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    @property
    def key(self) -> Key:
        return (self.klass, self.id)


@dataclass(frozen=True, kw_only=True)
class GapRow:
    id: int
    stream: str
    epoch: str
    first: int
    last: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a stream begins in a file that does not know it: all numbers below `next` may have been given out, and
    those below `settled` need no report."""

    klass: int
    next: int = 0
    settled: int = 0


@dataclass(kw_only=True)
class Work:
    """What one commit writes. `rows` are per stream and in order; `seal` seals what waits although it is no full
    batch; `dropped` counts rows that memory had no room for; `busy` are under way and have to stay as they are."""

    rows: dict[str, list[Rows]] = field(default_factory=dict)
    messages: list[tuple[str, EventMessage]] = field(default_factory=list)
    seal: bool = False
    dropped: dict[str, int] = field(default_factory=dict)
    acknowledged: list[Key] = field(default_factory=list)
    refused: list[tuple[Sealed, str]] = field(default_factory=list)
    told: list[GapRow] = field(default_factory=list)
    busy: frozenset[Key] = frozenset()

    def __bool__(self) -> bool:
        return bool(
            self.rows or self.messages or self.seal or self.dropped or self.acknowledged or self.refused or self.told
        )


@dataclass(frozen=True, kw_only=True)
class Totals:
    records: int
    bytes: int


def joined(first: Work, then: Work) -> Work:
    """What was to be written, and what came since."""
    names = {**first.dropped, **then.dropped}
    return Work(
        rows={name: [*first.rows.get(name, ()), *then.rows.get(name, ())] for name in {**first.rows, **then.rows}},
        messages=first.messages + then.messages,
        seal=first.seal or then.seal,
        dropped={name: first.dropped.get(name, 0) + then.dropped.get(name, 0) for name in names},
        acknowledged=first.acknowledged + then.acknowledged,
        refused=first.refused + then.refused,
        told=first.told + then.told,
    )


def give_way(work: Work, most_rows: int, most_messages: int) -> None:
    """The oldest rows of a stream, and the oldest messages, beyond these go, and are counted."""
    for name, groups in work.rows.items():
        over = sum(len(g.rows) for g in groups) - most_rows
        while over > 0:
            oldest = groups[0]
            cut = min(over, len(oldest.rows))
            left = oldest.rows[cut:]
            groups[:1] = [Rows(boot=oldest.boot, clk=oldest.clk, rows=left)] if left else []
            work.dropped[name] = work.dropped.get(name, 0) + cut
            over -= cut
    while len(work.messages) > most_messages:
        name, _ = work.messages.pop(0)
        work.dropped[name] = work.dropped.get(name, 0) + 1
