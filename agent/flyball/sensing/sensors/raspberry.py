"""The Raspberry Pi: what holds it back, what its supply may give, and on the Pi 5 what its power chip (PMIC) measures.

sysfs get_throttled | firmware -> bits -> latch -> flags (rpi_volt's alarm where neither answers)
firmware pmic_read_adc -> V * A of every rail -> W;  device tree -> A that the supply promised

The sum of the PMIC's rails leaves out USB, HATs and NVMe and is never a total (scope "chip"); its published correction
is the board's (scope "board", one person's measurement of one board). The firmware is only ever asked, never told:
get_throttled with an argument would clear its memory. Starts no process but the one that `firmware` may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.board import Board, identify
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.firmware import ask
from flyball.sensing.sysfs import optional_text, parse_integer

LOOK_AGAIN_S = 600.0  # a board does not become another one; its device tree may have been unreadable

THROTTLED_PLACES = (
    "devices/platform/soc/soc:firmware/get_throttled",
    "devices/platform/soc@*/*firmware*/get_throttled",
    "devices/platform/*firmware*/get_throttled",
)
CAUSES = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")  # bits 0-3, since boot 16-19
NOW_BITS = 0x0000_000F
SINCE_BOOT_BITS = 0x000F_0000

PMIC_SOC = "bcm2712"
CORRECTED_BOARD = "Raspberry Pi 5 Model B"  # a 500 and a CM5 have the chip and another board around it
CORRECTION = (1.1451, 0.5879)  # W = 1.1451 * sum + 0.5879
CORRECTION_UNCERTAINTY = 0.15  # assumed: one person, one board
PLAUSIBLE_W = (0.0, 50.0)  # the largest supply gives 27 W; something runs this, so that 0 is no figure either
NO_CURRENT = ("EXT5V_V", "BATT_V")  # voltages of what comes in: the PMIC has no current of these

HIGHEST_V = 30.0  # at its input: supplies for USB-C give 20 V at most without the extended range

PLAUSIBLE_BUDGET_MA = 10_000
USB_BUDGET_A = (0.6, 1.6)  # the maker's table of power supplies: all ports of a Pi 5, below 5 A and at 5 A

_THROTTLED = re.compile(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})")
_ADC = re.compile(r"\s*(\S+)_([AV])\s+(?:current|volt)\([0-9]+\)=([0-9]+(?:\.[0-9]+)?)([AV])\s*")


@dataclass(slots=True)
class Latch:
    """Keeps what get_throttled forgets, and shows what came and went between two reads.

    The firmware's own answer holds the bits 16-19 until the next boot; the kernel's file holds them for two seconds,
    since the driver rpi_volt clears them at each of its polls. So either is asked for what is new in it, by source.
    """

    last: dict[str, int] = field(default_factory=dict)
    since_boot: int = 0

    def take(self, source: str, bits: int) -> int:
        """The bits as they should be reported. What the first read finds in 16-19 is of unknown age, not of now."""
        new = bits & ~self.last.get(source, SINCE_BOOT_BITS) & SINCE_BOOT_BITS
        self.last[source] = bits
        self.since_boot |= (bits & SINCE_BOOT_BITS) | (bits & NOW_BITS) << 16
        return (bits & NOW_BITS) | new >> 16 | self.since_boot


class RaspberrySensor:
    name = "raspberry"
    # The firmware serves one question at a time, the kernel's own included, and what happens between two is latched.
    fastest_s = 1.0

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._roots = roots
        self._ask: Callable[[str], str] = roots.firmware or partial(ask, dev=roots.dev)
        self._board: Board | None = None
        self._throttled_paths: list[Path] = []
        self._look_due_s = float("-inf")
        self._latch = Latch()
        self._pmic_seen = False

    def read(self, now_s: float) -> Sequence[Reading]:
        board = self._look(now_s)
        if not _is_raspberry(board):
            raise Unavailable(f"this machine is no Raspberry Pi ({board.name})")
        gathering = Gathering(self.name, now_s)
        # The Zero range has no detector: a 0 there would say that all is well, and nobody knows.
        detector = board.name.startswith("Raspberry Pi") and not board.name.startswith("Raspberry Pi Zero")
        bits = self._throttled_bits(gathering)
        if bits is not None:
            for cause, value in flags(bits):
                if detector or not cause.startswith("under_voltage"):
                    gathering.add("throttled", cause, value, "board")
        elif detector:
            self._add_alarms(gathering)
        if board.soc.startswith(PMIC_SOC):
            self._add_pmic(gathering, corrected=board.name.startswith(CORRECTED_BOARD))
            self._add_budget(gathering)
        if not gathering.readings and not gathering.problems:
            raise Unavailable(f"{board.name}: this kernel has neither get_throttled, nor rpi_volt, nor /dev/vcio")
        return gathering.result()

    def _look(self, now_s: float) -> Board:
        if self._board is None or now_s >= self._look_due_s:
            sys = self._roots.sys
            board = identify(self._roots)
            if self._board is None or not _is_raspberry(self._board):  # a look that fails makes it no other board
                self._board = board
            self._throttled_paths = [path for place in THROTTLED_PLACES for path in sorted(sys.glob(place))]
            self._look_due_s = now_s + LOOK_AGAIN_S
        return self._board

    def _throttled_bits(self, gathering: Gathering) -> int | None:
        """Of the first source that answers. The kernel's file comes first: it asks nobody and needs no device."""
        for source, text in self._throttled_sources():
            with gathering.attempt(f"get_throttled ({source})"):
                try:
                    bits = parse_throttled(text())
                except FileNotFoundError:
                    continue
                return self._latch.take(source, bits)
        if self._latch.last and not gathering.problems:
            gathering.problems.append("get_throttled: nothing answers any more")
        return None

    def _throttled_sources(self) -> Iterator[tuple[str, Callable[[], str]]]:
        for path in self._throttled_paths:
            yield str(path.relative_to(self._roots.sys)), partial(self._roots.read, path)
        yield "firmware", partial(self._ask, "get_throttled")

    def _add_alarms(self, gathering: Gathering) -> None:
        read = self._roots.read
        for hwmon in sorted((self._roots.sys / "class/hwmon").glob("hwmon*")):
            if optional_text(hwmon / "name", read) == "rpi_volt":
                path = hwmon / "in0_lcrit_alarm"
                with gathering.attempt(f"under-voltage ({path})"):
                    gathering.add("alarm", "under_voltage", parse_flag(read(path)), "board")

    def _add_pmic(self, gathering: Gathering, *, corrected: bool) -> None:
        with gathering.attempt("pmic_read_adc"):
            try:
                adc = parse_adc(self._ask("pmic_read_adc"))
            except FileNotFoundError:
                if self._pmic_seen:
                    raise
                return
            self._pmic_seen = True
            for name in NO_CURRENT:
                if name in adc:
                    with gathering.attempt(f"pmic_read_adc {name}"):
                        gathering.add("voltage", name, input_v(adc[name]), "rail")
            sum_w = rails_w(adc)
            if corrected:
                gathering.add("power", "pmic_corrected", board_w(sum_w), "board", CORRECTION_UNCERTAINTY)
            gathering.add("power", "pmic", sum_w, "chip")

    def _add_budget(self, gathering: Gathering) -> None:
        """What the supply promised over USB-C and what the ports may take of it, in the device tree of a Pi 5."""
        power = self._roots.proc / "device-tree/chosen/power"
        for name, file, amperes in BUDGETS:
            with gathering.attempt(f"{name} ({power / file})"):
                try:
                    budget_a = amperes(first_cell((power / file).read_bytes()))
                except FileNotFoundError:
                    continue
                if budget_a > 0:  # 0 mA: there was no promise
                    gathering.add("current", name, budget_a, "board")


