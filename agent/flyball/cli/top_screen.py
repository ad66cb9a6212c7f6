"""The screen of `flyball top`: the machine, the ladders, the rungs of one of them, and why it is where it is.

Frame -> sections, cut to the room there is -> exactly `height` lines of at most `width` cells

Asks no daemon and reads no terminal and no clock. Names and reasons are others' text: whatever a terminal could take
for an order is replaced. What is not known is "-", never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.text import Text

from flyball.cli.terminal import duration, milliseconds, percent
from flyball.cli.top_frame import Frame, chosen, ladders, p95_s
from flyball.cli.top_machine import fitted, machine, size, trend
from flyball.control_api import LadderView
from flyball.ports import RungStatus

_MARKS = {"active": ("●", "green"), "standby": ("○", "yellow"), "failed": ("✗", "red")}
_STATES = {"ready": "green", "degraded": "yellow", "loading": "yellow"}  # of a ladder; any other is red
_KEYS = "↑↓ ladder  ←→ rung  p pin  u unpin  s sort: {sort}  h help  q quit"
_KEYS_NARROW = "p pin  u unpin  s sort  h help  q quit"
_HELP = """\
↑ ↓          choose a ladder (also k, j)
← →  - +     choose one of its rungs
p            pin: hold the ladder on the chosen rung
u            unpin: let the governor choose again
s            sort by name, latency (p95), queue
Ctrl-L       draw everything anew
q  Ctrl-C    quit; the daemon goes on as it is

p50, p95     latency of the active rung's answers in the daemon's last seconds
trend        the p95 of every look, the newest on the right
queue        requests that wait       /s     answers per second
J/answer     energy per answer, everything that the machine drew counted
held by      what slows the machine down now; "since boot" is over
-            not known, which is not the same as 0

