"""The daemon as `flyball top` sees it: a look at every interval, and orders carried out.

Client -> look -> Look | order -> Outcome, each from a thread of its own -> queue -> take

A daemon that is slow, hangs or goes away stops nobody but these threads; it is looked for again at every interval.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flyball.cli.top_frame import View, chosen
from flyball.client import Client
from flyball.control_api import AUTO, Status
from flyball.errors import FlyballError, NotFoundError
from flyball.ports import Decision, SwitchReport

_PATIENCE_S = 5.0  # for the answer to a look


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the daemon said, or why it said nothing (`status` is None). `decision` is the newest about one ladder."""

    t_s: float
    status: Status | None = None
    decision: Decision | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Hold `rung`, for `for_s` seconds or without a limit; AUTO lets the governor choose again."""

    ladder: str
    rung: str
    for_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    text: str
    failed: bool = False


class Watch:
    """`wake` is called from the threads, whenever there is something to take."""

    def __init__(self, path: Path, interval_s: float, wake: Callable[[], None]) -> None:
        self.ladder = ""  # whose decisions are asked for; "" for the first
        self._path = path
        self._interval_s = interval_s
        self._wake = wake
        self._found: queue.SimpleQueue[Look | Outcome | BaseException] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._at_once = threading.Event()

    def start(self) -> None:
        for work in (self._look_often, self._obey):
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True).start()

    def look_now(self) -> None:
        self._at_once.set()

    def order(self, order: Order) -> None:
        self._orders.put(order)

    def take(self) -> Iterator[Look | Outcome]:
        """What came since the last call. A mistake in a thread is raised here."""
        while True:
            try:
                found = self._found.get_nowait()
            except queue.Empty:
                return
            if isinstance(found, BaseException):
                raise found
            yield found

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._tell(error)

    def _tell(self, found: Look | Outcome | BaseException) -> None:
        self._found.put(found)
        self._wake()

    def _look_often(self) -> None:
        with Client(self._path, _PATIENCE_S) as connection:
            while True:
                self._at_once.wait(self._interval_s)
                self._at_once.clear()
                self._tell(look(connection, self.ladder))

    def _obey(self) -> None:
        with Client(self._path) as connection:
            while True:
                self._tell(carry_out(connection, self._orders.get()))
                self.look_now()


def look(connection: Client, ladder: str) -> Look:
    """The status, and the newest decision about `ladder` ("" or out of service: about the first by name)."""
    try:
        status = connection.status()
        view, _ = chosen(status, View(ladder=ladder))
        decision = None if view is None else newest(connection, view.status.name)
    except FlyballError as error:
        return Look(t_s=time.monotonic(), error=str(error))
    return Look(t_s=time.monotonic(), status=status, decision=decision)


def newest(connection: Client, ladder: str) -> Decision | None:
    try:
        decisions = connection.decisions(ladder, 1)
    except NotFoundError:
        return None  # taken out of service between the two questions
    return decisions[-1] if decisions else None


def carry_out(connection: Client, order: Order) -> Outcome:
    try:
        report = connection.switch(order.ladder, order.rung, order.for_s)
    except FlyballError as error:
        return Outcome(text=f"{order.ladder}: {error}", failed=True)
    return Outcome(text=f"{order.ladder}: {told(order, report)}")


def told(order: Order, report: SwitchReport | None) -> str:
    if order.rung == AUTO:
        return "the governor chooses"
    if report is None or report.source == report.target:
        return f"held on {order.rung}, which was active already"
    done = f"{report.source or 'none'} -> {report.target} in {report.open_s * 1e3:.0f} ms"
    if report.target != order.rung:
        return f"{done}; a limit of temperature or memory keeps it off {order.rung} for now"
    return done
