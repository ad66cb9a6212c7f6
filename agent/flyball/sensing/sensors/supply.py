"""The machine's power while it runs on its batteries.

/sys/class/power_supply/*/{type,scope,status} -> batteries that are discharging
power_now (uW) | voltage_now * current_now (uV * uA) -> W; all together they are the machine

While a battery charges, or mains feed the machine, its figure says nothing of the machine. Drivers differ in the sign,
so the status counts and not the sign. What a USB source promised (ucsi-source-psy) is negotiated, not measured.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.sensors.hwmon import check_power
from flyball.sensing.sysfs import Reader, optional_text, parse_integer

NO_VALUE = (errno.ENOENT, errno.ENODEV, errno.ENODATA)  # ACPI batteries: ENODEV for "unknown" (drivers/acpi/battery.c)


class SupplySensor:
    name = "supply"
    fastest_s = 1.0  # fuel gauges answer over a slow bus, and the ACPI driver keeps its figures for a second

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._folder = roots.sys / "class/power_supply"
        self._read = roots.read
        self._seen: set[str] = set()

    def read(self, now_s: float) -> Sequence[Reading]:
        """Empty while no battery is discharging."""
        supplies = sorted(self._folder.glob("*"))
        batteries = [supply for supply in supplies if _is_system_battery(supply, self._read)]
        self._seen.update(battery.name for battery in batteries)
        if not self._seen:
            raise Unavailable(f"{self._folder} has no battery of this machine")
        gathering = Gathering(self.name, now_s)
        gone = self._seen.difference(battery.name for battery in batteries)
        gathering.problems += [f"{name}: the battery is gone" for name in sorted(gone)]
        drawn: dict[str, float] = {}
        whole = not any(_feeds(supply, self._read) for supply in supplies)
        for battery in batteries:
            complete = False
            with gathering.attempt(f"{battery.name} ({battery})"):
                status = self._read(battery / "status").strip()
                if status == "Discharging":
                    power_w = battery_power_w(battery, self._read)
                    if power_w is not None:
                        check_power(power_w, "rail")
                        drawn[battery.name] = power_w
                        complete = True
                else:
                    complete = status in ("Full", "Not charging")  # nothing flows
            whole = whole and complete
        self._add(gathering, drawn, whole)
        return gathering.result()

    def _add(self, gathering: Gathering, drawn: dict[str, float], whole: bool) -> None:
        """Batteries share the load and do not contain each other: here a sum is right, of all or of none."""
        if whole and len(drawn) == 1:
            (name,) = drawn
            gathering.add("power", name, drawn[name], "machine")
            return
        for name, power_w in drawn.items():
            gathering.add("power", name, power_w, "rail")
        if whole and drawn:
            gathering.add("power", "+".join(drawn), sum(drawn.values()), "machine")


def battery_power_w(battery: Path, read: Reader) -> float | None:
    """The size of what flows, whichever way. None where the driver has no figure, or 0: a gauge takes seconds to find
    one after the plug is pulled. Raises OSError, ValueError."""
    power_uw = _optional_integer(battery / "power_now", read)
    if power_uw is not None:
        power_w = abs(power_uw) / 1e6
    else:
        volts_uv = _optional_integer(battery / "voltage_now", read)
        amperes_ua = _optional_integer(battery / "current_now", read)
        if volts_uv is None or amperes_ua is None:
            return None
        if volts_uv < 0:
            raise ValueError(f"expected a voltage_now of at least 0 uV, found {volts_uv}")
        power_w = volts_uv * abs(amperes_ua) / 1e12
    return power_w or None


def _optional_integer(path: Path, read: Reader) -> int | None:
    try:
        return parse_integer(read(path))
    except OSError as error:
        if error.errno in NO_VALUE:
            return None
        raise


def _is_system_battery(supply: Path, read: Reader) -> bool:
    """Not that of a mouse or a headset, whose `scope` is "Device", and not an empty bay."""
    return (
        optional_text(supply / "type", read).strip() == "Battery"
        and optional_text(supply / "scope", read).strip() != "Device"
        and optional_text(supply / "present", read).strip() != "0"
    )


def _feeds(supply: Path, read: Reader) -> bool:
    """Whether it feeds the machine from outside: mains or USB with `online` 1 (fixed) or 2 (programmable). One that
    cannot be read counts as such: then no total is claimed."""
    if optional_text(supply / "type", read).strip() == "Battery":
        return False
    try:
        return read(supply / "online").strip() != "0"
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