Any key leads back."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`width`: cells at least, `most`: where there is room to spare. The lowest `rank` is left out first where there is
    too little; `tail`: what is too long loses its beginning."""

    title: str
    width: int
    most: int = 0
    rank: int = 9
    right: bool = False
    tail: bool = False


_LADDERS = (
    Column(title="", width=1),
    Column(title="ladder", width=10, most=40),
    Column(title="rung", width=10, most=40),
    Column(title="", width=3, rank=5),
    Column(title="state", width=8, rank=4),
    Column(title="p50 ms", width=7, rank=3, right=True),
    Column(title="p95 ms", width=7, right=True),
    Column(title="trend", width=10, most=60, rank=1, tail=True),
    Column(title="queue", width=5, right=True),
    Column(title="/s", width=6, rank=2, right=True),
)
_RUNGS = (
    Column(title="", width=1),
    Column(title="", width=1),
    Column(title="rung", width=14, most=40),
    Column(title="precision", width=9, rank=2),
    Column(title="accuracy", width=8, rank=4, right=True),
    Column(title="p50 ms", width=7, rank=5, right=True),
    Column(title="memory", width=9, rank=1, right=True),
    Column(title="J/answer", width=8, rank=3, right=True),
    Column(title="state", width=9, most=200),
)


def screen(frame: Frame, width: int, height: int, keys: bool = True) -> list[Text]:
    """Where the terminal is low, what matters least is left out first. `keys`: the last line tells them."""
    told = _KEYS.format(sort=frame.view.sort)
    hint = Text(told if len(told) <= width else _KEYS_NARROW, "reverse")
    ends = [_message(frame), hint] if keys else [_message(frame)]
    ends = ends[max(0, len(ends) + 1 - height) :]
    room = max(0, height - 1 - len(ends))
    body = _help(room) if frame.view.help else _body(frame, width, room)
    if frame.lost:
        for line in body:
            line.stylize("dim")
    lines = [_header(frame), *body[:room], *[Text()] * (room - len(body)), *ends]
    return [fitted(line, width) for line in lines[:height]]


# ------------------------------------------------------------------------------------------------------- sections


def _header(frame: Frame) -> Text:
    now = frame.status
    line = Text.assemble((f"flyball {now.version}", "bold"), f"  up {duration(now.uptime_s)}  governor {now.mode}")
    if frame.lost:
        line = Text(f"no answer for {duration(frame.age_s)}", "bold red")
    line.append(f"  {now.device}")
    return line.append(f"  {now.board}", "dim") if now.board and now.board != now.device else line


def _message(frame: Frame) -> Text:
    if frame.lost:
        return Text(frame.lost, "red")
    return Text(frame.view.message, "red" if frame.view.alarm else "green")


def _help(room: int) -> list[Text]:
    lines = ["", *_HELP.splitlines()]
    return [Text(line) for line in (lines if len(lines) <= room else lines[1:])]


def _body(frame: Frame, width: int, room: int) -> list[Text]:
    """The machine gives way to ladders and rungs, but keeps a third; of what is left, half is for the ladders."""
    about = machine(frame, width)
    view, rung = chosen(frame.status, frame.view)
    if view is None:
        hint = Text("no ladder is in service: `flyball ladder add DIR` installs one", "yellow")
        return [*_most_important(about, room - 2), Text(), hint]
    views, rungs = ladders(frame.status, frame.view.sort), view.status.rungs
    wanted_above, wanted_below = 1 + len(views), 3 + len(rungs)
    top = _most_important(about, max(room // 3, room - wanted_above - wanted_below))
    rest = room - len(top)
    below = min(wanted_below, max(rest // 2, rest - wanted_above))
    below = below if below >= min(4, wanted_below) else 0  # the first rung's line is the fourth
    shown = _around(views, views.index(view), rest - below - 1)
    sections = [top, _table(_LADDERS, [_ladder_row(frame, v, v is view) for v in shown], width)]
    if below:
        near = _around(rungs, rungs.index(rung) if rung in rungs else 0, below - 3)
        rows = [_rung_row(view, r, r is rung) for r in near]
        sections.append([_held(frame, view), _why(frame, view), *_table(_RUNGS, rows, width)])
    spare = room - sum(map(len, sections))
    for section in reversed(sections[1:]):  # an empty line between sections, where there is room for it
        if spare > 0:
            section.insert(0, Text())
            spare -= 1
    return [line for section in sections for line in section]


def _most_important(lines: Sequence[tuple[int, Text]], room: int) -> list[Text]:
    kept = sorted(range(len(lines)), key=lambda i: lines[i][0])[: max(0, room)]
    return [lines[i][1] for i in sorted(kept)]


def _around(items: Sequence[T], index: int, room: int) -> Sequence[T]:
    """As many as there is room for, the chosen one among them."""
    first = min(max(0, index - room // 2), max(0, len(items) - room))
    return items[first : first + max(0, room)]


def _ladder_row(frame: Frame, view: LadderView, is_chosen: bool) -> list[Text]:
    ladder, window = view.status, view.window
    pinned = any(pin.ladder == ladder.name for pin in frame.status.pins)
    rate = None if window is None or window.seconds <= 0 else window.count / window.seconds
    return [
        Text(">" if is_chosen else "", "bold"),
        Text(ladder.name, "bold" if is_chosen else ""),
        Text(ladder.active or "-"),
        Text("pin" if pinned else "", "magenta"),
        Text(ladder.state, _STATES.get(ladder.state, "red")),
        Text(milliseconds(window.p50_s if window else None)),
        Text(milliseconds(p95_s(view)), "bold"),
        Text(trend(list(frame.history.p95_s.get(ladder.name, ()))), "cyan"),
        Text(str(ladder.pending)),
        Text("-" if rate is None else f"{rate:.1f}"),
    ]


def _rung_row(view: LadderView, rung: RungStatus, is_chosen: bool) -> list[Text]:
    opened = rung.state in ("active", "standby")
    joules = view.joules_per_inference.get(rung.name)
    state = f"{rung.state}: {rung.error}" if rung.error else rung.state
    return [
        Text(">" if is_chosen else "", "bold"),
        Text(*_MARKS.get(rung.state, (" ", ""))),
        Text(rung.name, "bold" if is_chosen else ""),
        Text(rung.precision or "-"),
        Text(percent(rung.accuracy)),
        Text(milliseconds(rung.profiled_p50_s)),
        Text(size(rung.rss_bytes) if opened else "-"),
        Text("-" if joules is None else f"{joules:.3f}"),
        Text(state, "red" if rung.error else ""),
    ]


def _held(frame: Frame, view: LadderView) -> Text:
    line = Text.assemble((view.status.name, "bold"), f" {view.status.version}  ")
    pin = next((p for p in frame.status.pins if p.ladder == view.status.name), None)
    if pin is None:
        return line.append("the governor chooses")
    until = "until released" if pin.until_s is None else f"for {duration(max(0.0, pin.until_s - frame.now_s))} more"
    forced = ", against the limits too" if pin.force else ""
    return line.append(f"held on {pin.rung} {until}{forced}", "magenta")


def _why(frame: Frame, view: LadderView) -> Text:
    """What was decided last and why, or why nothing is served."""
    if view.status.error:
        return Text(view.status.error, "red")
    last = frame.decision
    if last is None or last.ladder != view.status.name:
        return Text("no decision yet", "dim")
    moved = last.source != last.target
    what = f"{last.source or 'none'} -> {last.target}" if moved else f"stays on {last.source or 'none'}"
    if last.error:
        what += f" failed ({last.error})"
    elif moved and not last.acted:
        what += " advised only"
    ago = f" ({duration(max(0.0, frame.now_s - last.t_s))} ago)"
    return Text.assemble(what, f": {last.reason}", (ago, "dim"))


# --------------------------------------------------------------------------------------------------------- tables


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[Text]:
    """One line for the titles and one for each row; a cell that is too long is cut."""
    kept = list(range(len(columns)))
    while sum(columns[i].width + 1 for i in kept) - 1 > width and any(columns[i].rank < 9 for i in kept):
        kept.remove(min(kept, key=lambda i: columns[i].rank))
    widths = {i: columns[i].width for i in kept}
    spare = width - sum(widths.values()) - len(kept) + 1
    for i in kept:
        longest = max((row[i].cell_len for row in rows), default=0)
        more = min(max(0, spare), max(0, min(columns[i].most, longest) - widths[i]))
        widths[i] += more
        spare -= more
    titles = [Text(column.title, "bold") for column in columns]
    return [Text(" ").join([_cell(row[i], columns[i], widths[i]) for i in kept]) for row in (titles, *rows)]


def _cell(text: Text, column: Column, width: int) -> Text:
    if column.tail and len(text) > width:
        text = text[-width:]
    return fitted(text, width, right=column.right, pad=True)
