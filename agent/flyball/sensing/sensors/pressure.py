"""How much work waits for processor, memory and disk (pressure stall information, PSI).

/proc/pressure/{cpu,memory,io} -> "some" and "full", avg10 (%) -> ratio of the last 10 s

"some": at least one task waited; "full": all that were not idle did. The processor has no "full" worth the name: the
kernel always writes 0 there for the whole machine.
"""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Sequence

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Gathering, Roots, Unavailable

# Resource -> the lines of its file that are read.
LINES = {"cpu": ("some",), "memory": ("some", "full"), "io": ("some", "full")}
OFF = (errno.ENOENT, errno.EOPNOTSUPP)

_LINE = re.compile(r"(some|full) avg10=([0-9]{1,3}\.[0-9]{1,2}) .*")


class PressureSensor:
    name = "pressure"
    fastest_s = 1.0  # the kernel computes the averages every 2 s

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._folder = roots.proc / "pressure"
        self._read = roots.read

    def read(self, now_s: float) -> Sequence[Reading]:
        gathering = Gathering(self.name, now_s)
        off = 0
        for resource, wanted in LINES.items():
            with gathering.attempt(str(self._folder / resource)):
                try:
                    text = self._read(self._folder / resource)
                except OSError as error:
                    if error.errno in OFF:
                        off += 1
                        continue
                    raise
                for line in wanted:
                    gathering.add("pressure", f"{resource}_{line}", parse_avg10(text, line), "machine")
        if off == len(LINES):
            raise Unavailable(
                f"{self._folder}: this kernel keeps no pressure figures; "
                "add psi=1 to its command line (cmdline.txt on a Raspberry Pi) and reboot"
            )
        return gathering.result()


def parse_avg10(text: str, line: str) -> float:
    """0 to 1, of the line that begins with `line`. Raises ValueError."""
    for match in map(_LINE.fullmatch, text.splitlines()):
        if match is not None and match[1] == line:
            ratio = float(match[2]) / 100
            if not math.isfinite(ratio) or ratio > 1:
                raise ValueError(f"expected avg10 of 0 to 100 %, found {match[2]}")
            return ratio
    raise ValueError(f"expected a line '{line} avg10=...', found {text[:60]!r}")
