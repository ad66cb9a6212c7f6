"""RAPL counters: one wrap is counted through, a reset is not; a counter that is forbidden says what to do."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import put, roots_in

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.hwmon import LONGEST_AVERAGE_S, PLAUSIBLE_W
from flyball.sensing.sensors.powercap import PowercapSensor, RaplCounter, longest_s
from flyball.sensing.sysfs import read_text

RANGE_UJ = 262_143_328_850


def sensor(folder: Path) -> PowercapSensor:
    return PowercapSensor(roots_in(folder), Sensing())


def put_zone(folder: Path, zone: str, name: str, energy: int | str, range_uj: int | str = RANGE_UJ) -> Path:
    place = folder / f"sys/class/powercap/{zone}"
    put(place / "name", name)
    put(place / "energy_uj", energy)
    put(place / "max_energy_range_uj", range_uj)
    return place


def found(readings: object) -> dict[str, tuple[float, str]]:
    assert isinstance(readings, (list, tuple))
    assert all(isinstance(r, Reading) and r.quantity == "power" and r.unit == "W" for r in readings)
    return {r.name: (round(r.value, 6), r.scope) for r in readings}


def test_without_a_zone_it_is_unavailable(tmp_path: Path) -> None:
    put_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1)
    put(tmp_path / "sys/class/powercap/intel-rapl/enabled", 1)
    put(tmp_path / "sys/class/powercap/dtpm/enabled", 1)
    with pytest.raises(Unavailable, match="no intel-rapl zone"):
        sensor(tmp_path).read(1.0)


def test_zones_are_named_by_what_they_lie_in_and_scoped_by_what_they_cover(tmp_path: Path) -> None:
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "core",
        "intel-rapl:2": "psys",
    }
    for zone, name in zones.items():
        put_zone(tmp_path, zone, name, 1_000_000)
    rapl = sensor(tmp_path)
    assert rapl.read(10.0) == []
    for zone, name in zones.items():
        put_zone(tmp_path, zone, name, 5_000_000)
    assert found(rapl.read(12.0)) == {
        "package-0": (2.0, "chip"),
        "package-0/core": (2.0, "rail"),
        "package-0/dram": (2.0, "rail"),
        "package-1": (2.0, "chip"),
        "package-1/core": (2.0, "rail"),
        "psys": (2.0, "board"),
    }


def test_zones_of_one_name_get_their_numbers(tmp_path: Path) -> None:
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        put_zone(tmp_path, zone, "package-0", 1_000_000)
    rapl = sensor(tmp_path)
    rapl.read(1.0)
    put_zone(tmp_path, "intel-rapl:0", "package-0", 2_000_000)
    put_zone(tmp_path, "intel-rapl:1", "package-0", 4_000_000)
    assert found(rapl.read(2.0)) == {
        "package-0@intel-rapl:0": (1.0, "chip"),
        "package-0@intel-rapl:1": (3.0, "chip"),
    }


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_a_forbidden_counter_has_failed_and_says_what_to_do(code: int, tmp_path: Path) -> None:
    put_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    put_zone(tmp_path, "intel-rapl:0:0", "core", 1)

    def read(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(code, "no")
        return read_text(path)

    rapl = PowercapSensor(replace(roots_in(tmp_path), read=read), Sensing())
    with pytest.raises(SensorFailed, match=r"of package-0, package-0/core: for root only; a udev rule") as caught:
        rapl.read(1.0)
    assert caught.value.readings == ()


def test_one_forbidden_zone_takes_nothing_from_the_others(tmp_path: Path) -> None:
    put_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    put_zone(tmp_path, "intel-rapl:0:0", "core", 1)

    def read(path: Path) -> str:
        if path.parent.name == "intel-rapl:0:0" and path.name == "energy_uj":
            raise PermissionError(errno.EACCES, "no")
        return read_text(path)

    rapl = PowercapSensor(replace(roots_in(tmp_path), read=read), Sensing())
    for now_s, energy in ((1.0, 1_000_000), (2.0, 3_500_000)):
        put_zone(tmp_path, "intel-rapl:0", "package-0", energy)
        with pytest.raises(SensorFailed, match="of package-0/core: for root only") as caught:
            rapl.read(now_s)
    assert found(caught.value.readings) == {"package-0": (2.5, "chip")}


@pytest.mark.parametrize(
    ("energy", "range_uj"), [("", RANGE_UJ), ("x", RANGE_UJ), (-1, RANGE_UJ), (RANGE_UJ + 1, RANGE_UJ), (1, 0)]
)
def test_a_counter_outside_of_its_range_is_named(energy: int | str, range_uj: int, tmp_path: Path) -> None:
    put_zone(tmp_path, "intel-rapl:0", "package-0", energy, range_uj)
    with pytest.raises(SensorFailed, match=r"package-0 \(.*intel-rapl:0\): expected") as caught:
        sensor(tmp_path).read(1.0)
    assert caught.value.readings == ()


def test_a_driver_that_goes_is_told_and_is_found_again(tmp_path: Path) -> None:
    put_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    rapl = sensor(tmp_path)
    rapl.read(1.0)
    shutil.rmtree(tmp_path / "sys/class/powercap")
    with pytest.raises(SensorFailed, match="No such file"):
        rapl.read(2.0)
    with pytest.raises(SensorFailed, match="package-0: its zone is gone"):
        rapl.read(3.0)
    put_zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    assert found(rapl.read(5.0)) == {"package-0": (1.0, "chip")}


def test_a_zone_whose_name_was_unreadable_once_is_not_gone_for_ever(tmp_path: Path) -> None:
    place = put_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    rapl = sensor(tmp_path)
    rapl.read(0.0)
    for second in range(1, 130):  # two searches: at the first it is called by its folder
        put(place / "name", "" if 50 < second < 70 else "package-0")
        put(place / "energy_uj", 1_000_000 + second * 5_000_000)
        readings = rapl.read(float(second))
    assert found(readings) == {"package-0": (5.0, "chip")}


def test_one_wrap_is_counted_through() -> None:
    counter = RaplCounter()
    assert counter.power_w(0.0, RANGE_UJ - 3_000_000, RANGE_UJ) is None
    assert counter.power_w(1.0, 4_000_000, RANGE_UJ) == 7.0


def test_a_counter_that_stands_still_gives_nothing_and_then_the_mean_over_all_of_it() -> None:
    counter = RaplCounter()
    counter.power_w(0.0, 1_000_000, RANGE_UJ)
    assert counter.power_w(1.0, 1_000_000, RANGE_UJ) is None
    assert counter.power_w(2.0, 5_000_000, RANGE_UJ) == 2.0


def test_a_reset_is_no_wrap() -> None:
    counter = RaplCounter()
    counter.power_w(0.0, RANGE_UJ // 2, RANGE_UJ)
    assert counter.power_w(1.0, 100, RANGE_UJ) is None
    assert counter.power_w(2.0, 8_000_100, RANGE_UJ) == 8.0


def test_where_it_may_have_wrapped_twice_nothing_is_given() -> None:
    small_uj = 6_000_000_000  # at 3000 W it is full after 2 s
    assert longest_s(small_uj) == 2.0
    counter = RaplCounter()
    counter.power_w(0.0, 1_000_000, small_uj)
    assert counter.power_w(2.5, 6_000_000, small_uj) is None
    assert counter.power_w(4.5, 16_000_000, small_uj) == 5.0
    assert longest_s(RANGE_UJ) == LONGEST_AVERAGE_S


@given(
    st.integers(min_value=0, max_value=RANGE_UJ),
    st.floats(min_value=0.01, max_value=LONGEST_AVERAGE_S),
    st.floats(min_value=0.01, max_value=PLAUSIBLE_W[1] * 0.999),
)
def test_every_plausible_power_is_found_wherever_the_counter_stands(start: int, step_s: float, power_w: float) -> None:
    spent_uj = int(power_w * step_s * 1e6)
    if not 0 < spent_uj < RANGE_UJ:
        return
    counter = RaplCounter()
    counter.power_w(50.0, start, RANGE_UJ)
    power = counter.power_w(50.0 + step_s, (start + spent_uj) % RANGE_UJ, RANGE_UJ)
    assert power == pytest.approx(spent_uj / 1e6 / step_s, rel=1e-6)


def test_a_counter_read_too_rarely_says_so_and_one_that_stands_still_does_not(tmp_path: Path) -> None:
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "not-wired")):
        put_zone(tmp_path, zone, name, 1_000_000, 65_532_610_987)
    rapl = sensor(tmp_path)
    rapl.read(0.0)
    put_zone(tmp_path, "intel-rapl:0", "package-0", 200_000_000, 65_532_610_987)
    with pytest.raises(SensorFailed, match=r"the last read was 50 s ago.*sensing.periods") as caught:
        rapl.read(50.0)
    assert "not-wired" not in caught.value.reason
    put_zone(tmp_path, "intel-rapl:0", "package-0", 210_000_000, 65_532_610_987)
    assert found(rapl.read(51.0)) == {"package-0": (10.0, "chip")}
