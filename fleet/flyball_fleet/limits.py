"""How much of the disk and of the labels one fleet, and one device of it, may take. Values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    devices: int = 10_000
    streams: int = 16  # of a device
    epochs: int = 64  # of a device; the oldest goes
    spans: int = 4096  # of a stream: ranges that do not touch
    alarms: int = 64  # of a device
    reasons: int = 1000  # of a device's gaps; the oldest goes, its range stays
    commands: int = 1000  # of a device; the oldest goes
    commands_dropped: int = 4000  # of a device: names of those that went, so that none counts twice
    words_bytes: int = 1 << 20  # steps, reasons, results of a device's commands; the oldest go, their commands stay
    rejected: int = 1000  # in all; the oldest goes
    keep_days: float = 30.0
    keep_bytes: int = 4 << 30
