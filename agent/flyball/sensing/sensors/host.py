"""The machine's processor, memory and load. The only module that imports psutil.

/proc/{stat,meminfo,loadavg} -> psutil -> readings named "machine"

Looks at no process, so the cost does not grow with their number. Never waits for an interval to pass.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from flyball.config import Sensing
from flyball.ports import Quantity, Reading
from flyball.sensing.contract import Roots, SensorFailed, Unavailable
from flyball.sensing.sysfs import describe, read_text

# What psutil raises on files that are missing, cut short or not what it expects.
_ERRORS = (OSError, ValueError, LookupError, TypeError, psutil.Error)

_LOADAVG = re.compile(r"([0-9]{1,9}\.[0-9]{2}) [0-9.]+ [0-9.]+ ([0-9]{1,9})/[0-9]+ ", re.ASCII)

_psutil_lock = threading.Lock()  # psutil takes its root from a variable of its own, and sensors run in threads


@contextmanager
def _psutil_reading(proc: Path) -> Iterator[None]:
    with _psutil_lock:
        before, psutil.PROCFS_PATH = psutil.PROCFS_PATH, str(proc)
        try:
            yield
        finally:
            psutil.PROCFS_PATH = before


class CpuShares(NamedTuple):
    """Of all processors' time, 0 to 1. `busy` holds `steal`, what a hypervisor gave to others meanwhile; None when its
    counter ran backwards, as it does after some migrations."""

    busy: float
    steal: float | None


class CpuUtilization:
    """What became of all processors' time between two calls. Waiting for I/O counts as idle, stolen time as busy."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        # idle, stolen, total; seconds since boot, summed over processors
        self._last: tuple[float, float, float] | None = None

    def since_last(self) -> CpuShares | None:
        """None at the first call and when no time was counted in between. Raises OSError, ValueError."""
        try:
            with _psutil_reading(self._proc):
                times = psutil.cpu_times()
        except (LookupError, TypeError) as error:  # fewer columns than the kernel writes
            raise ValueError(f"{self._proc}/stat: not what the kernel writes: {error}") from error
        # Guests' time stands in user and nice already (proc(5)).
        total_s: float = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle_s: float = times.idle + getattr(times, "iowait", 0.0)
        steal_s: float = getattr(times, "steal", 0.0)
        if not (math.isfinite(total_s) and math.isfinite(idle_s)):
            raise ValueError(f"{self._proc}/stat: expected finite times, found {total_s} s in all, {idle_s} s idle")
        last, self._last = self._last, (idle_s, steal_s, total_s)
        if last is None or total_s <= last[2]:
            return None
        passed_s = total_s - last[2]
        # iowait may run backwards (proc(5)), so that the idle share can leave 0..1 by a tick.
        busy = min(max(1.0 - (idle_s - last[0]) / passed_s, 0.0), 1.0)
        return CpuShares(busy, min((steal_s - last[1]) / passed_s, busy) if steal_s >= last[1] else None)


class HostSensor:
    name = "host"
    fastest_s = 0.5  # what it tells changes over seconds, and a read of cold files takes 0.3 ms of a core
    phase = 0.37  # with the other sensors' threads awake at the same moment, 1.3 runnable tasks were counted for none

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._proc = roots.proc
        self._cpu = CpuUtilization(roots.proc)

    def read(self, now_s: float) -> Sequence[Reading]:
        readings: list[Reading] = []
        problems: list[str] = []
        absent = 0
        parts: tuple[tuple[str, Callable[[float], list[Reading]]], ...] = (
            ("stat", self._utilization),
            ("meminfo", self._memory),
            ("loadavg", self._load),
        )
        for file, part in parts:
            try:
                readings += part(now_s)
            except FileNotFoundError:
                absent += 1
                problems.append(f"{self._proc / file}: no such file")
            except _ERRORS as error:
                problems.append(f"{self._proc / file}: {describe(error)}")
        if absent == len(parts):
            raise Unavailable(f"{self._proc} has none of stat, meminfo and loadavg; is procfs mounted?")
        if problems:
            raise SensorFailed("; ".join(problems), readings)
        return readings

    def _utilization(self, now_s: float) -> list[Reading]:
        shares = self._cpu.since_last()
        if shares is None:
            return []
        found = [self._reading("cpu_utilization", shares.busy, "ratio", now_s)]
        if shares.steal is not None:
            found.append(self._reading("cpu_steal", shares.steal, "ratio", now_s))
        return found

    def _memory(self, now_s: float) -> list[Reading]:
        with _psutil_reading(self._proc):
            memory = psutil.virtual_memory()
        # psutil puts 0 for an available figure that it could not work out; a machine that runs this has some.
        if not 0 < memory.available <= memory.total:
            raise ValueError(f"expected 0 < available <= total, found {memory.available} of {memory.total} B")
        return [
            self._reading("memory_total", memory.total, "B", now_s),
            self._reading("memory_available", memory.available, "B", now_s),
            self._reading("memory_used", memory.total - memory.available, "B", now_s),
        ]

    def _load(self, now_s: float) -> list[Reading]:
        # os.getloadavg() knows no root.
        load, runnable = parse_loadavg(read_text(self._proc / "loadavg"))
        return [
            self._reading("load_1m", load, "tasks", now_s),
            self._reading("runnable", runnable, "tasks", now_s),
        ]

    def _reading(self, quantity: Quantity, value: float, unit: str, now_s: float) -> Reading:
        return Reading(
            quantity=quantity,
            name="machine",
            value=float(value),
            unit=unit,
            scope="machine",
            sensor=self.name,
            t_s=now_s,
        )


def parse_loadavg(text: str) -> tuple[float, int]:
    """The load average of one minute, and how many tasks run or are ready to run at this moment, without the one that
    reads. The latter is procs_running of /proc/stat, which costs far more to read. It is a sample, not an average:
    its mean over many reads says something, a single one hardly does. Raises ValueError."""
    match = _LOADAVG.match(text)
    if match is None:
        raise ValueError(f"expected '0.50 0.40 0.30 1/100 ...', found {text[:40]!r}")
    return float(match[1]), max(0, int(match[2]) - 1)
