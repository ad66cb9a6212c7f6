"""The Raspberry Pi: short events are not missed, old ones are not new, and a sum without a rail is no power."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import put, put_hwmon

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Roots, SensorFailed, Unavailable
from flyball.sensing.sensors.raspberry import (
    LOOK_AGAIN_S,
    Latch,
    RaspberrySensor,
    board_w,
    flags,
    parse_adc,
    parse_throttled,
    rails_w,
)
from flyball.sensing.total import total_power
from flyball.sensing.tree import Tree

CASE = Path(__file__).parent / "testcases/raspberry-pi-5"
SYSFS = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI_4 = "Raspberry Pi 4 Model B Rev 1.4"
PI_5 = "Raspberry Pi 5 Model B Rev 1.0"

Answers = dict[str, str | OSError]


class Firmware:
    """Answers from `answers`, which a test may change; a command that is not there finds no way to ask."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, command: str) -> str:
        self.asked.append(command)
        answer = self.answers.get(command, FileNotFoundError(errno.ENOENT, "no way to ask"))
        if isinstance(answer, OSError):
            raise answer
        return answer


def put_board(folder: Path, model: str = PI_4, soc: str = "bcm2711") -> None:
    put(folder / "proc/device-tree/model", f"{model}\0".encode())
    put(folder / "proc/device-tree/compatible", f"raspberrypi,x\0brcm,{soc}\0".encode())


def sensor(folder: Path, firmware: Firmware) -> RaspberrySensor:
    return RaspberrySensor(Roots(sys=folder / "sys", proc=folder / "proc", dev=folder, firmware=firmware), Sensing())


def on(readings: tuple[Reading, ...] | list[Reading]) -> set[str]:
    assert len([r for r in readings if r.quantity == "throttled"]) == 8
    return {r.name for r in readings if r.quantity == "throttled" and r.value == 1}


def idle_adc(folder: Path) -> str:
    tree = Tree(folder / "captured")
    tree.unpack(CASE / "tree.txt")
    assert tree.roots.firmware is not None
    return tree.roots.firmware("pmic_read_adc")


# -------------------------------------------------------------------------------------------------- which machine


def test_another_machine_is_unavailable_and_its_firmware_never_asked(tmp_path: Path) -> None:
    put_board(tmp_path, "NVIDIA Jetson Nano", "x")
    put(tmp_path / "proc/device-tree/compatible", b"nvidia,p3450\0nvidia,tegra210\0")
    put(tmp_path / SYSFS, "50005")
    firmware = Firmware({"get_throttled": "throttled=0x0"})
    with pytest.raises(Unavailable, match=r"no Raspberry Pi \(NVIDIA Jetson Nano\)"):
        sensor(tmp_path, firmware).read(1.0)
    assert firmware.asked == []


def test_the_board_is_looked_at_again_rarely(tmp_path: Path) -> None:
    raspberry = sensor(tmp_path, Firmware({"get_throttled": "throttled=0x0"}))
    with pytest.raises(Unavailable):
        raspberry.read(1.0)
    put_board(tmp_path)
    with pytest.raises(Unavailable, match="no Raspberry Pi"):
        raspberry.read(LOOK_AGAIN_S)
    assert on(list(raspberry.read(1.0 + LOOK_AGAIN_S))) == set()


def test_a_look_that_fails_makes_it_no_other_board(tmp_path: Path) -> None:
    put_board(tmp_path)
    raspberry = sensor(tmp_path, Firmware({"get_throttled": "throttled=0x0"}))
    raspberry.read(1.0)
    (tmp_path / "proc/device-tree/model").unlink()
    (tmp_path / "proc/device-tree/compatible").unlink()
    assert on(list(raspberry.read(1.0 + LOOK_AGAIN_S))) == set()


def test_a_raspberry_that_tells_nothing_is_unavailable(tmp_path: Path) -> None:
    put_board(tmp_path, PI_5, "bcm2712")
    with pytest.raises(Unavailable, match="neither get_throttled, nor rpi_volt, nor /dev/vcio"):
        sensor(tmp_path, Firmware({})).read(1.0)


