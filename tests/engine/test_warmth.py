"""What the warm-up says of a model's own time while others fight for the processor."""

import os
from pathlib import Path

import pytest
from faulty_ladders import running, write_scripts

from flyball.demo.burners import Burners
from flyball.engine import worker

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

WORK_S, TOIL_S = 0.02, 0.3  # of a processor, in every run


def counts_waiting() -> bool:
    """The file may be there and hold nothing but zeros."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[0]) > 0
    except OSError:
        return False


counted = pytest.mark.skipif(not counts_waiting(), reason="this kernel counts no waiting (schedstat)")


@counted
async def test_the_profile_holds_no_waiting_for_a_processor(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"warm": "work"}})
    with Burners(4 * (os.cpu_count() or 1), 30.0):
        async with running(root) as runner:
            seat = runner._seats.active
            assert seat is not None
            profiled_s = runner.status().rungs[0].profiled_p50_s
    assert seat.warmth.p50_s > 1.5 * WORK_S, "the burners were felt"
    assert profiled_s == seat.warmth.calm_p50_s
    assert profiled_s is not None
    assert WORK_S * 0.95 < profiled_s < 1.3 * WORK_S


@counted
async def test_nor_does_that_of_a_rung_too_slow_for_a_second_run(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {"warm": "toil"}})
    with Burners(2 * (os.cpu_count() or 1), 30.0):
        async with running(root) as runner:
            seat = runner._seats.active
            assert seat is not None
            profiled_s = runner.status().rungs[0].profiled_p50_s
    assert seat.warmth.p50_s == seat.warmth.first_s > 1.5 * TOIL_S, "the burners were felt"
    assert profiled_s is not None
    assert TOIL_S * 0.95 < profiled_s < 1.3 * TOIL_S


@pytest.mark.parametrize(
    ("before_s", "after_s", "calm_s"),
    [
        (1.0, 1.01, 0.01),
        (1.0, None, 0.02),
        (None, 1.0, 0.02),
        (1.0, 1.5, 0.02),  # a wait beside the run was longer than the run
    ],
)
def test_what_cannot_be_told_is_not_taken_off(before_s: float | None, after_s: float | None, calm_s: float) -> None:
    assert worker._without(0.02, before_s, after_s) == pytest.approx(calm_s)
