"""The power that goes in, and whether anything measures it.

the Pi's firmware, device tree, RAPL, every sensor -> Verdict
"""

from __future__ import annotations

import re

from flyball.clock import SystemClock
from flyball.ops.doctor.devices import is_raspberry_pi
from flyball.ops.doctor.finding import Verdict, error, info, ok, unknown, warning
from flyball.ops.doctor.machine import Machine, must_exist
from flyball.sensing.board import identify
from flyball.sensing.firmware import ask
from flyball.sensing.probe import probe
from flyball.sensing.sensors.raspberry import THROTTLED_PLACES, parse_throttled
from flyball.sensing.sysfs import optional_text, parse_integer
from flyball.sensing.total import explain_no_total, total_power

UNDER_VOLTAGE = 0  # bits of get_throttled; 16 higher: the same since boot
CAPPED, THROTTLED, SOFT_LIMIT = 1, 2, 3
SINCE_BOOT = 16
PI_5_MA = 5000  # with less, a Pi 5 allows its USB ports 600 mA in all and may brown out under load
_SUPPLY = "# use the board's own supply (5.1 V; 5 A for a Pi 5) with a short, thick cable"
_COOLING = "# a heat sink or fan, more room around the board, or a rung that takes less"
_ASK_AS_ROOT = "sudo flyball doctor"


def throttled_bits(machine: Machine) -> tuple[int, bool]:
    """get_throttled, and whether its bits 16-19 reach back to the last boot: the firmware's do, those of the kernel's
    file are cleared every two seconds (`flyball.sensing.sensors.raspberry`). Raises OSError, ValueError."""
    try:
        firmware = machine.roots.firmware
        return parse_throttled(firmware("get_throttled") if firmware else ask("get_throttled", machine.roots.dev)), True
    except OSError:
        for file in (file for place in THROTTLED_PLACES for file in sorted(machine.roots.sys.glob(place))):
            return parse_throttled(machine.roots.read(file)), False
        raise


def has_bit(bits: int, bit: int) -> bool:
    return bool(bits >> bit & 1)


