"""Under what conditions a rung was measured: which machine, and what else it did meanwhile.

device tree, procfs, sysfs -> Machine
/proc/stat, /proc/PID/stat before and after -> share of the processors that others used
cpufreq, devfreq before and after -> limits that dropped
readings of throttling, limits and temperature during the run -> seconds throttled, reasons against the run

Reads only, and looks at no process but Flyball's own. What cannot be read is None or empty, never 0.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball.ladder.profile import Machine
from flyball.ports import UNITS, Quantity, Reading
from flyball.sensing.alarms import OVER_CURRENT_PER_S, SINCE_BOOT, SLOWING
from flyball.sensing.board import identify
from flyball.sensing.contract import Roots
from flyball.sensing.energy import PowerSource
from flyball.sensing.sampler import stale_after_s
from flyball.sensing.sysfs import optional_text

OTHERS_MOST = 0.05  # of all processors' time: more, and it was not the rung alone that was measured
_LIMIT_DROP = 0.01  # relative: less is rounding of the kernel's
_PROFILE = "firmware/acpi/platform_profile"
_FLAGS: tuple[Quantity, ...] = ("throttled", "alarm")
_LIMITED: dict[Quantity, float] = {
    "over_current": OVER_CURRENT_PER_S,
    "cooling": 0.01,
}  # from here on the run is not valid


# ------------------------------------------------------------------------------------------------------- machine


def machine(roots: Roots) -> Machine:
    board = identify(roots)
    return Machine(
        board=board.name,
        arch=board.arch,
        kernel=optional_text(roots.proc / "sys/kernel/osrelease"),
        cpu=_cpu_model(roots),
        cpus=board.cpus,
        soc=board.soc,
        power_mode=board.tegra.power_mode if board.tegra else optional_text(roots.sys / _PROFILE),
        cpu_governor=optional_text(roots.sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def on_battery(roots: Roots) -> bool:
    """Whether a battery is being discharged."""
    return any(
        optional_text(supply / "type") == "Battery"
        and optional_text(supply / "status") == "Discharging"
        and optional_text(supply / "scope") != "Device"  # a mouse's
        for supply in sorted((roots.sys / "class/power_supply").glob("*"))
    )


def _cpu_model(roots: Roots) -> str:
    try:
        text = (roots.proc / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


# ---------------------------------------------------------------------------------------------------- processors


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorTime:
    """Ticks since boot, all processors together. Stolen time counts as busy: another guest had the processor."""

    total: int
    busy: int
    own: int  # of Flyball and of its workers, those that have ended included


def processor_time(proc: Path, pid: int) -> ProcessorTime | None:
    """`pid` is Flyball's. None where procfs does not tell."""
    try:
        with open(proc / "stat", encoding="ascii") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]  # guests' time stands in user and nice
        total, idle = sum(ticks), ticks[3] + ticks[4]
        own = sum(_ticks(proc, pid)) + sum(sum(_ticks(proc, child)[:2]) for child in children(proc, pid))
    except (OSError, ValueError, IndexError):
        return None
    return ProcessorTime(total=total, busy=total - idle, own=own)


def others_share(before: ProcessorTime | None, after: ProcessorTime | None) -> float | None:
    """Of all processors' time in between, what others used: 0 to 1; None when not known."""
    if before is None or after is None or after.total <= before.total:
        return None
    others = (after.busy - before.busy) - (after.own - before.own)
    return min(max(others / (after.total - before.total), 0.0), 1.0)  # ticks are rounded, process by process