def _is_raspberry(board: Board) -> bool:
    return board.vendor == "raspberrypi" or board.name.startswith("Raspberry Pi")


def supply_a(milliamperes: int) -> float:
    """Raises ValueError for more than any supply gives."""
    if milliamperes > PLAUSIBLE_BUDGET_MA:
        raise ValueError(f"expected at most {PLAUSIBLE_BUDGET_MA} mA, found {milliamperes}")
    return milliamperes / 1000


def usb_a(enabled: int) -> float:
    """Of all ports together. Raises ValueError."""
    if enabled not in (0, 1):
        raise ValueError(f"expected 0 or 1, found {enabled}")
    return USB_BUDGET_A[enabled]


BUDGETS: tuple[tuple[str, str, Callable[[int], float]], ...] = (
    ("psu_budget", "max_current", supply_a),
    ("usb_budget", "usb_max_current_enable", usb_a),
)


def flags(bits: int) -> Iterator[tuple[str, int]]:
    """Name and 0 or 1 of every bit that get_throttled has."""
    for place, cause in enumerate(CAUSES):
        yield cause, bits >> place & 1
        yield f"{cause}_since_boot", bits >> (place + 16) & 1


def parse_throttled(text: str) -> int:
    """The bits of "throttled=0x50000" (the firmware) or "50000" (the kernel's file). Raises ValueError."""
    match = _THROTTLED.fullmatch(text.strip())
    bits = int(match[1], 16) if match else -1
    if not 0 <= bits < 0xFFFF_FFFF:  # all ones is what a bus reads where nobody answers
        raise ValueError(f"expected bits in hexadecimal such as throttled=0x50000, found {text[:40]!r}")
    return bits


