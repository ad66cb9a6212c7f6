"""Electrical power as the kernel's hardware monitors measure it.

/sys/class/hwmon/hwmon*/ -> channels -> energyN (uJ, differences) | powerN (uW) | inN * currN (mV * mA) -> W per rail

Devices are known by their `name` file and device path; hwmon numbers move. A name that occurred twice stays told apart
by its device, and is no total, also while one of the two is gone. Rails overlap, so nothing is ever added up here, and
which rail stands for the whole machine is `flyball.sensing.total`'s to say. Never writes.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from flyball.config import Sensing
from flyball.ports import Reading, Scope
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.sysfs import Reader, describe, optional_text, parse_integer, read_text
from flyball.sensing.tegra import tegra

# Wider than any machine this runs on; below 2**32 uW = 4295 W, so that an all-ones register falls outside. A negative
# figure is a fault or an offset below the resolution: left out, never made 0.
PLAUSIBLE_W = (0.0, 3000.0)
RESCAN_S = 60.0  # a driver may be loaded later
RESCAN_MISSING_S = 1.0  # while a device that was there is gone
LONGEST_AVERAGE_S = 30.0  # an energy difference over more says nothing of now

# (chip, label) of channels that are upstream of everything else on what the scope names.
TOTALS: dict[tuple[str, str], Scope] = {
    ("ina3221", "VDD_IN"): "module",  # a module that labels its input so; on a Jetson, jetson.py reads it
    ("ina3221", "POM_5V_IN"): "module",
    ("power_meter", ""): "machine",  # ACPI power meter (PNP ACPI000D)
}
# Channels beyond these are not rails: in4-in6 are shunt microvolts, in7 their sum, curr4 the sum of currents.
RAILS: dict[str, tuple[int, ...]] = {"ina3221": (1, 2, 3)}
NO_RAIL = frozenset({"nc", "sum of shunt voltages"})
ON_JETSON = frozenset({"ina3221", "ina238", "ina219"})  # jetson.py reads these there

_FILE = re.compile(r"(energy|power|in|curr)([0-9]{1,3})_(input|average)")

Place: TypeAlias = tuple[str, str, str]  # of a rail: its name, its device and its first file


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One rail. `files` holds one path, or for "volt-ampere" the voltage's and the current's."""

    name: str
    chip: str
    device: str
    scope: Scope
    kind: Literal["energy", "power", "volt-ampere"]
    files: tuple[Path, ...]

    @property
    def place(self) -> Place:
        return self.name, self.device, self.files[0].name


@dataclass(slots=True)
class EnergyCounter:
    """Mean power from a counter of microjoules."""

    _last: tuple[float, int] | None = field(default=None)

    def power_w(self, now_s: float, energy_uj: int) -> float | None:
        """Mean since the counter last moved. None at the first value, while it stands still (it may be updated less
        often than it is read), after a wrap or reset, whose size nobody knows, and after a long silence."""
        last = self._last
        if last is not None and energy_uj == last[1] and now_s >= last[0]:
            return None
        self._last = (now_s, energy_uj)
        if last is None or energy_uj < last[1] or not 0 < now_s - last[0] <= LONGEST_AVERAGE_S:
            return None
        return (energy_uj - last[1]) / 1e6 / (now_s - last[0])


class Moved(Exception):
    """A path that was there is gone."""


