"""Simulated devices keep to the protocol when the link does not keep."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleet_rig import ServerProcess, run_cli, until

from flyball.clock import SystemClock
from flyball.uplink.backoff import Waits
from flyball.uplink.messages import Presence
from flyball_fleet import address, ledger, view
from flyball_fleet.link import Message
from flyball_fleet.simulate.device import Habits
from flyball_fleet.simulate.fleet import Fleet
from flyball_fleet.simulate.queue import LIMITS, Publication, Queue
from real_broker import Mosquitto

QUICK = Habits(
    rate_hz=20, batch_s=0.2, event_every_s=1.0, will_delay_s=0, timeout_s=5, waits=Waits(base_s=0.2, cap_s=0.5)
)


def publication(topic: str, first: int, lane: str = "telemetry", **more: object) -> Publication:
    return Publication(topic=topic, payload=b"", lane=lane, stream="main", numbers=((first, first),), **more)  # type: ignore[arg-type]


def test_a_full_queue_declares_what_it_dropped() -> None:
    queue = Queue({"state": 2, "event": 2, "telemetry": 3})
    for i in range(5):
        queue.add(publication(f"t{i}", i))
    assert queue.take_lost() == {"main": [(0, 1)]}
    assert queue.take_lost() == {}
    id, first = queue.take() or (0, None)
    assert first is not None
    assert first.numbers == ((2, 2),)
    queue.add(publication("t5", 5))
    queue.link_lost()  # what was under way has no room any more
    assert queue.take_lost() == {"main": [(2, 2)]}
    assert queue.delivered(id, refused=False) is None, "an acknowledgement of a link that is gone"


def test_states_go_first_and_only_the_newest_of_a_topic() -> None:
    queue = Queue(LIMITS)
    queue.add(publication("t", 0))
    queue.add(Publication(topic="status", payload=b"old", lane="state", retain=True))
    queue.add(Publication(topic="status", payload=b"new", lane="state", retain=True))
    assert [p.payload for _, p in (queue.take(), queue.take()) if p] == [b"new", b""]  # type: ignore[misc]
    assert queue.take() is None


def test_after_a_broker_restart_all_come_back_and_nothing_is_missing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    db = tmp_path / "fleet.db"
    server = ServerProcess(mosquitto.port, db)

    async def play() -> tuple[dict[str, dict[str, dict[str, int]]], Fleet]:
        where = address.parse(f"mqtt://127.0.0.1:{mosquitto.port}")
        fleet = Fleet(where, "default", 10, QUICK, SystemClock())
        await fleet.start()
        await wait(lambda: fleet.ready() == 10)
        for _ in range(2):
            await asyncio.to_thread(mosquitto.stop)
            await wait(lambda: fleet.ready() == 0)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(mosquitto.start)
            await wait(lambda: fleet.ready() == 10)
        await asyncio.sleep(0.5)
        assert fleet.failed() == ""
        return await fleet.stop(), fleet

    async def wait(condition: object) -> None:
        await asyncio.to_thread(until, condition, 30)

    claims, fleet = asyncio.run(play())
    assert all(device.session >= 3 for device in fleet.devices)

    def lines() -> list[ledger.Line]:
        return ledger.balance(view.spans([db]), claims)

    until(lambda: all(line.adds_up for line in lines()), 30, "the ledger")
    assert len(lines()) == 20

    def states() -> list[str]:
        return sorted(r.state for r in view.devices([db], time.time()))

    try:
        until(lambda: states() == ["disconnected"] * 10)
    except AssertionError:
        pytest.fail(f"not all are seen to have left: {states()}")
    assert server.end() == 0


def test_a_late_answer_does_not_undo_the_goodbye(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer to a probe may come between the goodbye and the end of the connection."""

    async def play() -> None:
        where = address.parse(f"mqtt://127.0.0.1:{mosquitto.port}")
        fleet = Fleet(where, "default", 1, QUICK, SystemClock())
        await fleet.start()
        await asyncio.to_thread(until, lambda: fleet.ready() == 1)
        (device,) = fleet.devices
        say = device._say

        def say_and_be_answered(state: Presence) -> None:
            say(state)
            if state == "disconnected":
                topic = "flyball/v1/default/sim-0001/sig/probe"
                device._take(Message(topic=topic, payload=b"", deflated=False, retain=False, qos=1, id=1, expiry_s=60))

        monkeypatch.setattr(device, "_say", say_and_be_answered)
        await fleet.stop()
        assert device._announcer.verified, "the answer was taken"

    asyncio.run(play())
    db = tmp_path / "fleet.db"
    server = ServerProcess(mosquitto.port, db)
    until(lambda: [r.state for r in view.devices([db], time.time())] == ["disconnected"])
    assert server.end() == 0


def test_the_same_seed_makes_the_same_machines() -> None:
    from flyball.uplink.stamp import Stamp
    from flyball_fleet.simulate.machine import Machine

    now = Stamp(ts=1.0, mono=2.0, boot="b", clk="synced")
    one, two, other = (Machine(random.Random(seed)).record(now) for seed in (1, 1, 2))
    assert one == two != other


def test_simulate_says_how_it_went(mosquitto: Mosquitto, tmp_path: Path) -> None:
    sent = tmp_path / "sent.json"
    found = run_cli(
        "simulate", "3", "--rate", "20", "--seconds", "2s", "--batch", "0.5s", "--json", "--sent", str(sent),
        "--broker", f"mqtt://127.0.0.1:{mosquitto.port}",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert (told["devices"], told["connected"], told["connects"]) == (3, 3, 3)
    claims = json.loads(sent.read_text())
    assert sum(s["main"] for epochs in claims.values() for s in epochs.values()) == told["sent"]["main"] > 60
    mosquitto.stop()
    try:
        found = run_cli("simulate", "1", "--seconds", "1", "--broker", f"mqtt://127.0.0.1:{mosquitto.port}")
    finally:
        mosquitto.start()
    assert found.returncode == 3
    assert "0 of 1 devices were connected" in found.stdout


def test_the_fleet_takes_nothing_of_the_agent_but_the_protocol() -> None:
    allowed = {
        "flyball", "flyball.cli", "flyball.cli.terminal", "flyball.clock", "flyball.errors", "flyball.uplink",
        "flyball.uplink.backoff", "flyball.uplink.batch", "flyball.uplink.columns", "flyball.uplink.commands",
        "flyball.uplink.cure", "flyball.uplink.damage", "flyball.uplink.driver", "flyball.uplink.messages",
        "flyball.uplink.record", "flyball.uplink.stamp", "flyball.uplink.topics",
        # What these bring along: values and ports.
        "flyball.client", "flyball.config", "flyball.control_api", "flyball.document", "flyball.ports",
        "flyball.events",
    }  # fmt: skip
    code = "import sys, flyball_fleet.cli; print(*(m for m in sys.modules if m.partition('.')[0] == 'flyball'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) - allowed == set()


def test_other_commands_do_not_wait_for_the_fleet() -> None:
    code = (
        "import sys\nfrom flyball.cli.app import run\nrun(['status', '--socket', '/nowhere'])\n"
        "print(*(m for m in sys.modules if m.startswith(('flyball_fleet', 'paho'))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
