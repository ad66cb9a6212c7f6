"""What one screen of `flyball top` is made from: the daemon's status, what the last looks found, what was chosen.

Status -> History; Status + History + View -> Frame. Values and their order only: nothing here asks, draws or waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from flyball.control_api import LadderView, Status
from flyball.ports import Decision, Quantity, Reading, RungStatus
from flyball.sensing.total import total_power

Sort = Literal["name", "latency", "queue"]
SORTS: tuple[Sort, ...] = ("name", "latency", "queue")
Key = tuple[Quantity, str, str]  # of a reading: quantity, name, sensor

KEPT = 120  # points of a trend: two minutes at one a second
_SEEN_MOST = 500  # readings remembered, so that one which is missing now is shown as missing


@dataclass(slots=True)
class History:
    """A look without a figure is a gap, never a 0."""

    power_w: deque[float | None] = field(default_factory=lambda: deque(maxlen=KEPT))
    p95_s: dict[str, deque[float | None]] = field(default_factory=dict)
    seen: dict[Key, None] = field(default_factory=dict)

    def add(self, status: Status) -> None:
        total = total_power(status.readings)
        self.power_w.append(None if total is None else total.value)
        names = [view.status.name for view in status.ladders]
        self.p95_s = {name: self.p95_s.get(name, deque(maxlen=KEPT)) for name in names}
        for view in status.ladders:
            self.p95_s[view.status.name].append(p95_s(view))
        self.seen.update(dict.fromkeys(map(key, status.readings)))
        for old in list(self.seen)[: max(0, len(self.seen) - _SEEN_MOST)]:
            del self.seen[old]

    def add_gap(self) -> None:
        """The daemon did not answer."""
        self.power_w.append(None)
        for points in self.p95_s.values():
            points.append(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the user chose; an empty name stands for the first ladder, or for the rung that is active."""

    ladder: str = ""
    rung: str = ""
    sort: Sort = "name"
    help: bool = False
    message: str = ""
    alarm: bool = False  # the message is bad news


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Everything that one screen shows. `lost` says why the daemon does not answer now ("" while it does); `status` is
    then what it said last, `age_s` ago. `now_s` is this machine's monotonic clock, as the daemon's times are.
    `decision` is the newest about the chosen ladder."""

    status: Status
    history: History
    view: View
    now_s: float
    decision: Decision | None = None
    lost: str = ""
    age_s: float = 0.0


def key(reading: Reading) -> Key:
    return reading.quantity, reading.name, reading.sensor


def p95_s(view: LadderView) -> float | None:
    return None if view.window is None else view.window.p95_s


def ladders(status: Status, sort: Sort) -> Sequence[LadderView]:
    """By name, or the slowest or the longest queue first; what has no figure comes last."""
    by_name = sorted(status.ladders, key=lambda v: v.status.name)
    if sort == "latency":
        return sorted(by_name, key=lambda v: -1.0 if (found := p95_s(v)) is None else found, reverse=True)
    return sorted(by_name, key=lambda v: v.status.pending, reverse=True) if sort == "queue" else by_name


def chosen(status: Status, view: View) -> tuple[LadderView | None, RungStatus | None]:
    """The ladder and the rung that the keys are about; None where there is none."""
    there = ladders(status, view.sort)
    ladder = next((v for v in there if v.status.name == view.ladder), there[0] if there else None)
    if ladder is None:
        return None, None
    rungs = {rung.name: rung for rung in ladder.status.rungs}
    first = next(iter(rungs.values()), None)
    return ladder, rungs.get(view.rung) or rungs.get(ladder.status.active or "") or first
