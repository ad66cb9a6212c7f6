"""Clocks of processors and devices, and the limits they are under.

/sys/devices/system/cpu/cpufreq/policyN/{scaling_cur_freq,scaling_max_freq|cpuinfo_max_freq} (kHz) -> "cpuN" Hz
/sys/class/devfreq/<device>/{cur_freq,max_freq} (Hz) -> "<device>" Hz

One policy stands for all processors that share a clock; N is the first of them. A clock that is off or not known (0,
"<unknown>") is left out, never 0. Never sets a clock.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Quantity, Reading
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.sysfs import parse_integer

HIGHEST_HZ = 20e9
MOST_POLICIES = 64  # a server has one per processor; more would crowd out the other sensors' readings
NOT_KNOWN = "<unknown>"  # what cpufreq writes where the driver cannot tell


class ClocksSensor:
    name = "clocks"
    fastest_s = 0.5  # it changes over seconds

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._cpus = roots.sys / "devices/system/cpu/cpufreq"
        self._devices = roots.sys / "class/devfreq"
        self._read = roots.read
        self._seen: set[str] = set()

    def read(self, now_s: float) -> Sequence[Reading]:
        policies = _listed(self._cpus, "policy")[:MOST_POLICIES]
        devices = _listed(self._devices, "")
        here = {_cpu(policy): policy for policy in policies} | {device.name: device for device in devices}
        self._seen.update(here)
        if not self._seen:
            raise Unavailable(f"{self._cpus} has no policy and {self._devices} no device: this kernel sets no clocks")
        gathering = Gathering(self.name, now_s)
        gathering.problems += [f"{name}: its clock is gone" for name in sorted(self._seen.difference(here))]
        for policy in policies:
            name = _cpu(policy)
            self._add(gathering, "frequency", name, (policy / "scaling_cur_freq",), 1000)
            limits = (policy / "scaling_max_freq", policy / "cpuinfo_max_freq")
            self._add(gathering, "frequency_limit", name, limits, 1000)
        for device in devices:
            self._add(gathering, "frequency", device.name, (device / "cur_freq",), 1)
            self._add(gathering, "frequency_limit", device.name, (device / "max_freq",), 1)
        return gathering.result()

    def _add(
        self, gathering: Gathering, quantity: Quantity, name: str, files: Sequence[Path], hz_per_unit: int
    ) -> None:
        """Of the first file that is there."""
        for path in files:
            with gathering.attempt(f"{name} ({path})"):
                try:
                    frequency_hz = parse_frequency_hz(self._read(path), hz_per_unit)
                except FileNotFoundError:
                    if path != files[-1] or path.parent.exists():  # a driver need not offer every file
                        continue
                    raise
                except OSError as error:
                    if error.errno == errno.EBUSY:  # all processors of this policy are off line
                        return
                    raise
                if frequency_hz is not None:
                    gathering.add(quantity, name, frequency_hz, "chip")
            return


def parse_frequency_hz(text: str, hz_per_unit: int) -> float | None:
    """None for a clock that is off or not known. Raises ValueError."""
    if text.strip() == NOT_KNOWN:
        return None
    frequency_hz = parse_integer(text) * hz_per_unit
    if not 0 <= frequency_hz <= HIGHEST_HZ:
        raise ValueError(f"expected 0 to {HIGHEST_HZ:g} Hz, found {frequency_hz:g} Hz")
    return frequency_hz or None


def _listed(folder: Path, prefix: str) -> list[Path]:
    """In the order of their numbers; empty where the folder is missing."""
    try:
        names = os.listdir(folder)  # a glob takes several times as long
    except OSError:
        names = []
    return [folder / name for name in sorted(names, key=lambda n: (len(n), n)) if name.startswith(prefix)]


def _cpu(policy: Path) -> str:
    return f"cpu{policy.name.removeprefix('policy')}"
