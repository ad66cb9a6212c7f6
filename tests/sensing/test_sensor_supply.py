"""Batteries: what flows while they feed the machine, whichever sign it has, and nothing while mains do."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from trees import put, roots_in

from flyball.config import Sensing
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.supply import SupplySensor
from flyball.sensing.sysfs import read_text


def sensor(folder: Path) -> SupplySensor:
    return SupplySensor(roots_in(folder), Sensing())


def put_supply(folder: Path, name: str, **files: str | int) -> Path:
    supply = folder / f"sys/class/power_supply/{name}"
    for file, text in files.items():
        put(supply / file, text)
    return supply


def put_battery(folder: Path, name: str = "BAT0", status: str = "Discharging", **files: str | int) -> Path:
    return put_supply(folder, name, type="Battery", status=status, **files)


def rows(supply: SupplySensor, now_s: float = 1.0) -> list[tuple[str, float, str]]:
    readings = supply.read(now_s)
    assert all(r.quantity == "power" and r.unit == "W" and r.t_s == now_s for r in readings)
    return [(r.name, r.value, r.scope) for r in readings]


@pytest.mark.parametrize("files", [{"power_now": 9_120_000}, {"power_now": -9_120_000}])
def test_what_a_battery_gives_is_the_machines_power_whatever_its_sign(files: dict[str, int], tmp_path: Path) -> None:
    put_battery(tmp_path, **files)
    assert rows(sensor(tmp_path)) == [("BAT0", 9.12, "machine")]


@pytest.mark.parametrize("current_ua", [800_000, -800_000])
def test_without_a_power_it_is_volts_times_amperes(current_ua: int, tmp_path: Path) -> None:
    put_battery(tmp_path, voltage_now=11_400_000, current_now=current_ua)
    assert rows(sensor(tmp_path)) == [("BAT0", 9.12, "machine")]


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_a_battery_that_does_not_discharge_says_nothing_and_has_not_failed(status: str, tmp_path: Path) -> None:
    put_battery(tmp_path, status=status, voltage_now=12_000_000, current_now=-1_500_000)
    assert rows(sensor(tmp_path)) == []


@pytest.mark.parametrize(("kind", "online"), [("Mains", 1), ("USB", 1), ("USB", 2)])
def test_beside_mains_a_discharging_battery_is_only_a_part(kind: str, online: int, tmp_path: Path) -> None:
    put_battery(tmp_path, power_now=9_120_000)
    mains = put_supply(tmp_path, "AC", type=kind, online=online)
    supply = sensor(tmp_path)
    assert rows(supply) == [("BAT0", 9.12, "rail")]
    put(mains / "online", 0)
    assert rows(supply, 2.0) == [("BAT0", 9.12, "machine")]


def test_mains_that_cannot_be_read_leave_no_total(tmp_path: Path) -> None:
    put_battery(tmp_path, power_now=9_120_000)
    mains = put_supply(tmp_path, "AC", type="Mains", online=0)

    def read(path: Path) -> str:
        if path == mains / "online":
            raise OSError(errno.EIO, "Input/output error")
        return read_text(path)

    assert rows(SupplySensor(replace(roots_in(tmp_path), read=read), Sensing())) == [("BAT0", 9.12, "rail")]


def test_two_batteries_that_share_the_load_are_the_machine_together(tmp_path: Path) -> None:
    put_battery(tmp_path, "BAT0", power_now=6_000_000)
    put_battery(tmp_path, "BAT1", power_now=-2_500_000)
    assert rows(sensor(tmp_path)) == [
        ("BAT0", 6.0, "rail"),
        ("BAT1", 2.5, "rail"),
        ("BAT0+BAT1", 8.5, "machine"),
    ]


@pytest.mark.parametrize(
    ("status", "scope"), [("Not charging", "machine"), ("Full", "machine"), ("Charging", "rail"), ("Unknown", "rail")]
)
def test_a_second_battery_counts_as_what_it_does(status: str, scope: str, tmp_path: Path) -> None:
    put_battery(tmp_path, "BAT0", power_now=6_000_000)
    put_battery(tmp_path, "BAT1", status=status, power_now=0)
    assert rows(sensor(tmp_path)) == [("BAT0", 6.0, scope)]


@pytest.mark.parametrize("broken", ["status", "power_now"])
def test_a_battery_that_cannot_be_read_takes_the_total_with_it_but_not_its_neighbour(
    broken: str, tmp_path: Path
) -> None:
    put_battery(tmp_path, "BAT0", power_now=6_000_000)
    bad = put_battery(tmp_path, "BAT1", power_now=2_500_000)

    def read(path: Path) -> str:
        if path == bad / broken:
            raise OSError(errno.EIO, "Input/output error")
        return read_text(path)

    with pytest.raises(SensorFailed, match=r"BAT1 \(.*\): Input/output error") as caught:
        SupplySensor(replace(roots_in(tmp_path), read=read), Sensing()).read(1.0)
    assert [(r.name, r.value, r.scope) for r in caught.value.readings] == [("BAT0", 6.0, "rail")]


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENODATA])
def test_a_power_that_the_driver_does_not_know_is_no_fault_and_volts_times_amperes_count(
    code: int, tmp_path: Path
) -> None:
    battery = put_battery(tmp_path, power_now=1, voltage_now=12_000_000, current_now=500_000)
    unknown = {battery / "power_now"}

    def read(path: Path) -> str:
        if path in unknown:
            raise OSError(code, "unknown")
        return read_text(path)

    supply = SupplySensor(replace(roots_in(tmp_path), read=read), Sensing())
    assert rows(supply) == [("BAT0", 6.0, "machine")]
    unknown.add(battery / "current_now")
    assert rows(supply, 2.0) == []


def test_a_zero_while_discharging_is_no_reading(tmp_path: Path) -> None:
    put_battery(tmp_path, power_now=0)
    assert rows(sensor(tmp_path)) == []


@pytest.mark.parametrize("files", [{"power_now": "x"}, {"power_now": 2**40}, {"voltage_now": -1, "current_now": 1}])
def test_nonsense_is_told(files: dict[str, int | str], tmp_path: Path) -> None:
    put_battery(tmp_path, **files)
    with pytest.raises(SensorFailed, match="BAT0"):
        sensor(tmp_path).read(1.0)


def test_what_is_no_battery_of_the_machine_is_left_out(tmp_path: Path) -> None:
    put_battery(tmp_path, "hidpp_battery_0", scope="Device", power_now=20_000)
    put_battery(tmp_path, "BAT1", present=0, power_now=5_000_000)
    source = {"type": "USB", "online": 1, "voltage_now": 20_000_000, "current_now": 3_000_000}
    put_supply(tmp_path, "ucsi-source-psy-USBC000:001", **source)
    put_supply(tmp_path, "ups", type="UPS", status="Discharging", power_now=5_000_000)
    with pytest.raises(Unavailable, match="no battery"):
        sensor(tmp_path).read(1.0)


def test_a_battery_that_is_taken_out_is_told(tmp_path: Path) -> None:
    put_battery(tmp_path, "BAT0", power_now=6_000_000)
    taken = put_battery(tmp_path, "BAT1", power_now=2_500_000)
    supply = sensor(tmp_path)
    assert len(rows(supply)) == 3
    shutil.rmtree(taken)
    with pytest.raises(SensorFailed, match="BAT1: the battery is gone") as caught:
        supply.read(2.0)
    assert [(r.name, r.value, r.scope) for r in caught.value.readings] == [("BAT0", 6.0, "machine")]
