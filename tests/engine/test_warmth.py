"""What the warm-up says of a model's own time while others fight for the processor."""

import os
from pathlib import Path

import pytest
from faulty_ladders import running, write_scripts

from flyball.demo.burners import Burners

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

WORK_S = 0.02  # of a processor, in every run


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="this kernel counts no waiting (schedstat)"
)
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
