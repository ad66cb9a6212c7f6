"""Connections to things that are no broker, or do not want us."""

import asyncio
import gc
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flyball.errors import LinkError
from flyball.uplink.backoff import TAKEN_OVER
from flyball.uplink.connection import Connection
from flyball.uplink.mqtt import Received, Will
from flyball.uplink.transport import Settings
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio

WILL = Will(topic="flyball/v1/acme/edge-1/status", payload=b"{}", delay_s=1)


class Deaf:
    """Implements mqtt.Listener."""

    def received(self, connection: Connection, message: Received) -> None: ...

    def published(self, connection: Connection, id: int, refusal: str) -> None: ...


def settings(port: int, **more: str) -> Settings:
    defaults = {"host": "127.0.0.1", "client_id": "edge-1", "username": "", "password_file": ""}
    return Settings(port=port, keepalive_s=30, connect_timeout_s=0.5, **{**defaults, **more})


async def connect(port: int, **more: str) -> Connection:
    return await Connection.open(settings(port, **more), WILL, Deaf())


@asynccontextmanager
async def peer(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """Something that listens on a free port."""

    async def talk_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass  # the other side may leave first
        finally:
            writer.close()

    server = await asyncio.start_server(talk_and_close, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(LinkError, match="refused"):
            await connect(bound.getsockname()[1])


async def test_a_name_that_is_none() -> None:
    with pytest.raises(LinkError, match=r"'no-such-host\.invalid' cannot be resolved"):
        await connect(1883, host="no-such-host.invalid")


async def test_a_peer_that_says_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with peer(silent) as port:
        with pytest.raises(LinkError, match=r"said nothing for 0\.5 s"):
            await connect(port)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example.com ESMTP\r\n",
        b"\x20\x02\x00\x05",  # CONNACK of MQTT 3.1.1: not authorized
        b"\x20\x03\x00\x00\xff",  # properties cut off
        b"\x20\xff\xff\xff\xff\x7f",  # a length of five bytes
        b"\x00" * 64,
        b"\xff" * 64,
        bytes(range(256)),
    ],
    ids=lambda a: repr(a[:12]),
)
async def test_a_peer_that_talks_something_else(answer: bytes) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with peer(talk) as port:
        with pytest.raises(LinkError):
            await connect(port)


async def test_connecting_does_not_hold_up_the_event_loop() -> None:
    """198.51.100.1 is reserved for documentation: it answers nothing, or the network says at once that it is not
    there; either way the loop goes on."""
    beats, done = 0, asyncio.Event()

    async def beat() -> None:
        nonlocal beats
        while not done.is_set():
            beats += 1
            await asyncio.sleep(0.01)

    task = asyncio.create_task(beat())
    began = time.monotonic()
    with pytest.raises(LinkError):
        await connect(1883, host="198.51.100.1")
    took_s = time.monotonic() - began
    done.set()
    await task
    assert beats >= took_s * 20


async def test_giving_up_while_connecting_leaves_nothing_behind() -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        left.set()

    async with peer(silent) as port:
        attempt = asyncio.create_task(connect(port))
        await arrived.wait()
        attempt.cancel()
        await asyncio.wait({attempt})
        await asyncio.wait_for(left.wait(), 5)
    assert attempt.cancelled()


async def test_a_wrong_password_has_its_reason_code(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.stop()
    nobody = tmp_path / "passwords"
    nobody.write_text("")
    nobody.chmod(0o644)
    mosquitto.start([f"password_file {nobody}", "allow_anonymous false"])
    password = tmp_path / "secret"
    password.write_text("wrong\n")
    with pytest.raises(LinkError) as caught:
        await connect(mosquitto.port, username="edge-1", password_file=str(password))
    assert caught.value.code == 0x87
    assert "wrong" not in str(caught.value)


async def test_a_password_file_that_is_not_there() -> None:
    with pytest.raises(LinkError, match=r"uplink\.password_file: /nowhere"):
        await connect(1, username="edge-1", password_file="/nowhere")


async def test_a_second_client_under_the_same_id_takes_over(mosquitto: Mosquitto) -> None:
    first = await connect(mosquitto.port)
    second = await connect(mosquitto.port)
    # mosquitto says why since 2.0.15 (its issue 2607); the 2.0.11 of Debian 12 and Ubuntu 22.04 just hangs up.
    assert (await first.lost()).code in (TAKEN_OVER, None)
    assert not second.closed
    await second.close()


async def test_the_reason_of_a_disconnect_comes_through() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00" + b"\xe0\x01\x8e")  # CONNACK, DISCONNECT
        await writer.drain()

    async with peer(talk) as port:
        error = await (await connect(port)).lost()
    assert error.code == TAKEN_OVER
    assert "taken over" in str(error)


async def test_a_topic_that_is_no_text_is_still_a_message_to_acknowledge() -> None:
    acknowledged = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00" + b"\x32\x08\x00\x02\xff\xfe\x00\x07\x00x")  # CONNACK, PUBLISH 7
        if b"\x40\x02\x00\x07" in await reader.read(1000):
            acknowledged.set()
        await reader.read()

    class Polite(Deaf):
        def received(self, connection: Connection, message: Received) -> None:
            assert (message.topic, message.payload) == ("", b"x")
            connection.acknowledge(message)

    async with peer(talk) as port:
        connection = await Connection.open(settings(port), WILL, Polite())
        await asyncio.wait_for(acknowledged.wait(), 5)
        connection.abort("done")


async def test_what_the_broker_says_of_its_limits(mosquitto: Mosquitto) -> None:
    mosquitto.stop()
    mosquitto.start(["max_packet_size 3000", "max_inflight_messages 5"])
    connection = await connect(mosquitto.port)
    assert (connection.maximum_packet, connection.receive_maximum) == (3000, 5)
    await connection.close()


async def test_connections_come_and_go_without_a_trace(mosquitto: Mosquitto) -> None:
    for _ in range(3):
        await (await connect(mosquitto.port)).close()
        (await connect(mosquitto.port)).abort("no")
    gc.collect()
    from paho.mqtt.client import Client

    assert [o for o in gc.get_objects() if isinstance(o, Client)] == []
    assert [t.name for t in threading.enumerate() if "flyball" in t.name or "paho" in t.name] == []


def test_one_module_of_the_agent_knows_paho() -> None:
    agent = Path(__file__).resolve().parents[2] / "agent/flyball"
    knowing = [f.name for f in agent.rglob("*.py") if re.search(r"^\s*(import|from) paho", f.read_text(), re.MULTILINE)]
    assert knowing == ["mqtt.py"]
