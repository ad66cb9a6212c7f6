"""What came from one device, by number: does it add up?

messages -> (epoch, stream) -> numbers received, numbers declared as lost -> what is neither
                                       spool.db -> numbers given out, numbers that still wait
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fleet_side import Heard

from flyball.uplink import batch

Stream = tuple[str, str]  # epoch, name


@dataclass
class Numbers:
    received: dict[int, object] = field(default_factory=dict)  # with something that tells two records apart
    declared: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    given_out: int = 0  # all numbers below it were
    contradictions: int = 0

    def take(self, number: int, mark: object) -> None:
        if self.received.setdefault(number, mark) != mark:
            self.contradictions += 1

    def missing(self) -> set[int]:
        """Given out, and neither received nor declared nor waiting on the device's disk."""
        top = max([*self.received, *self.declared, self.given_out - 1], default=-1)
        return set(range(top + 1)) - self.received.keys() - self.declared - self.waiting


class Ledger:
    def __init__(self) -> None:
        self.by_stream: dict[Stream, Numbers] = {}

    @staticmethod
    def of(heard: Iterable[Heard]) -> Ledger:
        ledger = Ledger()
        for message in list(heard):
            kind, _, name = message.suffix.partition("/")
            if kind == "t":
                found = batch.decode(message.payload)
                numbers = ledger._of(found.epoch, name)
                for i, mono in enumerate(found.columns["mono"]):
                    numbers.take(found.first_seq + i, mono)
            elif kind == "e":
                event = json.loads(message.payload)
                ledger._of(event["epoch"], "events").take(event["seq"], (event["kind"], event["stamp"]["mono"]))
            elif kind == "gap":
                gap = json.loads(message.payload)
                for first, last in gap["ranges"]:
                    ledger._of(gap["epoch"], gap["stream"]).declared |= set(range(first, last + 1))
        return ledger

    def add_disk(self, state_dir: Path) -> None:
        """What the device has given out, and not delivered yet. While nobody writes there."""
        db = sqlite3.connect(state_dir / "spool.db")
        try:
            for id, epoch, name, klass, next in db.execute("SELECT id, epoch, name, class, next FROM stream"):
                numbers = self._of(epoch, name)
                numbers.given_out = next
                waiting = [f"SELECT first, first + count - 1 FROM batch{int(klass)} WHERE stream = ?"]
                waiting += ["SELECT first, last FROM gap WHERE stream = ?"]
                for query in waiting:
                    for first, last in db.execute(query, (id,)):
                        numbers.waiting |= set(range(first, last + 1))
        finally:
            db.close()

    def _of(self, epoch: str, stream: str) -> Numbers:
        return self.by_stream.setdefault((epoch, stream), Numbers())

    def received(self) -> int:
        return sum(len(n.received) for n in self.by_stream.values())

    def declared(self) -> int:
        """As lost, and not received."""
        return sum(len(n.declared - n.received.keys()) for n in self.by_stream.values())

    def missing(self) -> int:
        return sum(len(n.missing()) for n in self.by_stream.values())

    def streams(self) -> int:
        return len(self.by_stream)

    def adds_up(self) -> bool:
        return not self.missing() and not any(n.contradictions for n in self.by_stream.values())
