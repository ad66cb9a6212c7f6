"""An Uplink with everything it needs, for tests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flyball import config
from flyball.clock import Clock, SystemClock
from flyball.events import Events
from flyball.uplink.backoff import Waits
from flyball.uplink.commands import Handler
from flyball.uplink.handlers import ping
from flyball.uplink.homeassistant import View
from flyball.uplink.journal import Journal
from flyball.uplink.link import Timing
from flyball.uplink.messages import BirthFacts, Hardware, LadderFacts, Software
from flyball.uplink.record import LadderRecord, Record
from flyball.uplink.twin import Twin
from flyball.uplink.uplink import Uplink

QUICK = Timing(will_delay_s=1, connect_timeout_s=1.0, waits=Waits(base_s=0.2, cap_s=0.4))
FACTS = BirthFacts(
    hardware=Hardware(board="test board", cores=4),
    software=Software(flyball="0.1.0"),
    ladders=(LadderFacts(name="imagenet", version="1.0.0"),),
)


def records() -> Callable[[], Record]:
    """A snapshot function whose records can be told apart."""
    count = itertools.count()
    clock = SystemClock()

    def snapshot() -> Record:
        return Record(
            ts=clock.wall_s(),
            mono=clock.boot_s(),
            load_1m=float(next(count)),
            ladders={"imagenet": LadderRecord(state="ready", rung="big", p95_s=0.01)},
        )

    return snapshot


def make(
    port: int,
    state_dir: Path,
    *,
    handlers: Sequence[Handler[Any]] = (),
    events: Events | None = None,
    timing: Timing = QUICK,
    clock: Clock | None = None,
    synchronized: Callable[[], bool] = lambda: True,
    journal: Journal | None = None,
    twin: Twin | None = None,
    home: Callable[[], View] | None = None,
    **settings: Any,
) -> Uplink:
    defaults: dict[str, Any] = {
        "enabled": True,
        "broker": f"mqtt://127.0.0.1:{port}",
        "tenant": "acme",
        "device": "edge-1",
    }
    allow = settings.pop("commands", ("ping", *(h.name for h in handlers)))
    return Uplink(
        config.Uplink(**{**defaults, "commands": config.Commands(allow=allow), **settings}),
        snapshot=records(),
        birth_facts=lambda: FACTS,
        handlers=(ping(), *handlers),
        events=events or Events(),
        clock=clock or SystemClock(),
        state_dir=state_dir,
        timing=timing,
        synchronized=synchronized,
        journal=journal,
        twin=twin,
        home=home,
    )


@asynccontextmanager
async def linked(port: int, state_dir: Path, **more: Any) -> AsyncIterator[Uplink]:
    """Connected; stopped at the end."""
    uplink = make(port, state_dir, **more)
    await uplink.start()
    try:
        await until(lambda: uplink.state().connected)
        yield uplink
    finally:
        await uplink.stop()


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        await asyncio.sleep(0.01)
