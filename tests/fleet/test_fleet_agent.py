"""The daemon's own uplink at the fleet server: one protocol."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from fleet_rig import ServerProcess, run_cli, until

from flyball import config
from flyball.clock import SystemClock
from flyball.events import Event, Events
from flyball.uplink.handlers import ping
from flyball.uplink.messages import BirthFacts, Hardware, LadderFacts, RungFacts, Software
from flyball.uplink.record import LadderRecord, Record
from flyball.uplink.uplink import Uplink
from flyball_fleet import ledger, view
from real_broker import Mosquitto


def test_what_the_daemon_says_is_kept_and_its_orders_come_back(mosquitto: Mosquitto, tmp_path: Path) -> None:
    db = tmp_path / "fleet.db"
    server = ServerProcess(mosquitto.port, db)
    clock, events = SystemClock(), Events()

    def snapshot() -> Record:
        ladder = LadderRecord(state="ready", rung="big", p95_s=0.01)
        return Record(ts=clock.wall_s(), mono=clock.boot_s(), power_w=3.25, ladders={"shapes": ladder})

    def facts() -> BirthFacts:
        rungs = (RungFacts(name="big"),)
        return BirthFacts(
            hardware=Hardware(board="test board"),
            software=Software(flyball="0.1"),
            ladders=(LadderFacts(name="shapes", version="1.0.0", rungs=rungs),),
        )

    uplink = Uplink(
        config.Uplink(
            enabled=True, broker=f"mqtt://127.0.0.1:{mosquitto.port}", device="agent-1",
            telemetry_period_s=0.1, batch_s=0.5,
        ),
        snapshot=snapshot, birth_facts=facts, handlers=(ping(),), events=events, clock=clock, state_dir=tmp_path,
        synchronized=lambda: True,
    )  # fmt: skip

    async def play() -> int:
        await uplink.start()
        await asyncio.to_thread(until, lambda: rows() and rows()[0].record, 30, "a record")
        events.publish(Event(kind="decision", t_s=clock.monotonic_s(), message="stays on big"))
        await asyncio.to_thread(until, lambda: rows()[0].commands == "verified", 15, "the answer to its probe")
        broker = f"mqtt://127.0.0.1:{mosquitto.port}"
        told = await asyncio.to_thread(run_cli, "send", "agent-1", "ping", "echo=hello", "--broker", broker)
        await asyncio.sleep(1.0)
        await uplink.stop()
        return told.returncode

    def rows() -> list[view.Row]:
        return view.devices([db], time.time())

    assert asyncio.run(play()) == 0
    until(lambda: rows()[0].state == "disconnected")
    assert rows()[0].birth is not None
    assert {e["kind"] for e in view.details([db], "agent-1")["events"]} >= {"decision", "probe"}
    lines = {line.stream: line for line in ledger.balance(view.spans([db]))}
    assert set(lines) == {"main", "events"}
    assert all(line.adds_up for line in lines.values()), lines
    assert lines["main"].received > 10
    assert view.rejected([db]) == []
    assert server.end() == 0