def test_the_machines_own_firmware_is_asked_below_the_given_roots(tmp_path: Path) -> None:
    put_board(tmp_path)
    put(tmp_path / "dev/vcio", "")  # a file, which refuses the ioctl
    raspberry = RaspberrySensor(Roots(sys=tmp_path, proc=tmp_path / "proc", dev=tmp_path / "dev"), Sensing())
    with pytest.raises(SensorFailed, match=r"^get_throttled \(firmware\): .*dev/vcio: Inappropriate ioctl"):
        raspberry.read(1.0)


# ------------------------------------------------------------------------------------------------- get_throttled


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (0, "under_voltage"),
        (1, "frequency_capped"),
        (2, "throttled"),
        (3, "soft_temperature_limit"),
        (16, "under_voltage_since_boot"),
        (17, "frequency_capped_since_boot"),
        (18, "throttled_since_boot"),
        (19, "soft_temperature_limit_since_boot"),
    ],
)
def test_every_bit_has_its_name(bit: int, name: str) -> None:
    assert [cause for cause, value in flags(1 << bit) if value] == [name]


@pytest.mark.parametrize(
    ("text", "bits"), [("throttled=0x50000", 0x50000), ("50005", 0x50005), ("0", 0), ("throttled=0xe0008\n", 0xE0008)]
)
def test_bits_are_hexadecimal_with_and_without_0x(text: str, bits: int) -> None:
    assert parse_throttled(text) == bits


@pytest.mark.parametrize(
    "text", ["", "garbage", "throttled=", "throttled=0x", "-1", "5 0005", "ffffffff", "throttled=0xFFFFFFFF", "1" * 9]
)
def test_what_is_no_bits_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected bits in hexadecimal"):
        parse_throttled(text)


@pytest.mark.parametrize(
    "place",
    [
        SYSFS,
        "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
        "sys/devices/platform/firmware/get_throttled",
    ],
)
def test_the_kernels_file_is_found_and_the_firmware_left_alone(place: str, tmp_path: Path) -> None:
    put_board(tmp_path)
    put(tmp_path / place, "80008")
    firmware = Firmware({"get_throttled": "throttled=0x0"})
    readings = sensor(tmp_path, firmware).read(3.0)
    assert on(list(readings)) == {"soft_temperature_limit", "soft_temperature_limit_since_boot"}
    assert {(r.unit, r.scope, r.sensor, r.t_s) for r in readings} == {("flag", "board", "raspberry", 3.0)}
    assert firmware.asked == []


def test_what_happened_before_the_first_read_is_reported_and_is_not_now(tmp_path: Path) -> None:
    put_board(tmp_path)
    raspberry = sensor(tmp_path, Firmware({"get_throttled": "throttled=0x50000"}))
    for now_s in (1.0, 2.0):
        assert on(list(raspberry.read(now_s))) == {"under_voltage_since_boot", "throttled_since_boot"}


def test_an_event_between_two_reads_is_shown_once(tmp_path: Path) -> None:
    put_board(tmp_path)
    firmware = Firmware({"get_throttled": "throttled=0x20000"})
    raspberry = sensor(tmp_path, firmware)
    assert on(list(raspberry.read(1.0))) == {"frequency_capped_since_boot"}
    firmware.answers["get_throttled"] = "throttled=0x70000"
    both = {"under_voltage_since_boot", "frequency_capped_since_boot", "throttled_since_boot"}
    assert on(list(raspberry.read(2.0))) == both | {"under_voltage", "throttled"}
    assert on(list(raspberry.read(3.0))) == both


def test_the_kernel_forgets_and_the_latch_does_not(tmp_path: Path) -> None:
    put_board(tmp_path)
    raspberry = sensor(tmp_path, Firmware({}))
    said = []
    for now_s, bits in enumerate(("0", "10001", "0", "10000", "0")):
        put(tmp_path / SYSFS, bits)
        said.append(on(list(raspberry.read(float(now_s)))))
    now, since = "under_voltage", "under_voltage_since_boot"
    assert said == [set(), {now, since}, {since}, {now, since}, {since}]


def test_another_source_with_a_longer_memory_is_no_event() -> None:
    latch = Latch()
    assert latch.take("sysfs", 0) == 0
    assert latch.take("firmware", 0x50000) == 0x50000
    assert latch.take("sysfs", 0) == 0x50000


