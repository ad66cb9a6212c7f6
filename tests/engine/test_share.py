"""Turns on an accelerator: the ladder that has used least is next, measured in time."""

import asyncio
from pathlib import Path

import pytest
from faulty_ladders import QUICK, catalogue, write_scripts
from faulty_requests import ask

from flyball.engine.share import Share, Shares
from flyball.ladder.manifest import load


class Rung:
    """Has `work` runs to do, each `seconds` long; finishes them when told."""

    def __init__(self, share: Share, name: str, work: int) -> None:
        self.share = share
        self.name = name
        self.work = work
        self.running = 0

    def go(self) -> None:
        while self.work and self.share.may_start(self, self.name, self.go):
            self.work -= 1
            self.running += 1
        if not self.work:
            self.share.leave(self)

    def finish(self, seconds: float) -> None:
        self.running -= 1
        self.share.finished(self.name, seconds)
        self.go()


def test_processors_are_not_shared_here() -> None:
    shares = Shares()
    assert shares.of("cpu") is None
    assert shares.of("edgetpu") is shares.of("edgetpu") is not None


def test_a_ladder_alone_takes_every_turn() -> None:
    rung = Rung(Share(turns=2), "a", 5)
    rung.go()
    assert rung.running == 2
    for _ in range(5):
        rung.finish(0.1)
    assert (rung.work, rung.running) == (0, 0)


def test_two_ladders_get_equal_time_though_one_asks_for_more_and_longer_runs() -> None:
    share = Share(turns=1)
    long, short = Rung(share, "long", 1000), Rung(share, "short", 1000)
    long.go()
    short.go()
    used = {"long": 0.0, "short": 0.0}
    for _ in range(330):
        rung, seconds = (long, 0.1) if long.running else (short, 0.01)
        used[rung.name] += seconds
        rung.finish(seconds)
    assert used["long"] == pytest.approx(used["short"], abs=0.2)


def test_one_that_comes_late_has_saved_nothing_up() -> None:
    share = Share(turns=1)
    early, late = Rung(share, "early", 1000), Rung(share, "late", 1000)
    early.go()
    for _ in range(100):
        early.finish(0.1)
    late.go()
    turns = []
    for _ in range(20):
        rung = early if early.running else late
        turns.append(rung.name)
        rung.finish(0.1)
    assert turns.count("early") >= 8


def test_one_that_has_nothing_left_holds_nobody_up() -> None:
    share = Share(turns=1)
    a, b = Rung(share, "a", 1), Rung(share, "b", 1)
    a.go()
    b.go()
    b.work = 0  # its requests were withdrawn while it waited
    a.finish(0.1)
    c = Rung(share, "c", 1)
    c.go()
    assert c.running == 1


@pytest.mark.anyio
@pytest.mark.usefixtures("faulty")
async def test_a_busy_ladder_leaves_another_its_turns(tmp_path: Path) -> None:
    accelerator = 'accelerators = ["faulty"]'
    config = QUICK
    busy = load(write_scripts(tmp_path / "busy", {"a": {"run": "slow"}}, extra=accelerator))
    other = write_scripts(tmp_path / "other", {"a": {}}, extra=accelerator)
    manifest = other / "flyball-ladder.toml"
    manifest.write_text(manifest.read_text().replace('name = "t"', 'name = "other"', 1))
    async with catalogue(config) as catalog:
        await catalog.load(busy)
        await catalog.load(load(other))
        flood = [asyncio.create_task(catalog.get("t").infer(ask(1.0, 1.0))) for _ in range(8)]
        await asyncio.sleep(0.05)
        await asyncio.wait_for(catalog.get("other").infer(ask(1.0, 1.0)), 0.7)
        assert sum(f.done() for f in flood) <= 2, "it had not to wait for the flood to end"
        await asyncio.gather(*flood)
