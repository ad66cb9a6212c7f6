"""A wall clock that was wrong is told of once, with what to add."""

import pytest

from flyball.uplink.redating import ClockChange, ClockWatch
from flyball.uplink.stamp import Stamp


def stamp(ts: float, mono: float, clk: str = "synced", boot: str = "b1") -> Stamp:
    return Stamp(ts=ts, mono=mono, boot=boot, clk=clk)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "now", "kind", "offset_s"),
    [
        (stamp(5.0, 100.0, "unsynced"), stamp(1_700_000_006.0, 101.0), "clock_synchronized", 1_700_000_000.0),
        (stamp(5.0, 100.0, "unsynced"), stamp(6.25, 101.0), "clock_synchronized", 0.25),
        (stamp(1000.0, 100.0), stamp(1000.0 + 3e8, 100.0), "clock_set", 3e8),
        (stamp(1000.0, 100.0), stamp(501.0, 101.0), "clock_set", -500.0),
        (stamp(5.0, 100.0, "unsynced"), stamp(500.0, 101.0, "unsynced"), "clock_set", 494.0),
    ],
)
def test_a_change_is_told_with_its_offset(before: Stamp, now: Stamp, kind: str, offset_s: float) -> None:
    watch = ClockWatch()
    assert watch.see(before) is None
    change = watch.see(now)
    assert isinstance(change, ClockChange)
    assert (change.kind, change.offset_s, change.boot, change.mono) == (kind, offset_s, "b1", now.mono)
    assert watch.see(now) is None


@pytest.mark.parametrize(
    "now",
    [stamp(1001.0, 101.0), stamp(1001.4, 101.0), stamp(1e9, 1.0, boot="b2"), stamp(4600.0, 3700.0)],
    ids=["a second later", "corrected little by little", "another boot", "after an hour of suspend"],
)
def test_what_is_no_change_is_not_told(now: Stamp) -> None:
    watch = ClockWatch()
    watch.see(stamp(1000.0, 100.0))
    assert watch.see(now) is None
