"""The report of a run, as JSON: what the target is, which versions, how each case went.

Case -> Report.cases -> write -> one file that two runs, or two boards, can be compared by
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

SCHEMA = 1


@dataclass
class Case:
    name: str
    outcome: str  # passed, failed, skipped
    reason: str
    duration_s: float
    measured: dict[str, float | str]


@dataclass
class Report:
    target: str
    started_at: str  # UTC, ISO 8601, of the machine that runs the suite
    facts: dict[str, str] = field(default_factory=dict)
    has: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)

    def write(self, path: Path) -> None:
        counts = {o: sum(case.outcome == o for case in self.cases) for o in ("passed", "failed", "skipped")}
        content = {"schema": SCHEMA, **asdict(self), "counts": counts}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
