"""Power of processor packages and their parts, from Intel's and AMD's energy counters (RAPL).

/sys/class/powercap/intel-rapl:N[:M]/{name,energy_uj,max_energy_range_uj} -> two reads -> mean W per zone

A package is a chip, what lies in it (core, uncore, dram) a rail; psys covers the platform. Zones contain each other and
are never added up. intel-rapl-mmio is left out: it counts the same packages a second time. Never sets a limit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Reading, Scope
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.sensors.hwmon import LONGEST_AVERAGE_S, PLAUSIBLE_W
from flyball.sensing.sysfs import Reader, optional_text, parse_integer

RESCAN_S = 60.0  # the driver may be loaded later
# Since Linux 5.10 the counters are for root only: at a fine grain they give away what is computed (CVE-2020-8694).
FORBIDDEN = (
    'for root only; a udev rule for SUBSYSTEM=="powercap" that gives energy_uj to the group of the daemon '
    "(chgrp flyball, chmod g+r) lets it read them"
)

_ZONE = re.compile(r"intel-rapl:[0-9]+(:[0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    name: str
    folder: Path
    scope: Scope


@dataclass(slots=True)
class RaplCounter:
    """Mean power from a counter of microjoules that starts again at 0 when it has reached its range."""

    _last: tuple[float, int] | None = field(default=None)

    def moved_after_s(self, now_s: float, energy_uj: int) -> float | None:
        """After how long it has moved now; None when it stands still, and at the first value."""
        return None if self._last is None or energy_uj == self._last[1] else now_s - self._last[0]

    def power_w(self, now_s: float, energy_uj: int, range_uj: int) -> float | None:
        """Mean since the counter last moved. None at the first value, while it stands still (a zone that is not wired
        does so for ever), and where it may have wrapped more than once or was set back, as by a suspend."""
        last = self._last
        if last is not None and energy_uj == last[1] and now_s >= last[0]:
            return None
        self._last = (now_s, energy_uj)
        if last is None or not 0 < now_s - last[0] <= longest_s(range_uj):
            return None
        spent_uj = energy_uj - last[1] + (range_uj if energy_uj < last[1] else 0)
        power_w = spent_uj / 1e6 / (now_s - last[0])
        # The rest of the range after a reset looks like a wrap, and mostly like more than any machine takes.
        return power_w if 0 < power_w <= PLAUSIBLE_W[1] else None


def longest_s(range_uj: int) -> float:
    """For how long a difference says something: at the highest plausible power the counter must not wrap twice."""
    return min(LONGEST_AVERAGE_S, range_uj / 1e6 / PLAUSIBLE_W[1])


class PowercapSensor:
    name = "powercap"
    fastest_s = 0.05  # the counter moves about once a millisecond, with jitter: less would be noise

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._folder = roots.sys / "class/powercap"
        self._read = roots.read
        self._zones: tuple[Zone, ...] = ()
        self._seen: dict[str, str] = {}  # names of all zones ever found, by folder
        self._counters: dict[str, RaplCounter] = {}
        self._scan_due_s = float("-inf")

    def read(self, now_s: float) -> Sequence[Reading]:
        if now_s >= self._scan_due_s or not self._zones:
            self._zones = tuple(find_zones(self._folder, self._read))
            self._seen.update({zone.folder.name: zone.name for zone in self._zones})
            self._scan_due_s = now_s + RESCAN_S
        if not self._seen:
            raise Unavailable(f"{self._folder} has no intel-rapl zone")
        gathering = Gathering(self.name, now_s)
        here = {zone.folder.name for zone in self._zones}
        gathering.problems += [f"{name}: its zone is gone" for place, name in self._seen.items() if place not in here]
        forbidden: list[str] = []
        for zone in self._zones:
            with gathering.attempt(f"{zone.name} ({zone.folder})"):
                try:
                    power_w = self._power_w(zone, now_s)
                except PermissionError:  # present, so that it is no Unavailable: told once for all zones
                    forbidden.append(zone.name)
                    continue
                except FileNotFoundError:
                    self._scan_due_s = now_s
                    raise
                if power_w is not None:
                    gathering.add("power", zone.name, power_w, zone.scope)
        if forbidden:
            gathering.problems.append(f"{self._folder}/*/energy_uj of {', '.join(forbidden)}: {FORBIDDEN}")
        return gathering.result()

    def _power_w(self, zone: Zone, now_s: float) -> float | None:
        """Raises OSError, ValueError."""
        energy_uj = parse_integer(self._read(zone.folder / "energy_uj"))
        range_uj = parse_integer(self._read(zone.folder / "max_energy_range_uj"))
        if range_uj <= 0 or not 0 <= energy_uj <= range_uj:
            raise ValueError(f"expected energy_uj of 0 to {range_uj} (max_energy_range_uj), found {energy_uj}")
        counter = self._counters.setdefault(zone.folder.name, RaplCounter())
        since_s = counter.moved_after_s(now_s, energy_uj)
        if since_s is not None and since_s > longest_s(range_uj):
            counter.power_w(now_s, energy_uj, range_uj)
            raise ValueError(
                f"the last read was {since_s:.0f} s ago, and the counter may have wrapped more than once: read it at "
                f"least every {longest_s(range_uj):.0f} s (sensing.periods)"
            )
        return counter.power_w(now_s, energy_uj, range_uj)


def find_zones(folder: Path, read: Reader) -> list[Zone]:
    """Packages first, each followed by its parts, which are called "<package>/<part>". Names that occur twice get the
    number of their zone."""
    folders = [f for f in folder.glob("intel-rapl:*") if _ZONE.fullmatch(f.name)]
    folders.sort(key=lambda f: [int(number) for number in f.name.split(":")[1:]])
    own = {f.name: optional_text(f / "name", read).strip() or f.name for f in folders}
    zones: list[Zone] = []
    for each in folders:
        parts = each.name.split(":")
        above = [own.get(":".join(parts[:depth]), "") for depth in range(2, len(parts))]
        name = "/".join([*filter(None, above), own[each.name]])
        zones.append(Zone(name=name, folder=each, scope=_scope(own[each.name], len(parts) > 2)))
    count = Counter(zone.name for zone in zones)
    return [
        zone
        if count[zone.name] == 1
        else Zone(name=f"{zone.name}@{zone.folder.name}", folder=zone.folder, scope=zone.scope)
        for zone in zones
    ]


def _scope(name: str, part: bool) -> Scope:
    if part:
        return "rail"
    return "board" if name == "psys" else "chip"
