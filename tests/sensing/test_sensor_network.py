"""Network links: the share of their capacity, whatever their counters do."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import put, roots_in

from flyball.config import Sensing
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.network import RESCAN_S, Counters, Link, NetworkSensor, utilization

GIGABIT = Link(capacity_bps=125e6, half_duplex=False)


def put_link(
    folder: Path, name: str, speed: str = "1000", *, rx: int = 0, tx: int = 0, duplex: str = "full", real: bool = True
) -> Path:
    link = folder / "sys/class/net" / name
    put(link / "speed", speed)
    put(link / "duplex", duplex)
    put(link / "statistics/rx_bytes", rx)
    put(link / "statistics/tx_bytes", tx)
    if real:
        (link / "device").mkdir(exist_ok=True)
    return link


def read(sensor: NetworkSensor, now_s: float) -> dict[str, float]:
    readings = sensor.read(now_s)
    assert all((r.quantity, r.unit, r.scope, r.t_s) == ("utilization", "ratio", "chip", now_s) for r in readings)
    return {r.name: r.value for r in readings}


def test_of_a_full_duplex_link_the_busier_direction_counts(tmp_path: Path) -> None:
    sensor = NetworkSensor(roots_in(tmp_path), Sensing())
    put_link(tmp_path, "eth0", rx=1000, tx=5000)
    assert read(sensor, 10.0) == {}
    put_link(tmp_path, "eth0", rx=1000 + 50_000_000, tx=5000 + 100_000_000)
    assert read(sensor, 12.0) == {"net/eth0": pytest.approx(0.4)}
    assert read(sensor, 13.0) == {"net/eth0": 0.0}
    assert read(sensor, 13.0) == {}, "no time has passed"


def test_of_a_half_duplex_link_both_directions_share_what_there_is(tmp_path: Path) -> None:
    sensor = NetworkSensor(roots_in(tmp_path), Sensing())
    put_link(tmp_path, "eth0", "10", duplex="half")
    sensor.read(1.0)
    put_link(tmp_path, "eth0", "10", duplex="half", rx=250_000, tx=500_000)
    assert read(sensor, 2.0) == {"net/eth0": pytest.approx(0.6)}


def test_loopback_bridges_and_links_of_unknown_speed_are_left_out(tmp_path: Path) -> None:
    put_link(tmp_path, "lo", real=False)
    put_link(tmp_path, "docker0", "10000", real=False)
    put_link(tmp_path, "wlan0", "")
    put_link(tmp_path, "eth1", "-1")
    put_link(tmp_path, "eth2", "0")
    with pytest.raises(Unavailable, match=r"class/net has no network device that is connected and tells its speed"):
        NetworkSensor(roots_in(tmp_path), Sensing()).read(1.0)
    (put_link(tmp_path, "wlan1") / "speed").unlink()  # an older driver has no such file
    put_link(tmp_path, "eth3", "2500")
    sensor = NetworkSensor(roots_in(tmp_path), Sensing())
    sensor.read(1.0)
    assert list(read(sensor, 2.0)) == ["net/eth3"]


def test_an_unplugged_adapter_is_told_once_and_then_no_longer_looked_for(tmp_path: Path) -> None:
    sensor = NetworkSensor(roots_in(tmp_path), Sensing())
    put_link(tmp_path, "eth0")
    gone = put_link(tmp_path, "usb0")
    sensor.read(1.0)
    (gone / "statistics/rx_bytes").unlink()
    with pytest.raises(SensorFailed, match=r"usb0/statistics: No such file") as caught:
        sensor.read(2.0)
    assert [r.name for r in caught.value.readings] == ["net/eth0"]
    (gone / "device").rmdir()
    assert list(read(sensor, 3.0)) == ["net/eth0"]


def test_another_speed_is_noticed_at_the_next_scan(tmp_path: Path) -> None:
    sensor = NetworkSensor(roots_in(tmp_path), Sensing())
    put_link(tmp_path, "eth0", "1000")
    sensor.read(0.0)
    put_link(tmp_path, "eth0", "100", rx=int(12.5e6 * RESCAN_S / 2))
    assert read(sensor, RESCAN_S) == {"net/eth0": pytest.approx(0.5)}


@pytest.mark.parametrize("text", ["", "many", "1.5"])
def test_a_counter_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    sensor = NetworkSensor(roots_in(tmp_path), Sensing())
    link = put_link(tmp_path, "eth0")
    put(link / "statistics/tx_bytes", text)
    with pytest.raises(SensorFailed, match=r"eth0/statistics: expected a decimal integer"):
        sensor.read(1.0)


def test_a_counter_of_32_bits_wraps() -> None:
    last, now = Counters(0.0, (1 << 32) - 10_000_000, 0), Counters(1.0, 15_000_000, 0)
    assert utilization(GIGABIT, last, now) == pytest.approx(25e6 / 125e6)


@pytest.mark.parametrize("before", [3_000_000_000, 1 << 40])
def test_a_counter_that_began_anew_gives_no_figure(before: int) -> None:
    """A driver that was loaded again: as a wrap, it would be more than the link can carry."""
    assert utilization(GIGABIT, Counters(0.0, before, 0), Counters(1.0, 2_000, 0)) is None
    assert utilization(GIGABIT, Counters(0.0, 0, before), Counters(1.0, 0, 2_000)) is None


_COUNT = st.integers(0, 1 << 64)


@given(_COUNT, _COUNT, _COUNT, _COUNT, st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())
def test_a_share_is_between_nothing_and_all(
    rx: int, tx: int, rx_later: int, tx_later: int, t_s: float, later_s: float, half_duplex: bool
) -> None:
    link = Link(capacity_bps=125e6, half_duplex=half_duplex)
    share = utilization(link, Counters(t_s, rx, tx), Counters(later_s, rx_later, tx_later))
    assert share is None or 0 <= share <= 1
    assert (share is None) >= (later_s <= t_s)
