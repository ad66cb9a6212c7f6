"""How busy the machine's network links are.

/sys/class/net/IF/{speed,duplex} (Mbit/s), statistics/{rx,tx}_bytes -> share of the link since the last read: "net/IF"

Of a full-duplex link the busier direction counts, of a half-duplex one both together. Links without a device behind
them (loopback, bridges, containers) and those whose speed the driver does not know (Wi-Fi, many virtual ones) are left
out. Never sends anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.sysfs import Reader, optional_text, parse_integer

RESCAN_S = 30.0  # asking for the speed takes the kernel's network lock, and a USB adapter some milliseconds
_WRAP = 1 << 32  # some drivers count in 32 bits: at 1 Gbit/s that is 34 s


@dataclass(frozen=True, slots=True)
class Link:
    capacity_bps: float  # bytes per second, each way
    half_duplex: bool


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes since the link came up, and when they were read."""

    t_s: float
    received: int
    sent: int


class NetworkSensor:
    name = "network"
    fastest_s = 0.5  # it changes over seconds

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._folder = roots.sys / "class/net"
        self._read = roots.read
        self._links: dict[str, Link] = {}
        self._last: dict[str, Counters] = {}
        self._scan_due_s = float("-inf")

    def read(self, now_s: float) -> Sequence[Reading]:
        if now_s >= self._scan_due_s:
            self._links = find_links(self._folder, self._read)
            self._last = {name: last for name, last in self._last.items() if name in self._links}
            self._scan_due_s = now_s + RESCAN_S
        if not self._links:
            raise Unavailable(f"{self._folder} has no network device that is connected and tells its speed")
        gathering = Gathering(self.name, now_s)
        for name, link in self._links.items():
            folder = self._folder / name / "statistics"
            with gathering.attempt(str(folder)):
                try:
                    received, sent = (parse_integer(self._read(folder / f"{way}_bytes")) for way in ("rx", "tx"))
                except FileNotFoundError:
                    self._scan_due_s = now_s  # unplugged
                    raise
                now = Counters(now_s, received, sent)
                last, self._last[name] = self._last.get(name), now
                share = None if last is None else utilization(link, last, now)
                if share is not None:
                    gathering.add("utilization", f"net/{name}", share, "chip")
        return gathering.result()


def find_links(folder: Path, read: Reader) -> dict[str, Link]:
    """By name, those of a device whose speed is known; it is only while the link is up."""
    found: dict[str, Link] = {}
    for path in sorted(folder.glob("*")):
        if not (path / "device").exists():
            continue
        try:
            megabits = parse_integer(optional_text(path / "speed", read))
        except ValueError:
            continue
        if megabits > 0:  # -1: the driver does not know
            half_duplex = optional_text(path / "duplex", read) == "half"
            found[path.name] = Link(capacity_bps=megabits * 1e6 / 8, half_duplex=half_duplex)
    return found


def utilization(link: Link, last: Counters, now: Counters) -> float | None:
    """0 to 1; None when no time has passed, and when a counter began anew."""
    elapsed_s = now.t_s - last.t_s
    if elapsed_s <= 0:
        return None
    most = link.capacity_bps * elapsed_s
    received, sent = _gained(last.received, now.received, most), _gained(last.sent, now.sent, most)
    if received is None or sent is None:
        return None
    return min(1.0, (received + sent if link.half_duplex else max(received, sent)) / most)


def _gained(before: int, now: int, most: float) -> int | None:
    """A counter that runs backwards has wrapped at 32 bits when that comes to no more than the link can carry."""
    if now >= before:
        return now - before
    wrapped = now + _WRAP - before
    return wrapped if before < _WRAP and wrapped <= most else None