@contextmanager
def attempt_path(gathering: Gathering, where: str, moved: bool) -> Iterator[None]:
    """What fails is told with `where`, and the next path is read; a channel that is switched off (ENODATA) is left out.
    EAGAIN is told too: of a bus it says that another master had it. Raises Moved when a path is gone, but for the look
    that follows the search for it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV) and not moved:
            raise Moved from error
        if error.errno != errno.ENODATA:
            gathering.problems.append(f"{where}: {describe(error)}")
    except ValueError as error:
        gathering.problems.append(f"{where}: {describe(error)}")


class HwmonSensor:
    name = "hwmon"

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._sys = roots.sys
        self._roots = roots
        self._read = roots.read
        self._leave: frozenset[str] = frozenset()  # chips of others
        self._channels: tuple[Channel, ...] = ()
        self._counters: dict[str, EnergyCounter] = {}
        self._most: Counter[str] = Counter()  # by name: how many channels there were at once
        self._gone: tuple[str, ...] = ()
        self._scan_due_s = float("-inf")

    def read(self, now_s: float) -> Sequence[Reading]:
        if now_s >= self._scan_due_s or not self._channels:
            self._scan(now_s)
        if not self._most:
            raise Unavailable(f"{self._sys}/class/hwmon has no device that measures power")
        try:
            return self._look(now_s).result()
        except Moved:  # devices were renumbered since the last search: where they are now, they are read at once
            self._scan(now_s)
            return self._look(now_s, moved=True).result()

    def _scan(self, now_s: float) -> None:
        if not self._leave and tegra(self._roots):  # asked each time: its device tree may have been unreadable
            self._leave = ON_JETSON
            self._most.clear()
        found = find_channels(self._sys, self._read, self._leave)
        here = Counter(channel.name for channel in found)
        self._most |= here  # the larger of both counts
        self._gone = tuple(sorted((self._most - here).elements()))
        self._channels = tuple(
            channel if name == channel.name else replace(channel, name=name, scope="rail")
            for channel, name in zip(found, told_apart([c.place for c in found], self._most), strict=True)
        )
        self._scan_due_s = now_s + (RESCAN_MISSING_S if self._gone else RESCAN_S)

    def _look(self, now_s: float, moved: bool = False) -> Gathering:
        """Raises Moved."""
        gathering = Gathering(self.name, now_s)
        gathering.problems += [f"{name}: its device is gone" for name in self._gone]
        for channel in self._channels:
            with attempt_path(gathering, f"{channel.name} ({channel.files[0]})", moved):
                power_w = self._power_w(channel, now_s)
                if power_w is not None:
                    gathering.add("power", channel.name, power_w, channel.scope)
        return gathering

    def _power_w(self, channel: Channel, now_s: float) -> float | None:
        values = [parse_integer(self._read(file)) for file in channel.files]
        power_w: float | None
        if channel.kind == "energy":
            power_w = self._counters.setdefault(channel.name, EnergyCounter()).power_w(now_s, values[0])
        elif channel.kind == "power":
            power_w = values[0] / 1e6
        else:
            if min(values) < 0:  # two wrong signs would make a right one
                raise ValueError(f"expected mV and mA of at least 0, found {values[0]} and {values[1]}")
            power_w = values[0] * values[1] / 1e6
        if power_w is not None:
            check_power(power_w, channel.scope)
        return power_w


def check_power(power_w: float, scope: Scope) -> None:
    """Raises ValueError for what no machine takes; a total of 0 W cannot be, since something runs this."""
    low_w, high_w = PLAUSIBLE_W
    if not low_w <= power_w <= high_w or (power_w == 0 and scope != "rail"):
        wanted = f"{low_w:g} to {high_w:g} W" if scope == "rail" else f"more than 0 and at most {high_w:g} W"
        raise ValueError(f"expected {wanted}, found {power_w:g} W")


def told_apart(places: Sequence[Place], most: Counter[str]) -> Iterator[str]:
    """The places' names, each once. One that there were several of at some time gets its device, and its file where
    that is not enough. Of two totals neither is one (two supplies may share the load): the renamed become rails."""
    of_device = Counter((name, device) for name, device, _ in places)
    for name, device, file in places:
        if most[name] == 1:
            yield name
        else:
            yield f"{name}@{device}" + (f"/{file.partition('_')[0]}" if of_device[name, device] > 1 else "")


def find_channels(sys: Path, read: Reader = read_text, leave: Collection[str] = ()) -> list[Channel]:
    """Every rail of every device but batteries, thermal zones and the chips to `leave`, as their labels call them."""
    channels: list[Channel] = []
    root = sys.resolve()
    for hwmon in sorted((sys / "class/hwmon").glob("hwmon*")):
        # The resolved path holds the device's address: a reload that moves numbers makes it vanish, not change rails.
        folder = hwmon.resolve()
        device = (folder / "device").resolve() if (folder / "device").exists() else folder
        if not _is_supply_or_zone(device, root, read) and not _is_supply_or_zone(folder, root, read):
            channels += [c for c in _device_channels(folder, read) if c.chip not in leave]
    return channels


def device_name(folder: Path, chip: str) -> str:
    """Of a monitor's hwmon folder: its address, which stays when hwmon numbers move; else the chip."""
    return (folder / "device").resolve().name if (folder / "device").exists() else chip or folder.name


def _device_channels(folder: Path, read: Reader) -> Iterator[Channel]:
    chip = optional_text(folder / "name", read)
    device = device_name(folder, chip)
    try:
        present = {entry.name for entry in folder.iterdir()}
    except OSError:  # went away since it was listed
        return
    numbers = sorted({int(m[2]) for m in map(_FILE.fullmatch, present) if m})
    for number in numbers:
        found = _source(folder, number, present, read)
        if found is None or number not in RAILS.get(chip, (number,)):
            continue
        kind, files, label = found
        if label.casefold() in NO_RAIL:
            continue
        yield Channel(
            name=label or f"{chip or device}-{number}",
            chip=chip,
            device=device,
            scope=TOTALS.get((chip, label), "rail"),
            kind=kind,
            files=files,
        )


def _source(
    folder: Path, number: int, present: set[str], read: Reader
) -> tuple[Literal["energy", "power", "volt-ampere"], tuple[Path, ...], str] | None:
    """The best of what channel `number` offers: kind, files, label."""

    def label(kind: str) -> str:
        name = f"{kind}{number}_label"
        if name not in present:
            return ""
        try:
            return read(folder / name).strip()
        except (OSError, ValueError):
            return "nc"  # it may well be: a rail of unknown name is not made up

    if f"energy{number}_input" in present:
        return "energy", (folder / f"energy{number}_input",), label("energy")
    for suffix in ("input", "average"):
        if f"power{number}_{suffix}" in present:
            return "power", (folder / f"power{number}_{suffix}",), label("power")
    if {f"in{number}_input", f"curr{number}_input"} <= present:
        volts, amperes = label("in"), label("curr")
        # A supply's in1 and curr1 may be of different rails (PMBus: vin, iout1); then the labels tell.
        if not volts or not amperes or volts == amperes:
            files = (folder / f"in{number}_input", folder / f"curr{number}_input")
            return "volt-ampere", files, volts or amperes
    return None


def _is_supply_or_zone(path: Path, root: Path, read: Reader) -> bool:
    """A battery's figure is what flows in or out of the battery, a zone's what thermal.py reads already."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts
    if "power_supply" in parts or any(part.startswith("thermal_zone") for part in parts):
        return True
    kinds = ("Battery", "Mains", "UPS", "USB", "Wireless")  # power_supply(5)'s `type`
    return optional_text(path / "type", read) in kinds
