"""What the governor saw and decided, as lines for whoever asked for them: `flyball record`.

State and rules at the beginning, then View + decisions of every period -> JSON lines -> one reader

The law is deterministic: whoever has the lines can decide again, and must come to the same (`flyball replay`). What
changes the state from outside (a pin, a reload) is written as another beginning. Never touches a disk and never waits
for its reader: one that is too slow loses the recording, and the governing goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import msgspec

from flyball.config import Governor as Rules
from flyball.errors import UnavailableError
from flyball.governor.rules import Rule
from flyball.governor.state import State
from flyball.governor.values import View
from flyball.ports import Decision

log = logging.getLogger(__name__)

SCHEMA = 2
WAITING_BYTES = 8 << 20  # of lines that the reader has not taken: more than half an hour of one ladder


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun", tag_field="kind"):
    """From here on decisions rest on this state and on these rules. `thresholds` are the configuration's rules of each
    ladder, as text."""

    schema: int
    flyball: str
    board: str
    rules: Rules
    state: State
    thresholds: Mapping[str, tuple[str, ...]] = {}


class Looked(msgspec.Struct, frozen=True, kw_only=True, tag="looked", tag_field="kind"):
    view: View
    decisions: tuple[Decision, ...]


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done", tag_field="kind"):
    """A change of rung that was made, or failed with `error`."""

    decision: Decision
    now_s: float
    error: str = ""


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended", tag_field="kind"):
    """Why nothing follows. A recording that its reader ends has no such line."""

    why: str


Line = Begun | Looked | Done | Ended


class Recording:
    """For one reader. Everything here runs in the event loop's thread."""

    def __init__(self, flyball: str, board: str, waiting_bytes: int = WAITING_BYTES) -> None:
        self._who = (flyball, board)
        self._most = waiting_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._encoder = msgspec.json.Encoder()
        self._rules: Rules | None = None
        self._state: State | None = None
        self._thresholds: Mapping[str, tuple[str, ...]] = {}
        self.over = False

    def follow(self, rules: Rules, state: State, thresholds: Mapping[str, Sequence[Rule]] | None = None) -> None:
        """What the next line rests on: a line of its own unless it is what the lines before have led to. States are
        frozen, so that the same object is the same state. `thresholds` None: as before."""
        texts = self._thresholds
        if thresholds is not None:
            texts = {name: tuple(rule.text for rule in its) for name, its in thresholds.items()}
        if state is self._state and rules == self._rules and texts == self._thresholds:
            return
        self._rules, self._state, self._thresholds = rules, state, texts
        flyball, board = self._who
        self._write(Begun(schema=SCHEMA, flyball=flyball, board=board, rules=rules, state=state, thresholds=texts))

    def keep(self, view: View, decisions: Sequence[Decision], state: State) -> bool:
        """`state` is the one after these decisions. False when the recording is over."""
        self._write(Looked(view=view, decisions=tuple(_bare(d) for d in decisions)))
        self._state = state
        return not self.over

    def done(self, decision: Decision, error: str, now_s: float, state: State) -> None:
        """`state` is the one that took in what became of the change."""
        self._write(Done(decision=_bare(decision), now_s=now_s, error=error))
        self._state = state

    def close(self, why: str = "the daemon has ended it") -> None:
        """The reader still gets what waits, and why there is no more."""
        if not self.over:
            self._put(self._encoder.encode(Ended(why=why)) + b"\n")
            self.over = True

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Each whole, with its line end; until the recording is over."""
        try:
            while True:
                while self._waiting:
                    data = self._waiting.popleft()
                    self._bytes -= len(data)
                    yield data
                if self.over:
                    return
                self._more.clear()
                await self._more.wait()
        finally:
            self.over = True  # nobody is left to read

    def _write(self, line: Line) -> None:
        if self.over:
            return
        data = self._encoder.encode(line) + b"\n"
        if self._bytes + len(data) > self._most:
            log.warning("a recording has ended: its reader is too slow")
            self.close("the reader was too slow")
            return
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._bytes += len(data)
        self._more.set()


class Recordings:
    """Who may record: one at a time. `record` is the governor's."""

    def __init__(self, record: Callable[[Recording | None], None], flyball: str, board: str) -> None:
        self._record = record
        self._who = (flyball, board)
        self._current: Recording | None = None

    def open(self) -> AsyncGenerator[bytes, None]:
        """The lines of a recording that begins with the first of them and ends when the generator is closed. Raises
        UnavailableError."""
        if self._current is not None and not self._current.over:
            raise UnavailableError("somebody else is recording, and there is one recording at a time; try again later")
        return self._lines()

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        # Here and not in `open`: what is never read from would never end.
        self._current = recording = Recording(*self._who)
        self._record(recording)
        lines = recording.lines()
        try:
            async for line in lines:
                yield line
        finally:
            await lines.aclose()
            if self._current is recording:
                self._current = None
                self._record(None)


def _bare(decision: Decision) -> Decision:
    """Candidates follow from the view; without them a line is a fifth as long."""
    return msgspec.structs.replace(decision, candidates=(), inputs={})
