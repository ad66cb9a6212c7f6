"""Rungs that are open but not well: an instance that hangs, one on standby that has ended or answers wrongly."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, running, write_scripts
from faulty_requests import ask, until, values

from flyball.clock import SystemClock
from flyball.config import Cache, LadderSettings
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.events import Events
from flyball.ladder.manifest import load

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


async def test_an_instance_that_hangs_beside_one_that_answers_is_found_and_replaced(tmp_path: Path) -> None:
    root = write_scripts(tmp_path, {"big": {}}, extra="instances = 2")
    config = msgspec.structs.replace(QUICK, heartbeat_s=0.2, request_timeout_s=1.0)
    async with running(root, config) as runner:
        first = runner._seats.active
        assert first is not None
        answering, hanging = first.workers  # of two that are idle the first one is asked
        os.kill(hanging.pid, signal.SIGSTOP)
        for _ in range(200):
            assert values(await runner.infer(ask(1.0, 2.0))) == [2.0, 4.0]
            runner.tend()
            if not hanging.alive():
                break
            await asyncio.sleep(0.02)
        assert not hanging.alive()
        assert answering.alive(), "the one that answers is not to blame"
        assert runner.totals().worker_restarts == {"hung": 1}
        await until(lambda: runner._seats.active is not first)
        assert runner.status().state == "ready"


async def test_answers_of_a_rung_that_turned_wrong_on_standby_are_forgotten(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    root = write_scripts(tmp_path / "l", {"big": {"canary": "wrong", "marker": str(marker)}, "small": {"factor": 3}})
    settings = LadderSettings(cache=Cache(max_mib=1))
    runner = LadderRunner(load(root), QUICK, Standby(1 << 30), Events(), SystemClock(), settings)
    await runner.start("small")
    try:
        await runner.switch("big", "test")
        await runner.infer(ask(1.0, 2.0))
        await runner.switch("small", "test")
        assert runner.totals().cache["entries"] == 1
        marker.touch()
        (big,) = [o for o in runner._seats.opened() if o.rung.name == "big"]
        big.answered_s -= 10.0  # long ago: it is asked before it is trusted
        with pytest.raises(Exception, match="the answer to the canary is wrong"):
            await runner.switch("big", "test")
        assert runner.totals().cache["entries"] == 0
    finally:
        await runner.close()


class Kept:
    def __init__(self, name: str, size: int) -> None:
        self.rung = type("Rung", (), {"name": name})()
        self.resident_bytes = size
        self.ended = False

    def alive(self) -> bool:
        return not self.ended


def test_what_has_ended_on_standby_pushes_out_nothing_that_lives() -> None:
    standby = Standby(100)
    ended, living = Kept("mid", 80), Kept("small", 80)
    assert standby.keep("t", ended, lambda name: 1) == []  # type: ignore[arg-type]
    ended.ended = True
    assert standby.keep("t", living, lambda name: 2) == []  # type: ignore[arg-type]
    assert standby.of("t") == [living]