@given(st.lists(st.tuples(st.sampled_from(["sysfs", "firmware"]), st.integers(0, 0xF000F)), min_size=1))
def test_the_latch_never_forgets_and_never_hides(said: list[tuple[str, int]]) -> None:
    latch = Latch()
    before = 0
    for source, bits in said:
        bits &= 0xF000F
        shown = latch.take(source, bits)
        assert shown & bits == bits
        assert shown & before & 0xF0000 == before & 0xF0000
        assert (shown & 0xF) << 16 & ~shown == 0  # what is now has been since boot
        before = shown


@pytest.mark.parametrize(("text", "says"), [("garbage", "found 'garbage'"), ("", "found ''"), (None, "Input/output")])
def test_a_broken_file_is_told_and_the_firmware_asked(text: str | None, says: str, tmp_path: Path) -> None:
    put_board(tmp_path)
    path = put(tmp_path / SYSFS, text or "")
    if text is None:
        path.unlink()
        path.symlink_to("/proc/self/mem")  # a read at 0 is a real EIO
    with pytest.raises(SensorFailed, match=r"^get_throttled \(devices/platform/soc/soc:firmware/get_throttled\)") as e:
        sensor(tmp_path, Firmware({"get_throttled": "throttled=0x8"})).read(1.0)
    assert says in e.value.reason
    assert on(list(e.value.readings)) == {"soft_temperature_limit", "soft_temperature_limit_since_boot"}


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ETIMEDOUT])
def test_without_get_throttled_the_alarm_of_rpi_volt_is_read(error: int, tmp_path: Path) -> None:
    put_board(tmp_path)
    put_hwmon(tmp_path, 0, {"name": "other", "in0_lcrit_alarm": 0})
    put_hwmon(tmp_path, 1, {"name": "rpi_volt", "in0_lcrit_alarm": 1})
    firmware = Firmware({"get_throttled": OSError(error, os.strerror(error))})
    with pytest.raises(SensorFailed, match=rf"^get_throttled \(firmware\): {os.strerror(error)}$") as caught:
        sensor(tmp_path, firmware).read(1.0)
    assert [(r.quantity, r.name, r.value) for r in caught.value.readings] == [("alarm", "under_voltage", 1.0)]


def test_the_alarm_is_not_read_where_get_throttled_is(tmp_path: Path) -> None:
    put_board(tmp_path)
    put_hwmon(tmp_path, 1, {"name": "rpi_volt", "in0_lcrit_alarm": "garbage"})
    readings = sensor(tmp_path, Firmware({"get_throttled": "throttled=0x0"})).read(1.0)
    assert {r.quantity for r in readings} == {"throttled"}


@pytest.mark.parametrize("content", ["", "2", "garbage"])
def test_a_broken_alarm_is_no_all_clear(content: str, tmp_path: Path) -> None:
    put_board(tmp_path)
    put_hwmon(tmp_path, 1, {"name": "rpi_volt", "in0_lcrit_alarm": content})
    with pytest.raises(SensorFailed, match=r"in0_lcrit_alarm\): expected") as caught:
        sensor(tmp_path, Firmware({})).read(1.0)
    assert caught.value.readings == ()


def test_what_answered_once_and_does_not_any_more_has_failed(tmp_path: Path) -> None:
    put_board(tmp_path)
    path = put(tmp_path / SYSFS, "0")
    raspberry = sensor(tmp_path, Firmware({}))
    assert len(raspberry.read(1.0)) == 8
    path.unlink()
    with pytest.raises(SensorFailed, match=r"^get_throttled: nothing answers any more$"):
        raspberry.read(2.0)
    put(path, "0")
    assert len(raspberry.read(3.0)) == 8


@pytest.mark.parametrize("answers", [{"get_throttled": "throttled=0x50005"}, {}])
def test_the_zero_range_says_nothing_of_its_voltage(answers: Answers, tmp_path: Path) -> None:
    put_board(tmp_path, "Raspberry Pi Zero 2 W Rev 1.0", "bcm2837")
    put_hwmon(tmp_path, 1, {"name": "rpi_volt", "in0_lcrit_alarm": 0})
    raspberry = sensor(tmp_path, Firmware(answers))
    if not answers:
        with pytest.raises(Unavailable):
            raspberry.read(1.0)
        return
    readings = raspberry.read(1.0)
    assert [r.name for r in readings if "voltage" in r.name] == []
    assert {r.name for r in readings if r.value} == {"throttled", "throttled_since_boot"}


