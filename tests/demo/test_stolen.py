"""What a hypervisor took is told, and looks that it disturbed are taken again."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from flyball.demo.stolen import quietest, stolen_since
from flyball.sensing.sensors.host import CpuUtilization


def test_what_a_hypervisor_took_is_a_share_of_what_was_asked_for(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    cpu = CpuUtilization(tmp_path)
    assert stolen_since(cpu) is None, "no such file"
    #          user nice system idle iowait irq softirq steal guest guest_nice
    for line, expected in (
        ("cpu  100 0 0 1000 0 0 0 10 0 0", None),  # the first look
        ("cpu  160 0 0 1300 0 0 0 50 0 0", 0.4),  # 60 ran, 40 were taken, 300 idle
        ("cpu  160 0 0 1400 0 0 0 50 0 0", 0.0),  # nothing was asked for
        ("cpu  260 0 0 1400 0 0 0 50 0 0", 0.0),
        ("cpu  nonsense", None),
    ):
        stat.write_text(line + "\ncpu0" + line[4:] + "\nbtime 1\n")
        assert stolen_since(cpu) == (None if expected is None else pytest.approx(expected)), line


@pytest.mark.parametrize(
    ("stolen", "taken", "counted"),
    [
        ([0.0, 0.0, 0.0], 3, [0, 1, 2]),
        ([0.5, 0.0, 0.2, 0.0, 0.01], 5, [1, 3, 4]),
        ([0.5, 0.4, 0.9, 0.6, 0.4, 0.8], 6, [1, 4, 0]),  # never quiet: the least disturbed, the first of equals
        ([None, None, None, None], 4, [0, 1, 2]),  # nobody counts it here
        ([None, 0.0, 0.0, 0.0], 4, [1, 2, 3]),  # it failed once
        ([None, 0.0, None, 0.3, None, 0.2], 6, [1, 5, 3]),  # those that were counted, and robbed, before unknown ones
    ],
)
def test_disturbed_looks_at_rest_are_taken_again(stolen: list[float | None], taken: int, counted: list[int]) -> None:
    asked = itertools.count()

    def look() -> tuple[float | None, float]:
        number = next(asked)
        return stolen[number], 10.0 - number

    found = quietest(look, 3, 6)
    assert next(asked) == taken
    assert found == [(stolen[number], 10.0 - number) for number in counted]


def test_there_is_an_end_to_looking_again_but_not_before_enough_looks() -> None:
    shares = itertools.repeat((0.9, 1))
    assert len(quietest(lambda: next(shares), 3, 6, until_s=0.0)) == 3


def test_a_counter_that_ran_backwards_tells_nothing(tmp_path: Path) -> None:
    cpu = CpuUtilization(tmp_path)
    for times, expected in (
        ("2000 0 0 4500 0 0 0 500 0 0", None),  # the first look
        ("2000 0 0 9000 0 0 0 450 0 0", None),
        ("2100 0 0 9000 0 0 0 475 0 0", 0.2),
    ):
        (tmp_path / "stat").write_text(f"cpu  {times}\ncpu0 {times}\nbtime 1\n")
        assert stolen_since(cpu) == (None if expected is None else pytest.approx(expected)), times
