"""The keep-alive that the broker sets in CONNACK holds from then on, for a device and for the fleet's link."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from flyball.uplink.connection import Connection
from flyball.uplink.mqtt import Received, Will
from flyball.uplink.transport import Settings
from flyball_fleet.address import parse
from flyball_fleet.link import Link, Terms

pytestmark = pytest.mark.anyio

ASKED_S = 600  # a first tick of the timer at 150 s
ACCEPTED = bytes([0x20, 6, 0, 0, 3, 0x13, 0, 1])  # CONNACK with a server keep-alive of 1 s
PING, PONG = 0xC0, bytes([0xD0, 0])


class Deaf:
    """Implements connection.Listener."""

    def received(self, connection: Connection, message: Received) -> None: ...

    def published(self, connection: Connection, id: int, refusal: str) -> None: ...


@asynccontextmanager
async def broker(pinged: asyncio.Event) -> AsyncIterator[int]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        await asyncio.sleep(0.2)  # the timer runs already, as asked for
        writer.write(ACCEPTED)
        while data := await reader.read(1024):
            if data[0] == PING:
                writer.write(PONG)
                pinged.set()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def device(port: int) -> Connection:
    settings = Settings(
        host="127.0.0.1", port=port, client_id="edge-1", username="", password_file="",
        keepalive_s=ASKED_S, connect_timeout_s=5,
    )  # fmt: skip
    return await Connection.open(settings, Will(topic="t", payload=b"{}", delay_s=1), Deaf())


async def fleet(port: int) -> Link:
    terms = Terms(client_id="c", keepalive_s=ASKED_S)
    return await Link.open(parse(f"mqtt://127.0.0.1:{port}"), terms, lambda *_: None)


@pytest.mark.parametrize("connect", [device, fleet])
async def test_a_shorter_keepalive_of_the_broker_is_kept_from_connack_on(
    connect: Callable[[int], "asyncio.Future[Connection | Link]"],
) -> None:
    pinged = asyncio.Event()
    async with broker(pinged) as port:
        made = await connect(port)
        await asyncio.wait_for(pinged.wait(), 20)  # with the first tick as asked for it would come after 150 s
        assert not made.closed
        made.abort("enough")
