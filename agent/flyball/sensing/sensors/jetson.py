"""Power rails, GPU load, over-current events, fan and memory clock of a Jetson.

INA3221 (JetPack <= 4: iio; >= 5: hwmon), INA238 -> rails (W), and the module's total where its rails give one
/sys/devices/*gpu*/load -> utilization;  soctherm_oc -> events per second;  pwmfan -> fan;  debugfs -> EMC clock

Which rails make up a module's total is a table of facts, not a sum of whatever is there: on AGX Orin a fourth rail is
downstream of one of the three. A total is given whole or not at all. The rail that feeds CPU and GPU keeps its name: it
is not "GPU power". hwmon.py leaves these monitors to this module, which looks for them and tells of them as that does.
Never run on hardware, only on captured facts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Reading, Scope
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.sensors.hwmon import (
    NO_RAIL,
    RESCAN_MISSING_S,
    RESCAN_S,
    Moved,
    Place,
    attempt_path,
    check_power,
    device_name,
    told_apart,
)
from flyball.sensing.sysfs import Reader, optional_text, parse_integer
from flyball.sensing.tegra import tegra

MOST_HZ = 100e9

# Upstream of everything else on the module, by themselves.
ALONE = frozenset({"VDD_IN", "POM_5V_IN", "VIN"})
# By SoC: rails that together are the module, none of them downstream of another. AGX Orin's VDDQ_VDD2_1V8AO very likely
# hangs on VIN_SYS_5V0 (both read 4968 mV): adding it would count it twice.
TOGETHER: dict[str, tuple[str, ...]] = {
    "tegra234": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    "tegra194": ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
}
# INA3221 (datasheet): steps of 8 mV and 40 uV across the shunt; 1 % stands for the gain of amplifier and shunt.
_BUS_STEP_V, _SHUNT_STEP_V, _GAIN = 0.008, 40e-6, 0.01

_LOADS = (
    "gpu.0", "platform/gpu.0", "platform/bus@0/17000000.gpu", "platform/17000000.gpu", "17000000.gv11b",
    "17000000.ga10b", "platform/17000000.gv11b", "platform/17000000.ga10b",
)  # fmt: skip
_EMC_CLOCKS = ("kernel/debug/bpmp/debug/clk/emc/rate", "kernel/debug/clk/emc/clk_rate")  # for root only


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """`files`: the power's in mW (iio) or uW (INA238), or the voltage's and the current's in mV and mA."""

    name: str
    device: str
    scope: Scope
    files: tuple[Path, ...]
    watts_per_unit: float  # of the one file, or of the product of two
    shunt_ohm: float | None = None

    @property
    def place(self) -> Place:
        return self.name, self.device, self.files[0].name

    def measure(self, read: Reader) -> tuple[float, float | None]:
        """Watts and their relative uncertainty: half a step of voltage and current, and the gain; None where the shunt
        is not known. Raises OSError, ValueError."""
        values = [parse_integer(read(file)) for file in self.files]
        if min(values) < 0:  # two wrong signs would make a right one
            raise ValueError(f"expected figures of at least 0, found {', '.join(map(str, values))}")
        power_w = math.prod(values) * self.watts_per_unit
        check_power(power_w, self.scope)
        if self.shunt_ohm is None or len(values) != 2 or not power_w:
            return power_w, None
        volts, amperes = values[0] / 1e3, values[1] / 1e3
        return power_w, min(
            1.0, math.hypot(_SHUNT_STEP_V / self.shunt_ohm / 2 / amperes, _BUS_STEP_V / 2 / volts, _GAIN)
        )