# ---------------------------------------------------------------------------------------------------------- PMIC


def test_the_idle_board_takes_what_was_captured(tmp_path: Path) -> None:
    adc = parse_adc(idle_adc(tmp_path))
    assert round(rails_w(adc), 4) == 1.9005
    assert round(board_w(rails_w(adc)), 3) == 2.764


def test_the_corrected_sum_stands_for_the_machine_and_the_sum_does_not(tmp_path: Path) -> None:
    put_board(tmp_path, PI_5, "bcm2712")
    firmware = Firmware({"get_throttled": "throttled=0x0", "pmic_read_adc": idle_adc(tmp_path)})
    readings = sensor(tmp_path, firmware).read(1.0)
    total = total_power(readings)
    assert total is not None
    assert (total.name, round(total.value, 3), total.scope, total.uncertainty) == (
        "pmic_corrected",
        2.764,
        "board",
        0.15,
    )
    assert total_power(r for r in readings if r.name != "pmic_corrected") is None
    assert [(r.name, r.value) for r in readings if r.quantity == "voltage"] == [
        ("EXT5V_V", 5.11478),
        ("BATT_V", 0.0188034),
    ]


@pytest.mark.parametrize("model", ["Raspberry Pi 500 Rev 1.0", "Raspberry Pi Compute Module 5 Rev 1.0"])
def test_the_correction_of_one_board_is_not_anothers(model: str, tmp_path: Path) -> None:
    put_board(tmp_path, model, "bcm2712")
    readings = sensor(tmp_path, Firmware({"pmic_read_adc": idle_adc(tmp_path)})).read(1.0)
    assert [(r.name, round(r.value, 4), r.scope) for r in readings if r.quantity == "power"] == [
        ("pmic", 1.9005, "chip")
    ]


def test_a_board_without_that_pmic_is_not_asked_for_it(tmp_path: Path) -> None:
    put_board(tmp_path)
    firmware = Firmware({"get_throttled": "throttled=0x0"})
    sensor(tmp_path, firmware).read(1.0)
    assert firmware.asked == ["get_throttled"]


def test_a_rail_without_its_other_half_is_named_and_there_is_no_sum(tmp_path: Path) -> None:
    put_board(tmp_path, PI_5, "bcm2712")
    lines = idle_adc(tmp_path).splitlines()
    rails = [line for line in lines if "EXT5V" not in line and "BATT" not in line]
    assert len(rails) == 24
    for missing in rails:
        rail, half = missing.split()[0].rsplit("_", 1)
        firmware = Firmware({"pmic_read_adc": "\n".join(line for line in lines if line != missing)})
        with pytest.raises(SensorFailed, match=rf"^pmic_read_adc: .* without {rail}_{half}$") as caught:
            sensor(tmp_path, firmware).read(1.0)
        assert [r.name for r in caught.value.readings] == ["EXT5V_V", "BATT_V"]


