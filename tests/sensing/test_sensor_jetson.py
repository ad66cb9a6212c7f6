"""A Jetson's rails: whole totals or none, no rail twice, no power for what did not answer."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from trees import put, put_hwmon, roots_in

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.hwmon import HwmonSensor
from flyball.sensing.sensors.jetson import JetsonSensor
from flyball.sensing.sysfs import read_text
from flyball.sensing.total import total_power


def jetson(folder: Path, soc: str = "tegra234") -> JetsonSensor:
    put(folder / "proc/device-tree/compatible", f"nvidia,{soc}\0".encode())
    return JetsonSensor(roots_in(folder), Sensing())


def put_rails(folder: Path, rails: dict[str, tuple[int, int]], **more: str | int) -> Path:
    files: dict[str, str | bytes | int] = {"name": "ina3221", **more}
    for number, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files |= {f"in{number}_label": label, f"in{number}_input": millivolts, f"curr{number}_input": milliamperes}
    return put_hwmon(folder, 1, files)


def watts(readings: object) -> dict[str, float]:
    assert isinstance(readings, (list, tuple))
    return {r.name: round(r.value, 6) for r in readings if r.quantity == "power"}


ORIN = {"VDD_GPU_SOC": (12008, 280), "VDD_CPU_CV": (12008, 40), "VIN_SYS_5V0": (4968, 980)}


def test_on_no_jetson_it_is_absent_and_hwmon_reads_the_same_chip(tmp_path: Path) -> None:
    put_rails(tmp_path, {"VDD_IN": (5000, 1000)})
    with pytest.raises(Unavailable, match="names no Jetson"):
        JetsonSensor(roots_in(tmp_path), Sensing()).read(1.0)
    assert watts(HwmonSensor(roots_in(tmp_path), Sensing()).read(1.0)) == {"VDD_IN": 5.0}


def test_on_a_jetson_hwmon_leaves_the_monitor_alone(tmp_path: Path) -> None:
    put_rails(tmp_path, {"VDD_IN": (5000, 1000)})
    assert watts(jetson(tmp_path).read(1.0)) == {"VDD_IN": 5.0}
    with pytest.raises(Unavailable):
        HwmonSensor(roots_in(tmp_path), Sensing()).read(1.0)


def test_a_total_is_given_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = put_rails(tmp_path, ORIN)
    sensor = jetson(tmp_path)
    total = total_power(sensor.read(1.0))
    assert total is not None
    assert (round(total.value, 4), total.scope) == (8.7112, "module")
    put(folder / "curr2_input", "")
    with pytest.raises(SensorFailed, match="VDD_CPU_CV") as caught:
        sensor.read(2.0)
    assert watts(caught.value.readings) == {"VDD_GPU_SOC": 3.36224, "VIN_SYS_5V0": 4.86864}
    assert total_power(caught.value.readings) is None


@pytest.mark.parametrize(("millivolts", "milliamperes"), [(-5000, -1000), (5000, -8), (0, 0)])
def test_a_total_that_cannot_be_is_refused(millivolts: int, milliamperes: int, tmp_path: Path) -> None:
    put_rails(tmp_path, {"VDD_IN": (millivolts, milliamperes)})
    with pytest.raises(SensorFailed, match="VDD_IN") as caught:
        jetson(tmp_path).read(1.0)
    assert caught.value.readings == ()


def test_the_uncertainty_follows_from_the_steps_and_the_shunt(tmp_path: Path) -> None:
    put_rails(tmp_path, {"VDD_IN": (5000, 1000)}, shunt1_resistor=5000)
    (reading,) = [r for r in jetson(tmp_path).read(1.0) if r.quantity == "power"]
    # half of 8 mA in 1 A, half of 8 mV in 5 V, 1 % of gain
    assert reading.uncertainty == pytest.approx((0.004**2 + 0.0008**2 + 0.01**2) ** 0.5)


def test_a_monitor_that_vanishes_is_told(tmp_path: Path) -> None:
    folder = put_rails(tmp_path, ORIN)
    sensor = jetson(tmp_path)
    sensor.read(1.0)
    (folder / "name").unlink()
    with pytest.raises(SensorFailed, match="VDD_CPU_CV: its monitor is gone"):
        sensor.read(100.0)


def test_a_device_tree_that_was_unreadable_at_first_makes_it_a_jetson_later(tmp_path: Path) -> None:
    put_rails(tmp_path, {"VDD_IN": (5000, 1000)})
    put(tmp_path / "proc/device-tree/compatible", b"nvidia,tegra234\0")
    full = True

    def read(path: Path) -> str:
        if full and path.name == "compatible":
            raise OSError(errno.EMFILE, "Too many open files")
        return read_text(path)

    roots = replace(roots_in(tmp_path), read=read)
    sensor, other = JetsonSensor(roots, Sensing()), HwmonSensor(roots, Sensing())
    with pytest.raises(Unavailable):
        sensor.read(1.0)
    assert watts(other.read(1.0)) == {"VDD_IN": 5.0}
    full = False
    assert watts(sensor.read(61.0)) == {"VDD_IN": 5.0}
    with pytest.raises(Unavailable):  # read by one of them, and missed by none
        other.read(61.0)


def remove(tmp_path: Path, folder: Path, number: int) -> None:
    shutil.rmtree(folder)
    (tmp_path / f"sys/class/hwmon/hwmon{number}").unlink()


def test_monitors_that_change_numbers_cost_no_read_and_one_that_comes_back_is_found(tmp_path: Path) -> None:
    files: dict[str, str | bytes | int] = {"name": "ina238", "power1_input": 350_000}
    rails: dict[str, str | bytes | int] = {"name": "ina3221", "in1_label": "VDD_IN"}
    rails |= {"in1_input": 5000, "curr1_input": 1000}
    folder, camera = put_hwmon(tmp_path, 1, rails, "i2c-1/1-0040"), put_hwmon(tmp_path, 2, files, "i2c-9/9-0044")
    sensor = jetson(tmp_path)
    whole = watts(sensor.read(1.0))
    assert whole == {"VDD_IN": 5.0, "ina238@9-0044": 0.35}
    remove(tmp_path, folder, 1)
    remove(tmp_path, camera, 2)
    put_hwmon(tmp_path, 2, rails, "i2c-1/1-0040")
    camera = put_hwmon(tmp_path, 1, files, "i2c-9/9-0044")
    assert watts(sensor.read(2.0)) == whole
    remove(tmp_path, camera, 1)
    with pytest.raises(SensorFailed, match=r"^ina238@9-0044: its monitor is gone$") as caught:
        sensor.read(3.0)
    assert watts(caught.value.readings) == {"VDD_IN": 5.0}
    put_hwmon(tmp_path, 1, files, "i2c-9/9-0044")
    assert watts(sensor.read(4.1)) == whole


def test_a_bus_that_is_not_free_is_told_and_a_rail_that_is_off_is_not(tmp_path: Path) -> None:
    put_rails(tmp_path, {"VDD_IN": (5000, 1000)})
    put(tmp_path / "proc/device-tree/compatible", b"nvidia,tegra234\0")
    code = errno.EAGAIN

    def read(path: Path) -> str:
        if path.name == "curr1_input":
            raise OSError(code, "the bus is not free")
        return read_text(path)

    sensor = JetsonSensor(replace(roots_in(tmp_path), read=read), Sensing())
    with pytest.raises(SensorFailed, match=r"VDD_IN .*the bus is not free") as caught:
        sensor.read(1.0)
    assert caught.value.readings == ()
    code = errno.ENODATA
    assert list(sensor.read(2.0)) == []  # present, and switched off: not absent


def test_of_two_inputs_neither_is_the_total_also_while_one_is_gone(tmp_path: Path) -> None:
    for number, millivolts in ((1, 5000), (2, 12000)):
        files: dict[str, str | bytes | int] = {"name": "ina3221", "in1_label": "VDD_IN"}
        put_hwmon(tmp_path, number, {**files, "in1_input": millivolts, "curr1_input": 1000}, f"i2c-1/1-004{number}")
    sensor = jetson(tmp_path)
    readings = sensor.read(1.0)
    assert watts(readings) == {"VDD_IN@1-0041": 5.0, "VDD_IN@1-0042": 12.0}
    assert total_power(readings) is None
    remove(tmp_path, tmp_path / "sys/devices/i2c-1/1-0042", 2)
    with pytest.raises(SensorFailed, match=r"^VDD_IN: its monitor is gone$") as caught:
        sensor.read(2.0)
    assert watts(caught.value.readings) == {"VDD_IN@1-0041": 5.0}
    assert total_power(caught.value.readings) is None


def test_a_load_or_a_fan_that_vanishes_is_told_for_as_long_as_it_is(tmp_path: Path) -> None:
    put_rails(tmp_path, {"VDD_IN": (5000, 1000)})
    for number in (2, 3):
        put_hwmon(tmp_path, number, {"name": "pwmfan", "pwm1": 51}, f"fan{number}")
    load = put(tmp_path / "sys/devices/gpu.0/load", 500)
    sensor = jetson(tmp_path)
    assert [(r.quantity, r.name) for r in sensor.read(1.0)][1:] == [
        ("utilization", "gpu"),
        ("fan", "fan"),
        ("fan", "fan-2"),
    ]
    load.unlink()
    for now_s in (2.0, 3.0, 100.0):
        with pytest.raises(SensorFailed, match=r"^load \(gpu\): its file is gone$") as caught:
            sensor.read(now_s)
        assert [r.quantity for r in caught.value.readings] == ["power", "fan", "fan"]
    put(load, 0)
    assert [r.value for r in sensor.read(102.0) if r.quantity == "utilization"] == [0.0]


def test_over_current_events_are_a_rate_and_a_reset_gives_none(tmp_path: Path) -> None:
    folder = put_hwmon(tmp_path, 2, {"name": "soctherm_oc", "oc3_event_cnt": 27390}, "soctherm")
    sensor = jetson(tmp_path)

    def rate(now_s: float) -> list[float]:
        return [r.value for r in sensor.read(now_s) if r.quantity == "over_current"]

    assert rate(10.0) == []
    put(folder / "oc3_event_cnt", 27400)
    assert rate(12.0) == [5.0]
    put(folder / "oc3_event_cnt", 3)
    assert rate(13.0) == []
    assert rate(14.0) == [0.0]


def test_a_fan_and_a_load_out_of_range_are_refused(tmp_path: Path) -> None:
    put_hwmon(tmp_path, 2, {"name": "pwmfan", "pwm1": 256}, "fan")
    put(tmp_path / "sys/devices/gpu.0/load", -1)
    with pytest.raises(SensorFailed, match="expected 0 to 255, found 256") as caught:
        jetson(tmp_path).read(1.0)
    assert "expected 0 to 1000 per mille, found -1" in caught.value.reason
    assert caught.value.readings == ()


def test_the_rails_are_read_once_per_reading(tmp_path: Path) -> None:
    """A register takes half a millisecond on the bus."""
    put_rails(tmp_path, ORIN, shunt1_resistor=2000)
    asked: list[str] = []
    roots = roots_in(tmp_path)

    def read(path: Path) -> str:
        asked.append(path.name)
        return roots.read(path)

    put(tmp_path / "proc/device-tree/compatible", b"nvidia,tegra234\0")
    sensor = JetsonSensor(replace(roots, read=read), Sensing())
    sensor.read(1.0)
    asked.clear()
    readings: list[Reading] = list(sensor.read(2.0))
    assert len(readings) == 4
    assert sorted(asked) == sorted(f"{kind}{n}_input" for kind in ("in", "curr") for n in (1, 2, 3))


def test_an_unlabelled_monitor_is_no_total_but_on_a_thor(tmp_path: Path) -> None:
    """A camera's, say: its third of a watt must not stand for the module."""
    put_hwmon(tmp_path, 1, {"name": "ina238", "power1_input": 350_000}, "i2c-9/9-0044")
    readings = jetson(tmp_path, "tegra210").read(1.0)
    assert watts(readings) == {"ina238@9-0044": 0.35}  # by its address: hwmon numbers move
    assert total_power(readings) is None
    total = total_power(jetson(tmp_path, "tegra264").read(1.0))
    assert total is not None
    assert (total.name, total.scope) == ("VIN", "module")


def test_a_sum_is_as_uncertain_as_its_rails_together(tmp_path: Path) -> None:
    put_rails(tmp_path, ORIN, shunt1_resistor=2000, shunt2_resistor=2000, shunt3_resistor=2000)
    readings = jetson(tmp_path).read(1.0)
    rails = [r for r in readings if r.scope == "rail"]
    (total,) = [r for r in readings if r.scope == "module"]
    assert total.uncertainty == pytest.approx(sum(r.value * (r.uncertainty or 0) for r in rails) / total.value)


@pytest.mark.parametrize("clock", ["0", "-5", "999999999999999"])
def test_a_memory_clock_that_cannot_be_is_refused(clock: str, tmp_path: Path) -> None:
    put(tmp_path / "sys/kernel/debug/bpmp/debug/clk/emc/rate", clock)
    with pytest.raises(SensorFailed, match="more than 0"):
        jetson(tmp_path).read(1.0)
