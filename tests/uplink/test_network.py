"""Networks that stall, break, lag and lie between a device and a real broker: nothing acknowledged is lost, and the
event loop that serves requests never waits."""

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from device_side import QUICK, linked, make, until
from faulty_network import Cable, FaultyNetwork, cable
from fleet_side import Fleet

from flyball.events import Event, Events
from flyball.uplink.uplink import Uplink
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio


def ready(doc: Any) -> bool:
    return bool(doc["state"] == "ready")


@asynccontextmanager
async def behind(network: FaultyNetwork, folder: Path, events: Events, **more: Any) -> AsyncIterator[Uplink]:
    async with linked(network.port, folder, events=events, **{"keepalive_s": 2, **more}) as uplink:
        yield uplink


def publish(events: Events, first: int, count: int) -> None:
    for number in range(first, first + count):
        events.publish(Event(kind="news", t_s=1.0, message=str(number)))


async def all_told(fleet: Fleet, count: int, timeout_s: float = 20) -> None:
    """Every event arrives, and the numbers of all are without a gap."""
    await until(lambda: {int(d["message"]) for d in fleet.all("e/news")} == set(range(count)), timeout_s)
    seen = {h.doc["seq"] for h in list(fleet.heard) if h.suffix.startswith("e/")}
    assert seen == set(range(max(seen) + 1))
    assert fleet.all("gap") == []


async def test_a_stall_is_noticed_and_nothing_is_lost(mosquitto: Mosquitto, tmp_path: Path) -> None:
    events = Events()
    with Fleet(mosquitto.port) as fleet:
        async with FaultyNetwork(mosquitto.port) as network, behind(network, tmp_path, events) as uplink:
            await fleet.waits("status", ready)
            network.stall()
            publish(events, 0, 20)
            began = asyncio.get_running_loop().time()
            await until(lambda: uplink.state().error != "", 15)
            # One and a quarter keep-alives, on a machine that others use, too.
            assert asyncio.get_running_loop().time() - began < 8
            assert "has acknowledged nothing for 2 s" in uplink.state().error
            network.reset()
            network.go()
            await all_told(fleet, 20)


async def test_an_idle_link_that_stalls_is_noticed_by_its_pings(mosquitto: Mosquitto, tmp_path: Path) -> None:
    events = Events()
    async with (
        FaultyNetwork(mosquitto.port) as network,
        behind(network, tmp_path, events, telemetry_period_s=60) as uplink,
    ):
        await until(lambda: uplink.state().queued == 0)
        network.stall()
        await until(lambda: not uplink.state().connected, 15)
        network.reset()
        network.go()
        await until(lambda: uplink.state().connected)