def test_an_answer_cut_anywhere_is_an_error_or_lacks_no_rail(tmp_path: Path) -> None:
    text = idle_adc(tmp_path)
    whole_w = rails_w(parse_adc(text))
    last_names = set()
    for length in range(len(text)):
        try:
            sum_w = rails_w(parse_adc(text[:length]))
        except ValueError:
            continue
        assert sum_w == whole_w
        last_names.add(text[:length].split()[-2])
    assert last_names == {"HDMI_V", "EXT5V_V"}  # the last rail, and a voltage that is not part of the sum


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("VDD_CORE_A current(7)=0.9A\nVDD_CORE_A current(7)=0.9A", "line 2: VDD_CORE_A stands there twice"),
        ("VDD_CORE_A current(7)=0.9V", "line 1: expected"),
        ("VDD_CORE_A current(7)=0.9", "line 1: expected"),
        ("VDD_CORE_A current(7)=-0.9A", "line 1: expected"),
        ("VDD_CORE_A current(7)=1.2.3A", "line 1: expected"),
        (f"X_A current(0)={'9' * 400}A\nX_V volt(8)=0V", "at most 50 W, found nan W"),
        ("\x00\xff", "line 1: expected"),
        ("", "incomplete, without any rail"),
        ("EXT5V_V volt(24)=5.1V", "incomplete, without any rail"),
        ("X_A current(0)=0A\nX_V volt(8)=3.3V", "more than 0"),
        ("X_A current(0)=100A\nX_V volt(8)=3.3V", "at most 50 W, found 330 W"),
    ],
)
def test_a_garbled_answer_is_no_power(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        rails_w(parse_adc(line))


@pytest.mark.parametrize("volts", ["30.1", "9" * 400])
def test_a_voltage_that_the_board_would_not_stand_is_told_and_the_power_is_read(volts: str, tmp_path: Path) -> None:
    put_board(tmp_path, PI_5, "bcm2712")
    adc = f"X_A current(0)=1.0A\nX_V volt(8)=3.3V\nEXT5V_V volt(24)={volts}V"
    firmware = Firmware({"get_throttled": "throttled=0x0", "pmic_read_adc": adc})
    with pytest.raises(SensorFailed, match=r"^pmic_read_adc EXT5V_V: expected at most 30 V") as caught:
        sensor(tmp_path, firmware).read(1.0)
    assert [(r.quantity, r.name) for r in caught.value.readings if r.quantity in ("voltage", "power")] == [
        ("power", "pmic_corrected"),
        ("power", "pmic"),
    ]


def test_a_pmic_that_fails_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    put_board(tmp_path, PI_5, "bcm2712")
    firmware = Firmware({"get_throttled": "throttled=0x0", "pmic_read_adc": OSError(errno.EIO, "Input/output error")})
    with pytest.raises(SensorFailed, match=r"^pmic_read_adc: Input/output error$") as caught:
        sensor(tmp_path, firmware).read(1.0)
    assert on(list(caught.value.readings)) == set()


def test_a_pmic_that_was_here_and_is_not_has_failed(tmp_path: Path) -> None:
    put_board(tmp_path, PI_5, "bcm2712")
    put(tmp_path / SYSFS, "0")
    firmware = Firmware({})
    raspberry = sensor(tmp_path, firmware)
    assert len(raspberry.read(1.0)) == 8
    firmware.answers["pmic_read_adc"] = idle_adc(tmp_path)
    assert len(raspberry.read(2.0)) == 12
    del firmware.answers["pmic_read_adc"]
    with pytest.raises(SensorFailed, match=r"^pmic_read_adc: no way to ask$"):
        raspberry.read(3.0)


# -------------------------------------------------------------------------------------------------------- supply


@pytest.mark.parametrize(
    ("file", "cell", "budgets"),
    [
        ("max_current", 5000, [("psu_budget", 5.0)]),
        ("max_current", 3000, [("psu_budget", 3.0)]),
        ("max_current", 0, []),
        ("usb_max_current_enable", 0, [("usb_budget", 0.6)]),
        ("usb_max_current_enable", 1, [("usb_budget", 1.6)]),
    ],
)
def test_what_the_supply_promised(file: str, cell: int, budgets: list[tuple[str, float]], tmp_path: Path) -> None:
    put_board(tmp_path, PI_5, "bcm2712")
    put(tmp_path / SYSFS, "0")
    put(tmp_path / "proc/device-tree/chosen/power" / file, cell.to_bytes(4, "big"))
    readings = sensor(tmp_path, Firmware({})).read(1.0)
    assert [(r.name, r.value) for r in readings if r.quantity == "current"] == budgets


@pytest.mark.parametrize(
    ("file", "data", "says"),
    [
        ("max_current", b"", "expected 4 bytes, found 0"),
        ("max_current", b"\x13\x88", "expected 4 bytes, found 2"),
        ("max_current", b"\xff\xff\xff\xff", "at most 10000 mA, found 4294967295"),
        ("usb_max_current_enable", b"\0\0\0\x02", "expected 0 or 1, found 2"),
    ],
)
def test_a_broken_promise_is_told(file: str, data: bytes, says: str, tmp_path: Path) -> None:
    put_board(tmp_path, PI_5, "bcm2712")
    put(tmp_path / SYSFS, "0")
    put(tmp_path / "proc/device-tree/chosen/power" / file, data)
    with pytest.raises(SensorFailed, match=says) as caught:
        sensor(tmp_path, Firmware({})).read(1.0)
    assert len(caught.value.readings) == 8