def check_under_voltage(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    if not is_raspberry_pi(machine):
        return ok("not a Raspberry Pi")
    if identify(machine.roots).name.startswith("Raspberry Pi Zero"):
        return unknown("this board has no detector")
    try:
        bits, since_boot = throttled_bits(machine)
    except OSError:
        alarm = _alarm(machine)
        if alarm is None:
            raise
        bits, since_boot = alarm << UNDER_VOLTAGE, False
    if has_bit(bits, UNDER_VOLTAGE):
        return error("the supply's voltage is too low now", _SUPPLY)
    if has_bit(bits, UNDER_VOLTAGE + SINCE_BOOT):
        return warning("the supply's voltage was too low since the last boot", _SUPPLY)
    if not since_boot:
        return unknown("not now; whether it was since the last boot only the firmware tells", _ASK_AS_ROOT)
    return ok("none since the last boot")


def _alarm(machine: Machine) -> int | None:
    """Of the driver rpi_volt; None without it. Raises OSError, ValueError."""
    for hwmon in sorted((machine.roots.sys / "class/hwmon").glob("hwmon*")):
        if optional_text(hwmon / "name", machine.roots.read) == "rpi_volt":
            return parse_integer(machine.roots.read(hwmon / "in0_lcrit_alarm")) & 1
    return None


def check_throttled(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    if not is_raspberry_pi(machine):
        return ok("not a Raspberry Pi")
    bits, since_boot = throttled_bits(machine)
    names = {CAPPED: "clock capped", THROTTLED: "throttled", SOFT_LIMIT: "at the soft temperature limit"}
    now = [name for bit, name in names.items() if has_bit(bits, bit)]
    before = [name for bit, name in names.items() if has_bit(bits, bit + SINCE_BOOT)]
    if now:
        return warning(f"now: {', '.join(now)}", _COOLING)
    if before:
        return info(f"since the last boot: {', '.join(before)}", _COOLING)
    if not since_boot:
        return unknown("not now; whether it was since the last boot only the firmware tells", _ASK_AS_ROOT)
    return ok("not since the last boot")


def check_power_supply(machine: Machine) -> Verdict:
    """What a Pi 5 has agreed with its supply; of other Pis only whether the voltage held.

    Raises OSError, ValueError.
    """
    if not is_raspberry_pi(machine):
        return ok("not a Raspberry Pi")
    file = machine.roots.proc / "device-tree/chosen/power/max_current"
    if file.exists():
        word = file.read_bytes()  # a cell of the device tree: 32 bits, big endian, no text
        limit_ma = int.from_bytes(word[:4], "big")
        if len(word) < 4 or limit_ma == 0:
            return unknown(f"{file}: expected milliamperes, found {word.hex() or 'nothing'}")
        if limit_ma < PI_5_MA:
            return warning(f"the supply gives {limit_ma} mA, less than {PI_5_MA}", _SUPPLY)
        return ok(f"{limit_ma} mA")
    if identify(machine.roots).name.startswith("Raspberry Pi 5"):
        return unknown(f"{file} is not there")
    held = check_under_voltage(machine)
    if held.severity == "unknown":
        return held
    if held.severity != "ok":
        return warning("too weak for this board: under-voltage was seen", _SUPPLY)
    return ok("this board does not know its supply; the voltage held since the last boot")


def check_rapl_access(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    files = sorted((must_exist(machine.roots.sys / "class") / "powercap").glob("intel-rapl:*/energy_uj"))
    if not files:
        return ok("no RAPL here")
    account = machine.known_account()
    closed = [file for file in files if not machine.can_open(file, write=False)]
    if not closed:
        return ok(f"{account.name} may read {files[0]}")
    rule = f"z /sys/class/powercap/intel-rapl:*/energy_uj 0440 root {_group(account.is_service)} -"
    conf = "/etc/tmpfiles.d/flyball-rapl.conf"
    fix = f'echo "{rule}" | sudo tee {conf} && sudo systemd-tmpfiles --create {conf}'
    return warning(f"{account.name} may not read {closed[0]}", fix)


def _group(is_service: bool) -> str:
    return "flyball" if is_service else "$(id -gn)"


def check_power_sensor(machine: Machine) -> Verdict:
    """Asks every sensor; one that hangs is told like one that fails."""
    readings, states = probe(machine.sensors(machine.roots, machine.settings().sensing), SystemClock())
    problems = [f"{h.sensor}: {h.reason}" for h in states if h.state in ("failed", "stale") or not h.reads]
    total = total_power(readings)
    if total is not None and total.scope != "estimated":
        return ok(f"{total.sensor} measures {total.value:.2f} W ({total.scope})")
    measured = [r for r in readings if r.quantity == "power" and r.scope != "estimated"]
    why = explain_no_total(measured) if measured else "nothing measures power here"
    if problems:
        return unknown(f"{why}; some sensors failed: {'; '.join(problems)}", "flyball status")
    return info(
        f"{why}; the machine's power is an estimate", "# measure idle_w and load_w at the socket, for [sensing]"
    )


def check_nvpmodel(machine: Machine) -> Verdict:
    """By name: the numbers follow no order (an Orin Nano has 15W, 25W, MAXN_SUPER and 7W). Raises OSError."""
    conf = machine.roots.etc / "nvpmodel.conf"
    if not conf.exists():
        jetson = "nvidia" in identify(machine.roots).vendor or (machine.roots.etc / "nv_tegra_release").exists()
        return unknown(f"{conf} is not there") if jetson else ok("not a Jetson")
    text = conf.read_text(encoding="utf-8", errors="replace")
    modes = {int(number): name for number, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", text)}
    status = optional_text(machine.roots.var / "lib/nvpmodel/status", machine.roots.read)
    match = re.search(r"pmode:(\d+)", status)
    ranks = {name: rank for name in modes.values() if (rank := mode_rank(name)) is not None}
    if match is None or int(match[1]) not in modes or not ranks:
        known = ", ".join(modes.values()) or "none"
        return unknown(f"the mode is not known (modes: {known}; status: {status or 'nothing'})", "sudo nvpmodel -q")
    current = modes[int(match[1])]
    highest = max(ranks.values())
    if ranks.get(current) == highest:
        return ok(current)
    number, best = next((n, name) for n, name in modes.items() if ranks.get(name) == highest)
    return info(f"{current}; the highest is {best}", f"sudo nvpmodel -m {number}  # may ask for a reboot")


def mode_rank(name: str) -> float | None:
    """Watts of the name of a mode, more than any for MAXN, a little more for MAXN_SUPER; None where it tells none."""
    if name.upper().startswith("MAXN"):
        return 1e6 + len(name)
    match = re.search(r"(\d+)W", name.upper())
    return float(match[1]) if match else None