class JetsonSensor:
    name = "jetson"
    fastest_s = 0.01  # a register takes 554 us on the bus: 100 readings a second are the most

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._sys = roots.sys
        self._roots = roots
        self._read = roots.read
        self._soc = ""  # of a Jetson, once its device tree was read
        self._rails: tuple[Rail, ...] = ()
        self._others: tuple[tuple[str, str, Path], ...] = ()
        self._most: Counter[str] = Counter()  # by name: how many rails there were at once
        self._seen_others: set[tuple[str, str]] = set()
        self._gone: tuple[str, ...] = ()  # of both, in words
        self._scan_due_s = -math.inf
        self._events: dict[str, tuple[float, int]] = {}  # counts of over-current events, and when they were read

    def read(self, now_s: float) -> Sequence[Reading]:
        if not self._soc:
            found = tegra(self._roots)
            self._soc = found.soc if found else ""
        if not self._soc:
            raise Unavailable("the device tree names no Jetson")
        if now_s >= self._scan_due_s:
            self._scan(now_s)
        if not self._most and not self._seen_others:
            raise Unavailable(f"no monitor of this Jetson ({self._soc}) is here")
        try:
            return self._look(now_s).result()
        except Moved:  # devices were renumbered since the last search: where they are now, they are read at once
            self._scan(now_s)
            return self._look(now_s, moved=True).result()

    def _scan(self, now_s: float) -> None:
        found = tuple(find_rails(self._sys, self._read, self._soc))
        here = Counter(rail.name for rail in found)
        self._most |= here  # the larger of both counts
        self._rails = tuple(
            rail if name == rail.name else replace(rail, name=name, scope="rail")
            for rail, name in zip(found, told_apart([rail.place for rail in found], self._most), strict=True)
        )
        self._others = tuple(_others(self._sys, self._read))
        others = {(kind, name) for kind, name, _ in self._others}
        self._seen_others |= others
        gone = [f"{name}: its monitor is gone" for name in (self._most - here).elements()]
        gone += [f"{kind} ({name}): its file is gone" for kind, name in self._seen_others - others]
        self._gone = tuple(sorted(gone))
        self._scan_due_s = now_s + (RESCAN_MISSING_S if gone else RESCAN_S)

    def _look(self, now_s: float, moved: bool = False) -> Gathering:
        """Raises Moved."""
        gathering = Gathering(self.name, now_s)
        gathering.problems += self._gone
        self._power(gathering, moved)
        for kind, name, path in self._others:
            with attempt_path(gathering, f"{kind} ({path})", moved):
                self._other(gathering, kind, name, parse_integer(self._read(path)), now_s)
        return gathering

    def _power(self, gathering: Gathering, moved: bool) -> None:
        watts: dict[str, float] = {}
        for rail in self._rails:
            with attempt_path(gathering, f"{rail.name} ({rail.files[0]})", moved):
                watts[rail.name], uncertainty = rail.measure(self._read)
                gathering.add("power", rail.name, watts[rail.name], rail.scope, uncertainty)
        parts = TOGETHER.get(self._soc, ())
        if parts and all(part in watts for part in parts):
            with gathering.attempt("the module's total"):
                total_w = sum(watts[part] for part in parts)
                check_power(total_w, "module")
                gathering.add("power", "+".join(parts), total_w, "module", _uncertainty(gathering, parts, total_w))

    def _other(self, gathering: Gathering, kind: str, name: str, value: int, now_s: float) -> None:
        """Raises ValueError."""
        if kind == "load":
            if not 0 <= value <= 1000:
                raise ValueError(f"expected 0 to 1000 per mille, found {value}")
            gathering.add("utilization", name, value / 1000, "chip")
        elif kind == "fan":
            if not 0 <= value <= 255:
                raise ValueError(f"expected 0 to 255, found {value}")
            gathering.add("fan", name, value / 255, "chip")
        elif kind == "clock":
            if not 0 < value <= MOST_HZ:
                raise ValueError(f"expected more than 0 and at most {MOST_HZ:g} Hz, found {value}")
            gathering.add("frequency", name, value, "chip")
        else:
            self._over_current(gathering, name, value, now_s)

    def _over_current(self, gathering: Gathering, name: str, count: int, now_s: float) -> None:
        """Events a second since the last read; the count itself tells little, since Orin has thousands under load."""
        last = self._events.get(name)
        self._events[name] = (now_s, count)
        if last is not None and count >= last[1] and now_s > last[0]:
            gathering.add("over_current", name, (count - last[1]) / (now_s - last[0]), "chip")