def children(proc: Path, pid: int) -> list[int]:
    """Of all threads of the process; raises OSError."""
    found = []
    for task in (proc / str(pid) / "task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def peak_resident_bytes(proc: Path, pids: Iterable[int]) -> int | None:
    """The largest resident sets so far, added up (VmHWM); None when one of them cannot be read, or there is none."""
    total = 0
    for pid in pids:
        try:
            text = (proc / str(pid) / "status").read_text()
        except OSError:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
        if found is None:
            return None
        total += int(found[1]) * 1024
    return total or None


def _ticks(proc: Path, pid: int) -> list[int]:
    """utime, stime, and those of its children that have ended (proc(5)). The name before them may hold anything."""
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


# ------------------------------------------------------------------------------------------------- frequency limits


def frequency_limits(roots: Roots) -> dict[str, float]:
    """Hz, by processor cluster and by devfreq device (GPU, memory): what the kernel may clock them to just now."""
    places = [(p.name, p / "scaling_max_freq", 1e3) for p in roots.sys.glob("devices/system/cpu/cpufreq/policy*")]
    places += [(d.name, d / "max_freq", 1.0) for d in roots.sys.glob("class/devfreq/*")]
    texts = {name: (optional_text(file), unit) for name, file, unit in places}
    return {name: int(text) * unit for name, (text, unit) in texts.items() if text.isdecimal()}


def dropped(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """One line for each limit that is lower than it was."""
    return [
        f"the frequency limit of {name} dropped from {limit_hz / 1e6:.0f} to {after[name] / 1e6:.0f} MHz"
        for name, limit_hz in sorted(before.items())
        if name in after and after[name] < limit_hz * (1 - _LIMIT_DROP)
    ]


# ------------------------------------------------------------------------------------------------------- readings


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """What the sensors saw in a window of time. `throttled_s` is None when nothing here tells of throttling all through
    it; `unseen` then names the sensors that told only of a part."""

    throttled_s: float | None
    temperature_max_c: float | None
    reasons: tuple[str, ...]
    unseen: tuple[str, ...] = ()


def disturbance(source: PowerSource, known: Sequence[Reading], start_s: float, end_s: float) -> Disturbance:
    """`known`: the readings of before and after, which name what there is to look for."""
    quantities: tuple[Quantity, ...] = (*_FLAGS, *_LIMITED, "frequency_limit", "temperature")
    sensors = {q: {r.name: r.sensor for r in known if r.quantity == q and _of_now(r)} for q in quantities}

    def within(quantity: Quantity, name: str) -> list[tuple[float, float]]:
        return [(t_s, value) for t_s, value in source.samples(quantity, name, start_s) if t_s <= end_s]

    reasons: list[str] = []
    throttled_s: list[float] = []
    unseen: dict[str, None] = {}
    for quantity in _FLAGS:
        for name, sensor in sorted(sensors[quantity].items()):
            samples = within(quantity, name)
            up_s = flagged_s(samples, end_s)
            if up_s is not None:
                reasons.append(f"{quantity} ({name}) for {up_s:.1f} s of the run")
            if quantity != "throttled":
                continue
            if up_s is not None or seen_whole(source.period_s(sensor), samples, start_s, end_s):
                throttled_s.append(up_s or 0.0)
            else:
                unseen[sensor] = None
    for quantity, limit in _LIMITED.items():
        for name in sorted(sensors[quantity]):
            samples = within(quantity, name)
            highest = max((value for _, value in samples), default=0.0)
            if samples and highest >= limit:
                reasons.append(f"{quantity} ({name}) reached {highest:g} {UNITS[quantity]}")
            if quantity == "cooling":  # it tells that the kernel slows something down, not that nothing else does
                up_s = flagged_s([(t_s, float(value >= limit)) for t_s, value in samples], end_s)
                throttled_s += [up_s] if up_s is not None else []
    for name in sorted(sensors["frequency_limit"]):
        values = [value for _, value in within("frequency_limit", name)]
        if values:
            reasons += dropped({name: values[0]}, {name: min(values)})
    hottest = [value for name in sensors["temperature"] for _, value in within("temperature", name)]
    known_s = max(throttled_s, default=None)
    return Disturbance(
        throttled_s=None if unseen and not known_s else known_s,
        temperature_max_c=max(hottest, default=None),
        reasons=tuple(reasons),
        unseen=tuple(unseen),
    )


def seen_whole(period_s: float, samples: Sequence[tuple[float, float]], start_s: float, end_s: float) -> bool:
    """Whether a sensor with this period answered from start to end, and was never silent for so long as to be stale."""
    times_s = [start_s, *(t_s for t_s, _ in samples), end_s]
    return bool(samples) and max(b - a for a, b in itertools.pairwise(times_s)) <= stale_after_s(period_s)


def _of_now(reading: Reading) -> bool:
    """What happened since boot did not happen during the run, and a fan slows nothing down."""
    return not reading.name.endswith(SINCE_BOOT) and (
        reading.quantity != "cooling" or bool(SLOWING.search(reading.name))
    )


def flagged_s(samples: Sequence[tuple[float, float]], end_s: float) -> float | None:
    """How long a flag was up: from each sample that says so to the next one, or to the end. None when it never was."""
    until_s = [t_s for t_s, _ in samples[1:]] + [end_s]
    up = [b - t_s for (t_s, value), b in zip(samples, until_s, strict=False) if value]
    return math.fsum(up) if up else None