async def test_half_open_what_arrives_is_sent_again_and_nothing_is_lost(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """The broker hears the device, which hears nothing: its publications come twice, its numbers tell."""
    events = Events()
    with Fleet(mosquitto.port) as fleet:
        async with FaultyNetwork(mosquitto.port) as network, behind(network, tmp_path, events) as uplink:
            await fleet.waits("status", ready)
            await until(lambda: uplink.state().queued == 0)
            network.deaf = True
            publish(events, 0, 5)
            await until(lambda: not uplink.state().connected, 15)
            assert len(fleet.all("e/news")) >= 5
            network.deaf = False
            network.reset()
            await all_told(fleet, 5)


async def test_resets_all_the_time(mosquitto: Mosquitto, tmp_path: Path) -> None:
    events = Events()
    with Fleet(mosquitto.port) as fleet:
        async with FaultyNetwork(mosquitto.port) as network, behind(network, tmp_path, events) as uplink:
            for number in range(15):
                publish(events, number * 4, 4)
                fleet.order("ping", f"p{number}", {"echo": "x" * 2000})
                await asyncio.sleep(0.03 * (number % 5))
                session = uplink.state().session or 0
                network.reset()
                await until(lambda s=session: uplink.state().connected and (uplink.state().session or 0) > s, 15)  # type: ignore[misc]
            await all_told(fleet, 60)
            for number in range(15):
                await fleet.waits(f"cmd/ping/p{number}/st", lambda d: d["state"] == "successful")
            assert network.connections > 15


async def test_a_slow_and_distant_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A satellite: 300 ms each way, 4 kB/s."""
    events = Events()
    with Fleet(mosquitto.port) as fleet:
        async with FaultyNetwork(mosquitto.port) as network:
            network.delay_s, network.bytes_per_s = 0.3, 4000.0
            async with behind(network, tmp_path, events, keepalive_s=20, timing=QUICK_BUT_FAR) as uplink:
                publish(events, 0, 40)
                await fleet.waits("status", ready, 20)
                fleet.order("ping", "p1", {"echo": "x" * 2000})
                await all_told(fleet, 40, 40)
                await fleet.waits("cmd/ping/p1/st", lambda d: d["state"] == "successful", 20)
                assert uplink.state().session == 1
                network.delay_s, network.bytes_per_s = 0.0, None


async def test_a_network_that_stalls_while_connecting(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with FaultyNetwork(mosquitto.port) as network:
        network.stall()
        uplink = make(network.port, tmp_path)
        await uplink.start()
        try:
            await until(lambda: "said nothing for 1 s" in uplink.state().error)
            network.reset()
            network.go()
            await until(lambda: uplink.state().connected)
        finally:
            await uplink.stop()


async def test_the_event_loop_never_waits_for_the_network(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Whatever the link does, what else runs on this loop is never held up as long as a connect or a stall takes."""
    events, longest_s, running = Events(), 0.0, True

    async def requests() -> None:
        nonlocal longest_s
        while running:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest_s = max(longest_s, time.monotonic() - began - 0.005)

    async with FaultyNetwork(mosquitto.port) as network, behind(network, tmp_path, events) as uplink:
        await until(lambda: uplink.state().queued == 0)
        task = asyncio.create_task(requests())
        network.stall()
        publish(events, 0, 200)
        await until(lambda: not uplink.state().connected, 15)
        await asyncio.to_thread(mosquitto.stop)
        network.reset()
        network.go()
        await asyncio.sleep(1)
        await asyncio.to_thread(mosquitto.start)
        await until(lambda: uplink.state().connected)
        running = False
        await task
    assert longest_s < LONGEST_S


# ------------------------------------------------------------------------------------------------- a cable that is cut


@pytest.fixture
def far(mosquitto: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cable, int, Path]]:
    """A broker at the other end of a cable: (cable, port, its log)."""
    folder = tmp_path_factory.mktemp("far")
    with cable() as made:
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener 1883 0.0.0.0\nallow_anonymous true\nuser root\nlog_dest file {folder}/log\nlog_type all\n"
        )
        process = subprocess.Popen(
            made.run(mosquitto._executable, "-c", str(config)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _until_listening(made.address, 1883)
            yield made, 1883, folder / "log"
        finally:
            process.terminate()
            process.wait(10)


def _until_listening(host: str, port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((host, port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_a_blackout(far: tuple[Cable, int, Path], tmp_path: Path) -> None:
    """Packets vanish without a word; the link is back by itself, and so is everything that was said meanwhile."""
    made, port, log = far
    events = Events()
    broker = {"broker": f"mqtt://{made.address}:{port}", "keepalive_s": 2}
    async with linked(port, tmp_path, events=events, **broker) as uplink:
        await until(lambda: uplink.state().queued == 0)
        made.pull()
        publish(events, 0, 10)
        await until(lambda: not uplink.state().connected, 15)
        session = uplink.state().session or 0
        await until(lambda: (uplink.state().session or 0) > session + 1, 15)  # it goes on trying, in vain
        assert not uplink.state().connected
        made.plug()
        await until(lambda: uplink.state().connected, 15)
        await until(lambda: uplink.state().queued == 0, 15)
        assert uplink.state().dropped == 0
    assert log.read_text(errors="replace").count("/e/news'") >= 10


QUICK_BUT_FAR = type(QUICK)(will_delay_s=1, connect_timeout_s=10.0, waits=QUICK.waits)
LONGEST_S = 0.5  # half of QUICK.connect_timeout_s; far more than it takes, for cores that others use, too