def parse_flag(text: str) -> int:
    """0 or 1. Raises ValueError."""
    value = parse_integer(text)
    if value not in (0, 1):
        raise ValueError(f"expected 0 or 1, found {value}")
    return value


def parse_adc(text: str) -> Mapping[str, float]:
    """The answer to pmic_read_adc: name with _A or _V -> amperes or volts. Raises ValueError, which tells the line."""
    adc: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _ADC.fullmatch(line)
        if match is None or match[2] != match[4]:
            raise ValueError(f"line {number}: expected 'RAIL_A current(0)=0.1A' or '_V volt', found {line[:60]!r}")
        name = f"{match[1]}_{match[2]}"
        if name in adc:
            raise ValueError(f"line {number}: {name} stands there twice")
        adc[name] = float(match[3])
    return adc


def input_v(volts: float) -> float:
    """Raises ValueError for more than the board stands."""
    if volts > HIGHEST_V:
        raise ValueError(f"expected at most {HIGHEST_V:g} V, found {volts:g} V")
    return volts


def rails_w(adc: Mapping[str, float]) -> float:
    """Watts that the rails deliver together. A sum that lacks a rail is no figure: ValueError names it."""
    currents = {name[:-2] for name in adc if name.endswith("_A")}
    voltages = {name[:-2] for name in adc if name.endswith("_V") and name not in NO_CURRENT}
    if currents != voltages or not currents:
        lacking = [f"{rail}_V" for rail in currents - voltages] + [f"{rail}_A" for rail in voltages - currents]
        raise ValueError(f"the answer is incomplete, without {', '.join(sorted(lacking)) or 'any rail'}")
    sum_w = sum(adc[f"{rail}_A"] * adc[f"{rail}_V"] for rail in sorted(currents))
    if not PLAUSIBLE_W[0] < sum_w <= PLAUSIBLE_W[1]:
        raise ValueError(f"expected more than {PLAUSIBLE_W[0]:g} and at most {PLAUSIBLE_W[1]:g} W, found {sum_w:g} W")
    return sum_w


def board_w(sum_w: float) -> float:
    """Watts of the whole Pi 5 from the sum of its rails, as published for one board (+- 15 % assumed here)."""
    slope, offset_w = CORRECTION
    return slope * sum_w + offset_w


def first_cell(data: bytes) -> int:
    """The first cell of a device tree property: 32 bits, the most significant byte first. Raises ValueError."""
    if len(data) < 4:
        raise ValueError(f"expected 4 bytes, found {len(data)}")
    return int.from_bytes(data[:4], "big")
