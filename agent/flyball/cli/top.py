"""`flyball top`: the daemon watched live in a terminal, and its ladders held on a rung by keys.

Watch -> Look -> Frame -> screen -> Terminal;  keys -> press -> View | Order -> Watch

Lines of rich's rather than curses: a board seldom has the terminfo entry of the terminal that its user comes from, and
what the tests compare, --once prints and the documents show is then what the terminal gets. Everything is awaited in
one select(). Changes nothing in the daemon but pins.
"""

from __future__ import annotations

import math
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from flyball.cli.terminal import ConfigOption, SocketOption, client, out, seconds
from flyball.cli.top_frame import SORTS, Frame, History, View, chosen, ladders
from flyball.cli.top_screen import screen
from flyball.cli.top_terminal import USUAL, Terminal, drawable, signal_pipe
from flyball.cli.top_watch import Look, Order, Outcome, Watch, look
from flyball.control_api import AUTO, Status
from flyball.errors import ControlError

_LATE_S = 2.0  # so long after an answer was due, that there is none is shown
_TICK_S = 1.0
_NEWS = b"\0"  # in the pipe of signals: no signal has this number


def top(
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks at the daemon.")] = 1.0,
    for_: Annotated[str, typer.Option("--for", help="How long p holds a rung: 30s, 10m (default: until u).")] = "",
    once: Annotated[bool, typer.Option("--once", help="Print one screen and end.")] = False,
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
) -> None:
    """Watch rungs, latency, power, heat and memory live, and hold ladders on a rung by keys (h lists them).

    Example: flyball top --interval 2
    """
    if not math.isfinite(interval):  # older typers let "nan" pass a range
        raise typer.BadParameter(f"--interval: expected a number, found {interval}")
    for_s = seconds(for_) if for_ else None
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not out.is_dumb_terminal
    if not (once or is_terminal):
        raise ControlError(
            "flyball top needs a terminal that can move its cursor, for input and output; elsewhere use "
            "`flyball status`, or `flyball top --once` for one screen"
        )
    with client(socket, config) as connection:
        first = look(connection, "")
    if first.status is None:
        raise ControlError(first.error)
    if once:
        _print(first, first.status)
        return
    with signal_pipe() as (ear, mouth):
        watch = Watch(connection.socket_path, interval, lambda: _wake(mouth))
        with Terminal() as terminal:
            code = Session(watch, terminal, first, first.status, interval, for_s).run(ear)
    if code:
        raise typer.Exit(code)


def _wake(mouth: int) -> None:
    with suppress(BlockingIOError):  # full: whoever reads there has enough to wake up for
        os.write(mouth, _NEWS)


def _print(found: Look, status: Status) -> None:
    history = History()
    history.add(status)
    width, height = shutil.get_terminal_size(USUAL)
    frame = Frame(status=status, history=history, view=View(), now_s=found.t_s, decision=found.decision)
    lines = screen(frame, width, height - out.is_terminal, keys=False)  # the prompt needs a line
    while lines and not lines[-1].plain.strip():
        lines.pop()
    for line in lines:
        line.rstrip()
        out.print(drawable(line), no_wrap=True, overflow="ignore", crop=False)


class Session:
    """From the first screen to the last."""

    def __init__(
        self, watch: Watch, terminal: Terminal, first: Look, status: Status, interval_s: float, for_s: float | None
    ) -> None:
        self._watch, self._terminal = watch, terminal
        self._interval_s, self._for_s = interval_s, for_s
        self._last, self._status, self._error = first, status, ""
        self._history, self._view = History(), View()
        self._history.add(status)
        self._is_ordering = False

    def run(self, ear: int) -> int:
        """The exit code: 0 for q and Ctrl-C, 128 and the signal's number where one ended it."""
        self._watch.start()
        while True:
            self._terminal.draw(screen(self._frame(), *self._terminal.size()))
            ready, _, _ = select.select([ear, self._terminal.input], [], [], max(_TICK_S, self._interval_s))
            if ear in ready:
                end = self._heed(set(os.read(ear, 4096)))
                if end is not None:
                    return end
            if self._terminal.input in ready:
                keys = self._terminal.keys()
                if keys is None or "q" in keys:
                    return 0
                self._press(keys)

    def _frame(self) -> Frame:
        now_s = time.monotonic()
        age_s = now_s - self._last.t_s
        lost = self._error
        if not lost and age_s > self._interval_s + _LATE_S:
            lost = "the daemon has not answered yet"
        return Frame(
            status=self._status, history=self._history, view=self._view, now_s=now_s, decision=self._last.decision,
            lost=lost, age_s=age_s,
        )  # fmt: skip

    def _heed(self, numbers: set[int]) -> int | None:
        if signal.SIGINT in numbers:
            return 0
        for number in (signal.SIGTERM, signal.SIGHUP):
            if number in numbers:
                return 128 + number
        if signal.SIGTSTP in numbers:
            self._terminal.suspend()
        if signal.SIGWINCH in numbers:
            self._terminal.forget()
        for found in self._watch.take():
            self._note(found)
        return None

    def _note(self, found: Look | Outcome) -> None:
        if isinstance(found, Outcome):
            self._is_ordering = False
            self._view = replace(self._view, message=found.text, alarm=found.failed)
        elif found.status is None:
            self._error = found.error
            self._history.add_gap()
        else:
            self._last, self._status, self._error = found, found.status, ""
            self._history.add(found.status)

    def _press(self, keys: Sequence[str]) -> None:
        for key in keys:
            if key == "redraw":
                self._terminal.forget()
            if key in ("p", "u") and self._is_ordering and not self._view.help:
                self._view = replace(self._view, message="wait: an order is under way", alarm=True)
                continue
            self._view, order = press(self._status, self._view, key)
            if order is not None:
                self._is_ordering = True
                self._watch.order(replace(order, for_s=None if order.rung == AUTO else self._for_s))
        if self._watch.ladder != self._view.ladder:
            self._watch.ladder = self._view.ladder
            self._watch.look_now()


def press(status: Status, view: View, key: str) -> tuple[View, Order | None]:
    """What a key changes on the screen, and what it orders."""
    view = replace(view, message="", alarm=False)
    if view.help or key == "h":
        return replace(view, help=not view.help), None
    if key == "s":
        return replace(view, sort=SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)]), None
    ladder, rung = chosen(status, view)
    if ladder is None or rung is None:
        return view, None
    name = ladder.status.name
    if key in ("up", "down"):
        there = _beside([v.status.name for v in ladders(status, view.sort)], name, 1 if key == "down" else -1)
        return replace(view, ladder=there, rung="" if there != name else view.rung), None
    if key in ("left", "right"):
        there = _beside([r.name for r in ladder.status.rungs], rung.name, 1 if key == "right" else -1)
        return replace(view, ladder=name, rung=there), None
    if key in ("p", "u"):
        wanted = rung.name if key == "p" else AUTO
        told = f"{name}: holding it on {wanted} ..." if key == "p" else f"{name}: letting it go ..."
        return replace(view, ladder=name, message=told), Order(ladder=name, rung=wanted)
    return view, None


def _beside(names: Sequence[str], name: str, step: int) -> str:
    return names[min(len(names) - 1, max(0, names.index(name) + step))]
