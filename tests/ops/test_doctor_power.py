"""Supply, throttling, power modes, power sensors and heat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doctor_machine import PI_4, PI_5, SERVICE, Looker, status

from flyball.ops.doctor.power import mode_rank
from flyball.ports import Reading
from flyball.sensing.contract import SensorFailed


@pytest.fixture
def look(tmp_path: Path) -> Looker:
    return Looker(tmp_path)


@pytest.mark.parametrize(
    ("bits", "under", "throttled", "supply"),
    [
        (0x0, "ok", "ok", "ok"),
        (0x50000, "warning", "info", "warning"),
        (0x50005, "error", "warning", "warning"),
        (0x80008, "ok", "warning", "ok"),
        (0x20000, "ok", "info", "ok"),
    ],
)
def test_the_firmware_of_a_pi(look: Looker, bits: int, under: str, throttled: str, supply: str) -> None:
    text = f"{PI_4}\nfirmware/get_throttled: throttled=0x{bits:x}\n"
    assert look("under-voltage", text).severity == under
    assert look("throttled", text).severity == throttled
    assert look("power-supply", text).severity == supply


@pytest.mark.parametrize(
    ("bits", "under", "throttled"),
    [(0x0, "unknown", "unknown"), (0x5, "error", "warning"), (0x50000, "warning", "info")],
)
def test_the_kernels_file_does_not_reach_back_to_the_boot(look: Looker, bits: int, under: str, throttled: str) -> None:
    text = f"{PI_4}\nsys/devices/platform/soc/soc:firmware/get_throttled: {bits:x}\n"
    found = look("under-voltage", text), look("throttled", text)
    assert [f.severity for f in found] == [under, throttled]
    assert all(f.fix == "sudo flyball doctor" for f in found if f.severity == "unknown")


def test_the_alarm_of_a_kernel_that_has_nothing_else(look: Looker) -> None:
    place = "sys/class/hwmon/hwmon1"
    for value, severity in ((1, "error"), (0, "unknown")):
        text = f"{PI_4}\n{place}/name: rpi_volt\n{place}/in0_lcrit_alarm: {value}\n"
        assert look("under-voltage", text).severity == severity
        assert look("throttled", text).severity == "unknown"


def test_a_firmware_that_does_not_answer_is_not_a_board_in_order(look: Looker) -> None:
    for name in ("under-voltage", "throttled", "power-supply"):
        assert look(name, PI_4).severity == "unknown"
        assert look(name, f"{PI_4}\nfirmware/get_throttled: error=1\n").severity == "unknown"
    zero = PI_4.replace("Pi 4 Model B", "Pi Zero 2 W") + "\nfirmware/get_throttled: throttled=0x0\n"
    assert look("under-voltage", zero).severity == "unknown"


def test_a_pi_5_that_does_not_tell_its_supply(look: Looker) -> None:
    assert look("power-supply", f"{PI_5}\nfirmware/get_throttled: throttled=0x0\n").severity == "unknown"


@pytest.mark.parametrize(
    ("cell", "severity", "told"),
    [
        (r"\0\0\x13\x88", "ok", "5000 mA"),
        (r"\0\0\x0b\xb8", "warning", "3000 mA"),
        (r"\0\0\0\0", "unknown", "milliamperes"),
    ],
)
def test_the_supply_of_a_pi_5(look: Looker, cell: str, severity: str, told: str) -> None:
    finding = look("power-supply", f"{PI_5}\nproc/device-tree/chosen/power/max_current: {cell}\n")
    assert (finding.severity, told in finding.found) == (severity, True), finding


NVPMODEL = """
etc/nvpmodel.conf:
| < PARAM TYPE=FILE NAME=CPU_ONLINE >
| < POWER_MODEL ID=0 NAME=15W >
| < POWER_MODEL ID=1 NAME=25W >
| < POWER_MODEL ID=2 NAME=MAXN_SUPER >
| < POWER_MODEL ID=3 NAME=7W >
"""


@pytest.mark.parametrize(
    ("mode", "severity", "told"),
    [("pmode:0002 fmode:quiet", "ok", "MAXN_SUPER"), ("pmode:0000 fmode:cool", "info", "15W"), ("", "unknown", "25W")],
)
def test_the_highest_mode_is_known_by_its_name(look: Looker, mode: str, severity: str, told: str) -> None:
    finding = look("nvpmodel", f"{NVPMODEL}\nvar/lib/nvpmodel/status: {mode}\n")
    assert (finding.severity, told in finding.found) == (severity, True), finding
    if severity == "info":
        assert finding.fix.startswith("sudo nvpmodel -m 2 ")


def test_a_jetson_without_its_modes(look: Looker) -> None:
    assert look("nvpmodel", "etc/nv_tegra_release: # R36 (release)").severity == "unknown"


def test_modes_are_ordered_by_watts_and_maxn_is_above() -> None:
    names = ["7W", "MODE_15W", "MODE_30W_ALL", "MAXN", "MAXN_SUPER"]
    assert sorted(names, key=lambda name: mode_rank(name) or 0) == names
    assert mode_rank("CUSTOM") is None


RAPL = "sys/class/powercap/intel-rapl:0/energy_uj: 1\n"


def test_rapl_that_the_daemon_may_not_read(look: Looker) -> None:
    finding = look("rapl-access", RAPL, account=SERVICE, stat=lambda path: status(0o400))
    assert finding.severity == "warning"
    assert "0440 root flyball" in finding.fix
    assert look("rapl-access", RAPL, account=SERVICE, stat=lambda path: status(0o440, 0, 990)).severity == "ok"
    assert look("rapl-access", RAPL, access=lambda path, mode: False).severity == "warning"


class Scripted:
    """Gives one list of readings after another; an exception is raised."""

    name = "scripted"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def read(self, now_s: float) -> Sequence[Reading]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [msgspec.structs.replace(reading, t_s=now_s) for reading in answer]


def power(scope: Any, name: str = "VDD_IN") -> Reading:
    return Reading(quantity="power", name=name, value=9.25, unit="W", scope=scope, sensor="scripted", t_s=0.0)


@pytest.mark.parametrize(
    ("answers", "severity", "told"),
    [
        (([power("module")],), "ok", "9.25 W (module)"),
        (([], [power("board")]), "ok", "(board)"),  # a counter needs a second read
        (([], [power("estimated")]), "info", "nothing measures power"),
        (([power("rail")], [power("rail")]), "info", "VDD_IN (rail)"),
        (([], SensorFailed("I2C says no")), "unknown", "I2C says no"),
        ((RuntimeError("foreign"), RuntimeError("foreign")), "unknown", "RuntimeError: foreign"),
    ],
)
def test_whether_anything_measures_power(look: Looker, answers: tuple[Any, ...], severity: str, told: str) -> None:
    sensor = Scripted(*answers)
    finding = look("power-sensor", sensors=lambda roots, settings: [sensor])
    assert (finding.severity, told in finding.found) == (severity, True), finding
    assert len(sensor.answers) == 1, "the last answer is for good"


def test_a_sensor_that_hangs_holds_nobody_up(look: Looker) -> None:
    class Hanging:
        name = "hanging"

        def read(self, now_s: float) -> Sequence[Reading]:
            time.sleep(30)
            return ()

    begun_s = time.monotonic()
    finding = look("power-sensor", sensors=lambda roots, settings: [Hanging()])
    assert (finding.severity, "hanging" in finding.found) == ("unknown", True)
    assert time.monotonic() - begun_s < 10


def zone(temp: int | str, *trips: tuple[str, int], number: int = 0) -> str:
    place = f"sys/class/thermal/thermal_zone{number}"
    lines = [f"{place}/type: cpu-thermal", f"{place}/temp{temp}" if isinstance(temp, str) else f"{place}/temp: {temp}"]
    for index, (kind, milli_c) in enumerate(trips):
        lines += [f"{place}/trip_point_{index}_temp: {milli_c}", f"{place}/trip_point_{index}_type: {kind}"]
    return "\n".join(lines) + "\n"


TRIPS = (("active", 40000), ("passive", 85000), ("critical", 110000), ("passive", 0))


@pytest.mark.parametrize(
    ("text", "severity", "told"),
    [
        (zone(48000, *TRIPS), "ok", "37 C left"),
        (zone(81000, *TRIPS), "warning", "slows down from 85 C"),
        (zone(90000, *TRIPS), "warning", "at 90 C"),
        (zone(106000, *TRIPS), "error", "switches off at 110 C"),
        (zone(48000), "unknown", "no thermal zone tells"),
        (zone(" ! EIO", *TRIPS), "unknown", "cpu-thermal"),
        (zone(" ! EAGAIN", *TRIPS), "unknown", "no thermal zone tells"),
        (zone(" ! EIO", *TRIPS) + zone(81000, *TRIPS, number=1), "warning", "slows down"),
    ],
)
def test_trip_points(look: Looker, text: str, severity: str, told: str) -> None:
    finding = look("trip-points", text)
    assert (finding.severity, told in finding.found) == (severity, True), finding
