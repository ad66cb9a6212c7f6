"""What the server counts of itself. Values only; metrics.py shows them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counters:
    """`messages` by result: stored, duplicate, outdated, rejected, ignored, dropped. All since the start."""

    messages: Counter[str] = field(default_factory=Counter)
    records: int = 0
    rebirths: int = 0
    probes: int = 0
    connects: int = 0
    connected: bool = False
    write_failures: int = 0
