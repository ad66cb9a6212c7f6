"""The example plug-in, on a pseudo-terminal in place of a meter."""

import importlib.util
import os
import pty
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from trees import roots_in

from flyball.config import Sensing
from flyball.sensing.contract import SensorFailed, Unavailable

SOURCE = Path(__file__).resolve().parents[2] / "examples/usb-watt-meter/usb_watt_meter.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("usb_watt_meter", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["usb_watt_meter"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end that the meter writes to."""
    master, slave = pty.openpty()
    monkeypatch.setenv("FLYBALL_WATT_METER", os.ttyname(slave))
    yield master
    os.close(master)
    os.close(slave)


def write(meter: int, text: bytes) -> None:
    os.write(meter, text)
    time.sleep(0.02)  # through the kernel's line discipline


def test_the_newest_line_counts(example: ModuleType, meter: int, tmp_path: Path) -> None:
    sensor = example.UsbWattMeter(roots_in(tmp_path), Sensing())
    with pytest.raises(SensorFailed, match="said nothing"):
        sensor.read(0.0)
    write(meter, b"81 V 0.612 A\n5.000 V 1.000 A\n5.081 V 0.612 A\n5.0")
    (reading,) = sensor.read(1.0)
    assert (reading.value, reading.scope, reading.unit) == (pytest.approx(3.109572), "wall", "W")
    write(meter, b"00 V 2.000 A\n")
    (reading,) = sensor.read(2.0)
    assert reading.value == 10.0


def test_a_silent_meter_has_no_figure_of_now(example: ModuleType, meter: int, tmp_path: Path) -> None:
    sensor = example.UsbWattMeter(roots_in(tmp_path), Sensing())
    with pytest.raises(SensorFailed):
        sensor.read(0.0)
    write(meter, b"0 A\n5 V 1 A\n")
    assert [r.value for r in sensor.read(1.0)] == [5.0]
    assert list(sensor.read(2.5)) == [], "one line is one reading"
    with pytest.raises(SensorFailed, match="said nothing"):
        sensor.read(3.5)


def test_what_came_first_after_opening_may_be_cut(example: ModuleType, meter: int, tmp_path: Path) -> None:
    sensor = example.UsbWattMeter(roots_in(tmp_path), Sensing())
    with pytest.raises(SensorFailed):
        sensor.read(0.0)
    write(meter, b"5.0 V 1.0 A\n")  # of "15.0 V", perhaps
    with pytest.raises(SensorFailed):
        sensor.read(1.0)
    write(meter, b"15.0 V 1.0 A\n")
    assert [r.value for r in sensor.read(2.0)] == [15.0]


@pytest.mark.parametrize("line", [b"hello\n", b"5.0 V\n", b"50 V 1 A\n", b"5 V 99 A\n", b"-5 V 1 A\n", b"\xff\xfe\n"])
def test_what_is_no_reading_is_told(example: ModuleType, meter: int, line: bytes, tmp_path: Path) -> None:
    sensor = example.UsbWattMeter(roots_in(tmp_path), Sensing())
    with pytest.raises(SensorFailed):
        sensor.read(0.0)
    write(meter, b"5 V 1 A\n" + line)
    with pytest.raises(SensorFailed, match="expected"):
        sensor.read(1.0)


def test_without_a_meter_it_is_absent(example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLYBALL_WATT_METER", str(tmp_path / "none"))
    with pytest.raises(Unavailable, match="no meter is attached"):
        example.UsbWattMeter(roots_in(tmp_path), Sensing()).read(1.0)


def test_an_unplugged_meter_has_failed_and_is_read_again_when_it_is_back(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = tmp_path / "meter"
    monkeypatch.setenv("FLYBALL_WATT_METER", str(link))
    sensor = example.UsbWattMeter(roots_in(tmp_path), Sensing())
    for second in (0.0, 10.0):
        master, slave = pty.openpty()
        link.symlink_to(os.ttyname(slave))
        with pytest.raises(SensorFailed, match="said nothing"):
            sensor.read(second)
        write(master, b"\n5.0 V 1.0 A\n")
        assert [r.value for r in sensor.read(second + 1)] == [5.0]
        os.close(master)
        os.close(slave)
        with pytest.raises(SensorFailed, match=r"unplugged|Input/output error"):
            sensor.read(second + 2)
        link.unlink()
        with pytest.raises(Unavailable, match="no meter is attached"):
            sensor.read(second + 3)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "file"])
def test_what_is_no_serial_port_is_told_at_every_read(
    example: ModuleType, device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("5.0 V 1.0 A\n" * 3)
    monkeypatch.setenv("FLYBALL_WATT_METER", str(tmp_path / device))
    sensor = example.UsbWattMeter(roots_in(tmp_path), Sensing())
    before = len(os.listdir("/proc/self/fd"))
    for second in (0.0, 1.0):
        with pytest.raises(SensorFailed, match="no serial port"):
            sensor.read(second)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_endless_line_takes_no_memory(example: ModuleType, meter: int, tmp_path: Path) -> None:
    sensor = example.UsbWattMeter(roots_in(tmp_path), Sensing())
    for second in range(5):
        write(meter, b"5" * 2000)
        with pytest.raises(SensorFailed):
            sensor.read(float(second))
    assert len(sensor._rest) <= 2048