def _uncertainty(gathering: Gathering, parts: Sequence[str], total_w: float) -> float | None:
    """Of a sum: monitors of one kind err alike, so that their errors add up. None where one is not known."""
    rails = [r for r in gathering.readings if r.name in parts]
    if any(rail.value and rail.uncertainty is None for rail in rails):
        return None
    return sum(rail.value * (rail.uncertainty or 0.0) for rail in rails) / total_w


def _others(sys: Path, read: Reader) -> Iterator[tuple[str, str, Path]]:
    """What is not a rail: (load, fan, clock or over-current; name; file)."""
    load = next((p for p in (sys / "devices" / place / "load" for place in _LOADS) if p.exists()), None)
    if load is not None:
        yield "load", "gpu", load
    fans = 0
    for folder in sorted((sys / "class/hwmon").glob("hwmon*")):
        chip = optional_text(folder / "name", read)
        if chip == "soctherm_oc":
            for path in sorted(folder.glob("oc*_event_cnt")):
                yield "over-current", path.name.partition("_")[0], path
        elif chip == "pwmfan" and (folder / "pwm1").exists():
            fans += 1
            yield "fan", "fan" if fans == 1 else f"fan-{fans}", folder / "pwm1"
    emc = next((sys / place for place in _EMC_CLOCKS if optional_text(sys / place, read)), None)
    if emc is not None:  # absent, or for root only, otherwise
        yield "clock", "emc", emc


def find_rails(sys: Path, read: Reader, soc: str) -> Iterator[Rail]:
    """Rails of every power monitor of a Jetson, whichever driver; unlabelled and unconnected channels are left out."""
    for folder in sorted((sys / "class/hwmon").glob("hwmon*")):
        chip = optional_text(folder / "name", read)
        if chip == "ina3221":
            yield from _ina3221(folder.resolve(), read)
        elif chip in ("ina238", "ina219") and (folder / "power1_input").exists():
            label = optional_text(folder / "in1_label", read) or optional_text(folder / "label", read)
            device, file = device_name(folder.resolve(), chip), folder.resolve() / "power1_input"
            # On a Thor the one at the input bears no label; elsewhere an unlabelled one may be anything's.
            name = label or ("VIN" if chip == "ina238" and soc == "tegra264" else f"{chip}@{device}")
            yield Rail(name=name, device=device, scope=_scope(name), files=(file,), watts_per_unit=1e-6)
    for folder in sorted((sys / "bus/i2c/drivers/ina3221x").glob("*/iio:device*")):
        for number in range(3):
            label = optional_text(folder / f"rail_name_{number}", read).strip()
            power = folder / f"in_power{number}_input"
            if label and label.casefold() not in NO_RAIL and power.exists():
                device = folder.parent.name
                yield Rail(name=label, device=device, scope=_scope(label), files=(power,), watts_per_unit=1e-3)


def _scope(label: str) -> Scope:
    return "module" if label in ALONE else "rail"


def _ina3221(folder: Path, read: Reader) -> Iterator[Rail]:
    device = device_name(folder, "ina3221")
    for number in (1, 2, 3):  # in4 to in6 are shunt microvolts, in7 their sum
        label = optional_text(folder / f"in{number}_label", read).strip()
        files = (folder / f"in{number}_input", folder / f"curr{number}_input")
        if label and label.casefold() not in NO_RAIL and all(file.exists() for file in files):
            shunt = re.fullmatch(r"[1-9]\d{0,6}", optional_text(folder / f"shunt{number}_resistor", read))
            shunt_ohm = int(shunt[0]) / 1e6 if shunt else None
            yield Rail(
                name=label,
                device=device,
                scope=_scope(label),
                files=files,
                watts_per_unit=1e-6,
                shunt_ohm=shunt_ohm,
            )
