"""Power from hardware monitors: the right files, the right rails, and never a made-up zero."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import put, put_hwmon, roots_in

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.hwmon import LONGEST_AVERAGE_S, EnergyCounter, HwmonSensor, check_power
from flyball.sensing.sysfs import read_text


def sensor(folder: Path) -> HwmonSensor:
    return HwmonSensor(roots_in(folder), Sensing())


def watts(readings: object) -> dict[str, float]:
    assert isinstance(readings, (list, tuple))
    assert all(isinstance(r, Reading) and r.quantity == "power" and r.unit == "W" for r in readings)
    return {r.name: round(r.value, 6) for r in readings}


INA3221 = {
    "name": "ina3221",
    "in1_label": "VDD_IN",
    "in1_input": 4984,
    "curr1_input": 1856,
    "in2_label": "VDD_SOC",
    "in2_input": 4976,
    "curr2_input": 376,
    "in7_label": "sum of shunt voltages",
    "in7_input": 760,
    "curr7_input": 5,
}


def test_no_monitor_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no device that measures power"):
        sensor(tmp_path).read(1.0)
    put_hwmon(tmp_path, 0, {"name": "coretemp", "temp1_input": 40000, "in1_input": 1200})
    with pytest.raises(Unavailable):
        sensor(tmp_path).read(1.0)


def test_energy_is_preferred_to_power_and_power_to_volts_times_amperes(tmp_path: Path) -> None:
    files = {"name": "chip", "power1_input": 7_000_000, "in1_input": 5000, "curr1_input": 1000}
    files |= {"energy2_input": 10_000_000, "power2_input": 9_000_000, "in3_input": 5000, "curr3_input": 1000}
    files |= {"power4_average": 3_000_000}
    folder = put_hwmon(tmp_path, 0, files)
    hwmon = sensor(tmp_path)
    assert watts(hwmon.read(10.0)) == {"chip-1": 7.0, "chip-3": 5.0, "chip-4": 3.0}
    put(folder / "energy2_input", 15_000_000)
    assert watts(hwmon.read(12.0)) == {"chip-1": 7.0, "chip-2": 2.5, "chip-3": 5.0, "chip-4": 3.0}


@pytest.mark.parametrize("label", ["VDD_IN", "POM_5V_IN"])
def test_the_input_of_a_jetson_is_the_modules_total_and_nc_is_no_rail(label: str, tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, {**INA3221, "in1_label": label, "in3_label": "NC", "in3_input": 0, "curr3_input": 0})
    assert {r.name: r.scope for r in sensor(tmp_path).read(1.0)} == {label: "module", "VDD_SOC": "rail"}


def test_the_same_label_on_another_chip_is_no_total(tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, {**INA3221, "name": "ina226"})
    assert {r.scope for r in sensor(tmp_path).read(1.0)} == {"rail"}


def test_of_two_totals_neither_is_one(tmp_path: Path) -> None:
    for number in range(2):
        put_hwmon(tmp_path, number, {"name": "power_meter", "power1_average": 50_000_000}, f"acpi/ACPI000D:0{number}")
    found = sensor(tmp_path).read(1.0)
    assert {(r.name, r.scope) for r in found} == {
        ("power_meter-1@ACPI000D:00", "rail"),
        ("power_meter-1@ACPI000D:01", "rail"),
    }


def test_volts_and_amperes_of_different_rails_are_not_multiplied(tmp_path: Path) -> None:
    files = {"name": "psu", "in1_label": "vin", "in1_input": 230000, "curr1_label": "iout1", "curr1_input": 9000}
    put_hwmon(tmp_path, 0, files)
    with pytest.raises(Unavailable):
        sensor(tmp_path).read(1.0)


@pytest.mark.parametrize("place", ["acpi/power_supply/BAT0", "virtual/thermal/thermal_zone0"])
def test_batteries_and_zones_are_ignored_by_their_path(place: str, tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, {"name": "x", "power1_input": 9_000_000}, place)
    with pytest.raises(Unavailable):
        sensor(tmp_path).read(1.0)


def test_a_battery_is_ignored_by_its_type_where_links_were_lost(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/hwmon/hwmon0"
    put(folder / "name", "BAT0")
    put(folder / "power1_input", 9_000_000)
    put(folder / "device/type", "Battery")
    with pytest.raises(Unavailable):
        sensor(tmp_path).read(1.0)


def remove(tmp_path: Path, folder: Path, number: int) -> None:
    shutil.rmtree(folder)
    (tmp_path / f"sys/class/hwmon/hwmon{number}").unlink()


def test_a_driver_that_comes_back_is_found_within_a_second(tmp_path: Path) -> None:
    folder = put_hwmon(tmp_path, 1, INA3221)
    hwmon = sensor(tmp_path)
    assert watts(hwmon.read(1.0))["VDD_IN"] == 9.250304
    remove(tmp_path, folder, 1)
    for now_s in (2.0, 2.5):
        with pytest.raises(SensorFailed, match="VDD_IN: its device is gone") as caught:
            hwmon.read(now_s)
        assert caught.value.readings == ()
    put_hwmon(tmp_path, 5, INA3221)
    assert watts(hwmon.read(3.6)) == {"VDD_IN": 9.250304, "VDD_SOC": 1.870976}


def test_devices_that_change_numbers_cost_no_read(tmp_path: Path) -> None:
    folder = put_hwmon(tmp_path, 1, INA3221)
    hwmon = sensor(tmp_path)
    hwmon.read(1.0)
    remove(tmp_path, folder, 1)
    put_hwmon(tmp_path, 5, INA3221)
    assert watts(hwmon.read(2.0)) == {"VDD_IN": 9.250304, "VDD_SOC": 1.870976}


def test_a_bus_that_is_not_free_is_told(tmp_path: Path) -> None:
    """EAGAIN says of a thermal zone that it is powered down, and of an I2C bus that another master had it."""
    put_hwmon(tmp_path, 1, INA3221)

    def read(path: Path) -> str:
        if path.name == "curr1_input":
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return read_text(path)

    hwmon = HwmonSensor(replace(roots_in(tmp_path), read=read), Sensing())
    with pytest.raises(SensorFailed, match=r"VDD_IN .*temporarily unavailable") as caught:
        hwmon.read(1.0)
    assert watts(caught.value.readings) == {"VDD_SOC": 1.870976}


def test_a_rail_that_is_gone_is_told_for_as_long_as_it_is(tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, INA3221)
    other = put_hwmon(tmp_path, 1, {"name": "ina226", "power1_input": 1_000_000})
    hwmon = sensor(tmp_path)
    assert len(hwmon.read(1.0)) == 3
    shutil.rmtree(other)
    for now_s in (2.0, 3.0, 100.0):
        with pytest.raises(SensorFailed, match="ina226-1") as caught:
            hwmon.read(now_s)
        assert set(watts(caught.value.readings)) == {"VDD_IN", "VDD_SOC"}


def test_a_second_chip_of_the_same_name_is_told_apart_and_nothing_is_gone(tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, {"name": "ina226", "power1_input": 1_000_000})
    hwmon = sensor(tmp_path)
    assert watts(hwmon.read(1.0)) == {"ina226-1": 1.0}
    second = put_hwmon(tmp_path, 1, {"name": "ina226", "power1_input": 2_000_000})
    both = {"ina226-1@1-0040": 1.0, "ina226-1@1-0041": 2.0}
    assert watts(hwmon.read(100.0)) == both
    remove(tmp_path, second, 1)
    with pytest.raises(SensorFailed, match=r"^ina226-1: its device is gone$") as caught:
        hwmon.read(101.0)
    assert watts(caught.value.readings) == {"ina226-1@1-0040": 1.0}


def test_the_total_that_is_left_of_two_is_still_none(tmp_path: Path) -> None:
    """Two supplies share the load: with one of them unreadable, the other's figure is half of the machine's."""
    files: dict[str, str | bytes | int] = {"name": "power_meter", "power1_average": 50_000_000}
    folders = [put_hwmon(tmp_path, number, files, f"acpi/ACPI000D:0{number}") for number in range(2)]
    hwmon = sensor(tmp_path)
    hwmon.read(1.0)
    remove(tmp_path, folders[1], 1)
    with pytest.raises(SensorFailed, match="power_meter-1: its device is gone") as caught:
        hwmon.read(2.0)
    assert [r.scope for r in caught.value.readings] == ["rail"]


def test_two_channels_of_one_chip_with_one_label_are_told_apart(tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, {**INA3221, "in2_label": "VDD_IN"})
    found = sensor(tmp_path).read(1.0)
    assert watts(found) == {"VDD_IN@1-0040/in1": 9.250304, "VDD_IN@1-0040/in2": 1.870976}
    assert {r.scope for r in found} == {"rail"}


@pytest.mark.parametrize("content", ["", "garbage", "-1", "4294967295", str(2**64 - 1), b"\xff\xff\xff\xff", "12.5"])
def test_a_broken_file_is_named_and_gives_no_reading(content: str | bytes, tmp_path: Path) -> None:
    folder = put_hwmon(tmp_path, 0, {"name": "ina226", "power1_input": content, "power2_input": 2_000_000})
    with pytest.raises(SensorFailed, match=f"ina226-1 .{folder.resolve()}/power1_input") as caught:
        sensor(tmp_path).read(1.0)
    assert watts(caught.value.readings) == {"ina226-2": 2.0}


@pytest.mark.parametrize(("volts", "amperes"), [(-5000, -1000), (5000, -1), (0xFFFF, 0xFFFF)])
def test_wrong_signs_and_all_ones_are_no_power(volts: int, amperes: int, tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, {"name": "x", "in1_input": volts, "curr1_input": amperes})
    with pytest.raises(SensorFailed):
        sensor(tmp_path).read(1.0)


def test_a_total_of_zero_is_refused_and_a_rail_may_be_off(tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, {**INA3221, "curr1_input": 0, "curr2_input": 0})
    with pytest.raises(SensorFailed, match="more than 0") as caught:
        sensor(tmp_path).read(1.0)
    assert watts(caught.value.readings) == {"VDD_SOC": 0.0}


def test_a_disabled_channel_is_left_out(tmp_path: Path) -> None:
    put_hwmon(tmp_path, 0, INA3221)

    def read(path: Path) -> str:
        if path.name == "in2_input":
            raise OSError(errno.ENODATA, "disabled")
        return read_text(path)

    assert set(watts(HwmonSensor(replace(roots_in(tmp_path), read=read), Sensing()).read(1.0))) == {"VDD_IN"}


@given(
    st.lists(
        st.tuples(
            st.floats(min_value=-1, max_value=2 * LONGEST_AVERAGE_S), st.integers(min_value=-(10**6), max_value=10**9)
        ),
        max_size=30,
    )
)
def test_a_counter_never_gives_zero_or_less_nor_more_than_was_counted(steps: list[tuple[float, int]]) -> None:
    counter, now_s, energy_uj = EnergyCounter(), 100.0, 10**9
    spent_uj, given_j = 0, 0.0
    last_s: float | None = None
    for step_s, step_uj in steps:
        now_s, energy_uj = now_s + step_s, energy_uj + step_uj
        spent_uj += max(step_uj, 0)
        power_w = counter.power_w(now_s, energy_uj)
        if power_w is not None:
            assert power_w > 0
            if last_s is not None:
                given_j += power_w * min(now_s - last_s, step_s) if step_s > 0 else 0.0
        last_s = now_s
    assert given_j <= spent_uj / 1e6 * (1 + 1e-9) + 1e-9


def test_a_counter_that_stands_still_or_wraps_gives_nothing() -> None:
    counter = EnergyCounter()
    assert counter.power_w(0.0, 1_000_000) is None
    assert counter.power_w(1.0, 1_000_000) is None
    assert counter.power_w(2.0, 5_000_000) == 2.0  # over both seconds
    assert counter.power_w(3.0, 1_000) is None
    assert counter.power_w(4.0, 3_001_000) == 3.0
    assert counter.power_w(4.0 + LONGEST_AVERAGE_S + 1, 9_000_000) is None


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_implausible_power_passes(power_w: float) -> None:
    try:
        check_power(power_w, "module")
    except ValueError:
        return
    assert 0 < power_w <= 3000
