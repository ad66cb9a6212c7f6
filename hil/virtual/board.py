"""The virtual board's knobs: power monitors on a simulated I2C bus, and thermal zones.

millivolts, milliamperes, errno, milliseconds -> registers of the chips, faults of the bus -> the kernel's own drivers

Runs on the board, as root. Needs the drivers that README.md names; writes only to what belongs to them.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

INA3221, INA226 = 0x40, 0x41  # addresses on the bus
DRIVERS = {INA3221: "ina3221", INA226: "ina2xx"}
CHIPS = {INA3221: "ina3221", INA226: "ina226"}
SHUNT_MOHM = 10  # what both drivers take without a device tree


def ina3221_bus(mv: int) -> int:
    """The bus voltage register: bits 15-3, 8 mV each (data sheet SBOS576, 8.6.2.3)."""
    return (mv // 8) << 3


def ina3221_shunt(ma: int) -> int:
    """The shunt voltage register: bits 15-3 in two's complement, 40 uV each."""
    return (ma * SHUNT_MOHM // 40 << 3) & 0xFFFF


class Board:
    """Raises RuntimeError when the drivers are not there."""

    def __init__(self) -> None:
        for module in ("hil_i2c", "hil_thermal", "ina3221", "ina2xx"):
            subprocess.run(["modprobe", module], check=False, stderr=subprocess.DEVNULL)
        found = sorted(Path("/sys/devices/platform").glob("*/i2c-*"))
        knobs = [bus for bus in found if (bus.parent / "fault").exists() and (bus.parent / "set").exists()]
        if not knobs:
            raise RuntimeError("no simulated I2C bus (set, fault, delay) below /sys/devices/platform: see README.md")
        self._knobs = knobs[0].parent
        self.bus = int(knobs[0].name.partition("-")[2])
        missing = [name for name in DRIVERS.values() if not Path(f"/sys/bus/i2c/drivers/{name}").is_dir()]
        if missing:
            raise RuntimeError(f"no driver {', '.join(missing)} below /sys/bus/i2c/drivers: see README.md")

    # ------------------------------------------------------------------------------------------------- chips

    def add_chips(self) -> None:
        for address, chip in CHIPS.items():
            if not self.device(address).exists():
                (self.device(address).parent / f"i2c-{self.bus}/new_device").write_text(f"{chip} {address:#x}")

    def device(self, address: int) -> Path:
        return Path(f"/sys/bus/i2c/devices/{self.bus}-{address:04x}")

    def hwmon(self, address: int) -> Path:
        """Raises ValueError when the driver is not bound."""
        (folder,) = (self.device(address) / "hwmon").glob("hwmon*")
        return folder

    def unbind(self, address: int) -> None:
        Path(f"/sys/bus/i2c/drivers/{DRIVERS[address]}/unbind").write_text(self.device(address).name)

    def bind(self, address: int) -> None:
        Path(f"/sys/bus/i2c/drivers/{DRIVERS[address]}/bind").write_text(self.device(address).name)

    # --------------------------------------------------------------------------------------------- registers

    def rail(self, channel: int, mv: int, ma: int) -> None:
        """Channel 1 to 3 of the INA3221."""
        self._set(INA3221, 2 * channel, ina3221_bus(mv))
        self._set(INA3221, 2 * channel - 1, ina3221_shunt(ma))

    def ina226(self, mv: int, ma: int) -> None:
        """1.25 mV, 2.5 uV, 0.25 mA and 6.25 mW each (data sheet SBOS547, with the driver's calibration)."""
        self._set(INA226, 2, mv * 4 // 5)
        self._set(INA226, 1, ma * SHUNT_MOHM * 2 // 5)
        self._set(INA226, 4, ma * 4)
        self._set(INA226, 3, mv * ma // 6250)

    def _set(self, address: int, register: int, value: int) -> None:
        (self._knobs / "set").write_text(f"{address} {register} {value}")

    # ------------------------------------------------------------------------------------------------ faults

    def fault(self, address: int, name: str) -> None:
        """Every transfer to that address fails so ("EIO"); "" ends it."""
        (self._knobs / "fault").write_text(f"{address} {getattr(errno, name) if name else 0}")

    def delay(self, ms: int) -> None:
        """Every transfer takes so much longer."""
        (self._knobs / "delay").write_text(str(ms))

    def zone(self, number: int, milli_c: int | None) -> None:
        """None: its read fails with EIO."""
        value = -100_000 if milli_c is None else milli_c
        Path(f"/sys/module/hil_thermal/parameters/mc{number}").write_text(str(value))

    def quiet(self) -> None:
        """No fault and no delay, drivers bound, channels on."""
        self.delay(0)
        steps: list[Callable[[], None]] = []
        for address in CHIPS:
            self.fault(address, "")
            if not (self.device(address) / "hwmon").is_dir():
                steps.append(lambda address=address: self.bind(address))  # type: ignore[misc]
        for step in steps:
            step()
        for channel in (1, 2, 3):
            (self.hwmon(INA3221) / f"in{channel}_enable").write_text("1")

    def describe(self) -> list[str]:
        """Which drivers these are, for a transcript."""
        told = [f"kernel {os.uname().release} {os.uname().version}, {os.uname().machine}"]
        for address in CHIPS:
            driver = (self.device(address) / "driver").resolve()
            module = (driver / "module").resolve().name
            name = (self.hwmon(address) / "name").read_text().strip()
            place = f"{self.device(address).name}, {self.hwmon(address).name}"
            told.append(f"{place}: driver {driver.name} (module {module}), name {name}")
        return told
