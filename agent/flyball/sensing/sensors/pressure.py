"""How much work waits for processor, memory and disk (pressure stall information, PSI).

/proc/pressure/{cpu,memory,io} -> "some" and "full", avg10 (%) -> ratio of the last 10 s
                  cpu          -> "some", total (us) -> ratio since the kernel counted last: "cpu_some_now"

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

PERIOD_S = 2.0  # PSI_FREQ: so often the kernel adds up what it counted, and `total` stands still in between

_LINE = re.compile(r"(some|full) avg10=([0-9]{1,3}\.[0-9]{1,2}) .*?(?: total=([0-9]{1,20}))?")


class RecentShare:
    """The share of time between the kernel's last two sums, from a `total` that is read more often than it is summed.
    When it was summed is not told, but while tasks wait it is every PERIOD_S: what two changes seen are apart is
    rounded to that."""

    def __init__(self) -> None:
        self._total_us: int | None = None
        self._summed_s: float | None = None  # when that sum was first seen; unknown until it has changed once
        self._share: float | None = None
        self._begun_s = 0.0

    def update(self, now_s: float, total_us: int) -> float | None:
        """0 to 1; None until two changes were seen, or two periods without any."""
        before_us, self._total_us = self._total_us, total_us
        if before_us is None or total_us < before_us:  # the first one, or a counter that began anew
            self._summed_s, self._share = None, None
            self._begun_s = now_s
        elif total_us > before_us:
            if self._summed_s is not None:
                periods = max(1, round((now_s - self._summed_s) / PERIOD_S))
                self._share = min(1.0, (total_us - before_us) / 1e6 / (periods * PERIOD_S))
            self._summed_s = now_s
        elif now_s - (self._begun_s if self._summed_s is None else self._summed_s) > 2 * PERIOD_S:
            self._share = 0.0  # it was summed meanwhile, and there was nothing to add
            self._summed_s = now_s - PERIOD_S
        return self._share


class PressureSensor:
    name = "pressure"
    fastest_s = 1.0  # the kernel computes the averages every 2 s

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._folder = roots.proc / "pressure"
        self._read = roots.read
        self._cpu = RecentShare()

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
                if resource == "cpu":
                    share = self._cpu.update(now_s, parse_total(text, "some"))
                    if share is not None:
                        gathering.add("pressure", "cpu_some_now", share, "machine")
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


def parse_total(text: str, line: str) -> int:
    """Microseconds since boot, of the line that begins with `line`. Raises ValueError."""
    for match in map(_LINE.fullmatch, text.splitlines()):
        if match is not None and match[1] == line and match[3] is not None:
            return int(match[3])
    raise ValueError(f"expected '{line} avg10=... total=...', found {text[:60]!r}")
