"""The terminal that `flyball top` draws on: another screen, keys one by one, and everything as before at the end.

lines -> those that changed -> escape sequences -> terminal;  bytes of keys -> names of keys;  signals -> pipe

A line that the terminal takes for wider than it is shifts no other: every line is put in its place, none is wrapped.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

from rich.text import Text

from flyball.cli.terminal import out

USUAL = (80, 24)  # columns and lines where a terminal does not tell: serial consoles
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP)
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[999;1H\r\n\x1b[?1049l"  # the last line for terminals with one screen only
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[@-~]|[^\x1b]")
_UNFINISHED = re.compile(rb"\x1b(?:[\[O][0-9;]{0,8})?\Z")
_NAMES = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"k": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"j": "down",
    b"\x1b[D": "left", b"\x1bOD": "left", b"-": "left", b"\x1b[C": "right", b"\x1bOC": "right", b"+": "right",
    b"\x0c": "redraw", b"?": "h", b"\x03": "q",
}  # fmt: skip
_SIGNS = "▁▂▃▄▅▆▇█●○✗↑↓←→…°±\N{REPLACEMENT CHARACTER}"
_SIMPLE = str.maketrans(_SIGNS, "_.:-=+*#*ox^v<>~ ~?")


class Terminal:
    """Standard input and output. A context manager: whatever happens in it, the terminal is given back as it was.
    Raises OSError when the terminal is gone."""

    def __init__(self) -> None:
        self.input = sys.stdin.fileno()
        self._mode: list[object] | None = None
        self._drawn: list[Text] = []
        self._rest = b""

    def __enter__(self) -> Terminal:
        mode = termios.tcgetattr(self.input)
        self._mode = list(mode)
        tty.setcbreak(self.input)
        self._write(_ENTER)
        self._drawn = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError, termios.error):  # it may be gone
            self._write(_LEAVE)
        if self._mode is not None:
            with suppress(OSError, termios.error):
                termios.tcsetattr(self.input, termios.TCSAFLUSH, self._mode)  # type: ignore[arg-type]

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return USUAL
        return found.columns or USUAL[0], found.lines or USUAL[1]

    def keys(self) -> list[str] | None:
        """Those that were pressed; None when there will be no more. Blocks where there is none."""
        try:
            data = os.read(self.input, 1024)
        except OSError:
            data = b""
        if not data:
            return None
        names, self._rest = split_keys(self._rest + data)
        return names

    def forget(self) -> None:
        """Nothing of what was drawn is taken for granted any more."""
        self._drawn = []
        self._write("\x1b[2J")

    def draw(self, lines: Sequence[Text]) -> None:
        before = [*self._drawn, *[Text()] * (len(lines) - len(self._drawn))]
        changed = [i for i, line in enumerate(lines) if line != before[i] or line.style != before[i].style]
        self._write("".join(f"\x1b[{i + 1};1H\x1b[0m\x1b[2K{encoded(lines[i])}" for i in changed))
        self._drawn = list(lines)

    def suspend(self) -> None:
        """Ctrl-Z: the shell has its terminal until the user comes back (`fg`)."""
        self.__exit__(None, None, None)
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # to this thread, so that it stops here
        signal.signal(signal.SIGTSTP, before)
        self.__enter__()

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def encoded(line: Text) -> str:
    """With the escape sequences of its styles, as far as the terminal and NO_COLOR allow."""
    with out.capture() as capture:
        out.print(drawable(line), end="", no_wrap=True, overflow="ignore", crop=False)
    return capture.get()


def drawable(line: Text) -> Text:
    """Plainer signs where the encoding lacks bars and arrows, and for Linux's own console, whose fonts lack them."""
    if os.environ.get("TERM") != "linux":
        try:
            _SIGNS.encode(sys.stdout.encoding or "utf-8")
        except (UnicodeError, LookupError):
            pass
        else:
            return line
    plainer = line.copy()
    plainer.plain = line.plain.translate(_SIMPLE)
    return plainer


def split_keys(data: bytes) -> tuple[list[str], bytes]:
    """The keys' names, and what is not a whole key yet: over a slow line an arrow may come in pieces."""
    tail = _UNFINISHED.search(data)
    end = tail.start() if tail else len(data)
    return [_NAMES.get(found, found.decode("latin-1")) for found in _KEY.findall(data[:end])], data[end:]


@contextmanager
def signal_pipe() -> Iterator[tuple[int, int]]:
    """(reading end, writing end): each of SIGNALS comes as a byte of its number instead of having its usual effect.
    Whoever writes there too may use numbers that no signal has."""
    ear, mouth = os.pipe()
    os.set_blocking(ear, False)
    os.set_blocking(mouth, False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    try:
        yield ear, mouth
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        # The pipe stays open: threads may still write to it, and its numbers must not become another file's.
