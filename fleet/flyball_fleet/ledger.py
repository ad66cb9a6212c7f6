"""Whether everything that was sent has come, or was declared lost: received + declared gaps = sent.

spans of fleet.db, what the devices say they sent -> Lines. Pure.

Without the devices' word, "sent" is known only as far as the highest number that came or was declared: what is missing
behind it cannot be told. A device that still hands on its backlog has holes until it is done.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flyball_fleet.spans import Range, count, subtract
from flyball_fleet.view import Key, missing

Sent = Mapping[str, Mapping[str, Mapping[str, int]]]  # device -> epoch -> stream -> numbers given out


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of one epoch. `gaps` counts declared numbers that did not come all the same."""

    device: str
    epoch: str
    stream: str
    sent: int
    received: int
    gaps: int
    missing: int
    surplus: int  # beyond what the device says it sent: two devices of one epoch, or another's numbers
    ranges: tuple[Range, ...]  # that are missing

    @property
    def adds_up(self) -> bool:
        return self.missing == 0 and self.surplus == 0


def balance(spans: Mapping[Key, tuple[list[Range], list[Range]]], sent: Sent | None = None) -> list[Line]:
    keys = set(spans)
    if sent is not None:
        keys |= {(d, e, s) for d, epochs in sent.items() for e, streams in epochs.items() for s in streams}
    return [_line(key, *spans.get(key, ([], [])), sent) for key in sorted(keys)]


def _line(key: Key, received: list[Range], gaps: list[Range], sent: Sent | None) -> Line:
    device, epoch, stream = key
    declared = subtract(gaps, received)
    seen = max((r[1] for r in [*received, *gaps]), default=-1) + 1
    said = None if sent is None else sent.get(device, {}).get(epoch, {}).get(stream)
    total = seen if said is None else said
    holes = missing(received, gaps)
    if total > seen:
        holes = subtract([(0, total - 1)], sorted([*received, *declared]))
    return Line(
        device=device,
        epoch=epoch,
        stream=stream,
        sent=total,
        received=count(received),
        gaps=count(declared),
        missing=count(holes),
        surplus=max(0, seen - total),
        ranges=tuple(holes),
    )
