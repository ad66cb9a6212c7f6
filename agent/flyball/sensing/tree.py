"""A captured machine as one text file: what its kernel's files said, links and read errors included.

    sys/class/hwmon/hwmon1 -> ../../devices/i2c-1/hwmon/hwmon1       a link
    sys/devices/i2c-1/hwmon/hwmon1/in1_input: 4984                   a file of one line
    sys/class/thermal/thermal_zone4/temp ! EAGAIN                    a file whose read fails
    sys/class/thermal/thermal_zone5/temp ~ 0.2 41000                 a file whose read takes 0.2 s
    firmware/pmic_read_adc:                                          several lines
    | VDD_CORE_A current(7)=0.9A
    # a comment

Text stands escaped as in Python (\\0, \\x1f, \\\\), so that a file of bytes can be read and
compared in an editor.
hil/capture.py writes such files on a board; a `Tree` lays them out in a folder and gives the roots that stand for it.
"""

from __future__ import annotations

import errno
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flyball.sensing.contract import Roots
from flyball.sensing.sysfs import read_text

_LINE = re.compile(r"(?P<path>[^\s].*?)(?P<kind> -> | ! | ~ |:$|: )(?P<rest>.*)")
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|[0nrt\\])")
_PLAIN = {"0": "\0", "n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
LONGEST_S = 60.0  # that a slow read may take
TOP = ("sys", "proc", "dev", "etc", "var", "firmware")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the file: `kind` is "file", "link", "error" (`text` is the errno's name) or "slow"."""

    path: str
    kind: str
    text: str = ""
    delay_s: float = 0.0


def parse(text: str, source: str) -> Iterator[Entry]:
    """Raises ValueError, which names the line of `source`."""
    block: list[str] | None = None
    path = ""
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{source}:{number}"
        if block is not None and (line == "|" or line.startswith("| ")):
            block.append(_unescape(line[2:]))
            continue
        if block is not None:
            yield Entry(path=path, kind="file", text="".join(f"{one}\n" for one in block))
            block = None
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{where}: expected 'path: text', 'path -> to', 'path ! ERRNO' or 'path ~ seconds text'")
        path, kind, rest = match["path"], match["kind"].strip(), match["rest"]
        if path.split("/", 1)[0] not in TOP or ".." in path.split("/"):
            raise ValueError(f"{where}: expected a path below {', '.join(TOP)}, found {path!r}")
        if kind == "->":
            yield Entry(path=path, kind="link", text=rest)
        elif kind == "!":
            if rest not in errno.errorcode.values():
                raise ValueError(f"{where}: expected the name of an errno such as EIO, found {rest!r}")
            yield Entry(path=path, kind="error", text=rest)
        elif kind == "~":
            delay, _, value = rest.partition(" ")
            yield Entry(path=path, kind="slow", text=f"{_unescape(value)}\n", delay_s=_seconds(delay, where))
        elif match["kind"] == ": ":
            yield Entry(path=path, kind="file", text=f"{_unescape(rest)}\n")
        else:
            block = []
    if block is not None:
        yield Entry(path=path, kind="file", text="".join(f"{one}\n" for one in block))


class Tree:
    """A folder in which archives are laid out one over the other, and the roots that stand for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._faults: dict[Path, Entry] = {}  # by resolved path: the reads that fail or take long
        self._asked: dict[Path, Entry | None] = {}  # by the path asked for: resolving one takes longer than reading it
        self.roots = Roots(
            sys=folder / "sys",
            proc=folder / "proc",
            dev=folder / "dev",
            etc=folder / "etc",
            var=folder / "var",
            read=self._read,
            firmware=self._ask,
        )

    def unpack(self, archive: Path) -> None:
        """Raises ValueError, OSError."""
        self._asked.clear()
        for entry in parse(archive.read_text(encoding="utf-8"), str(archive)):
            place = self._folder / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.parent.resolve().is_relative_to(self._folder):
                raise ValueError(f"{archive}: {entry.path} leads out of the tree by a link")
            self._put(place.parent.resolve() / place.name, entry)

    def _put(self, place: Path, entry: Entry) -> None:
        self._faults.pop(place, None)
        if place.is_symlink():
            place.unlink()
        if entry.kind == "link":
            place.symlink_to(entry.text)
            return
        place.write_bytes(entry.text.encode("utf-8", "surrogateescape"))
        if entry.kind in ("error", "slow"):
            self._faults[place] = entry

    def _read(self, path: Path) -> str:
        if path not in self._asked:
            self._asked[path] = self._faults.get(path.resolve()) if self._faults else None
        fault = self._asked[path]
        if fault is not None and fault.kind == "error":
            number = getattr(errno, fault.text)
            raise OSError(number, os.strerror(number), str(path))
        if fault is not None:
            time.sleep(fault.delay_s)
        return read_text(path)

    def _ask(self, command: str) -> str:
        return read_text(self._folder / "firmware" / command.replace(" ", "_"))


def _unescape(text: str) -> str:
    """Bytes that are not text become surrogates, and bytes again in the file."""

    def one(match: re.Match[str]) -> str:
        code = match[1]
        return _PLAIN[code] if code in _PLAIN else bytes([int(code[1:], 16)]).decode("utf-8", "surrogateescape")

    return _ESCAPE.sub(one, text)


def escape(data: bytes) -> str:
    """`data` on one line, as `parse` reads it."""
    text = data.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    for code, char in (("0", "\0"), ("n", "\n"), ("r", "\r"), ("t", "\t")):
        text = text.replace(char, f"\\{code}")
    return "".join(c if c.isprintable() else _hex(c) for c in text)


def _hex(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _seconds(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_S:
        raise ValueError(f"{where}: expected 0 to {LONGEST_S:g} seconds after '~', found {text!r}")
    return seconds
