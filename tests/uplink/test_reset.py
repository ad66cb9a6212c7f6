"""A connection that is reset while packets wait to be read, of which the event loop tells once, and endless packets."""

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from secure_broker import authority
from test_keepalive import device, fleet
from test_mqtt import WILL, Deaf

from flyball.uplink import driver
from flyball.uplink.connection import Connection
from flyball.uplink.mqtt import Received
from flyball.uplink.tls import Tls
from flyball.uplink.transport import Settings
from flyball_fleet.link import Link

pytestmark = pytest.mark.anyio

ACCEPTED = bytes([0x20, 3, 0, 0, 0])
PONG = bytes([0xD0, 0])
MESSAGE = bytes([0x30, 4, 0, 1, ord("t"), 0])  # PUBLISH with QoS 0
MESSAGE_QOS_2 = bytes([0x34, 6, 0, 1, ord("t"), 0, 1, 0])
PACKETS = 5  # one wake-up reads fewer
BUSY_S = 0.2


class Broker:
    """Accepts one client, and then does what it is told."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._tls = tls
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        peer, _ = self._listening.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a reset drops what waits to be sent
        self._peer = peer if self._tls is None else self._tls.wrap_socket(peer, server_side=True)
        self._peer.recv(1024)
        self._peer.sendall(ACCEPTED)

    def send(self, packets: bytes) -> None:
        self._thread.join(10)
        assert self._peer is not None
        self._peer.sendall(packets)

    def reset(self) -> None:
        """Without a FIN. The event loop is kept busy, so that it finds this and what was sent before together."""
        assert self._peer is not None
        self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._peer.close()
        time.sleep(BUSY_S)

    def close(self) -> None:
        self._listening.close()
        if self._peer is not None:
            self._peer.close()


@contextmanager
def broker(tls: ssl.SSLContext | None = None) -> Iterator[Broker]:
    one = Broker(tls)
    try:
        yield one
    finally:
        one.close()


class Counting(Deaf):
    def __init__(self) -> None:
        self.heard = 0

    def received(self, connection: Connection, message: Received) -> None:
        self.heard += 1


@pytest.mark.parametrize("connect", [device, fleet])
async def test_it_is_noticed_at_once(connect: Callable[[int], "asyncio.Future[Connection | Link]"]) -> None:
    with broker() as peer:
        made = await connect(peer.port)
        peer.send(PONG * PACKETS)
        peer.reset()
        error = await asyncio.wait_for(made.lost(), 5)  # the first tick of the timer comes after 150 s
        assert "broke off" in str(error)


async def test_publishing_after_it_raises_nothing() -> None:
    with broker() as peer:
        made = await device(peer.port)
        peer.send(PONG * PACKETS)
        peer.reset()
        for _ in range(5):
            await asyncio.sleep(0)  # a turn of the event loop
            made.publish("a/b", b"x", retain=False, deflated=False, expiry_s=None)
        assert "broke off" in str(await asyncio.wait_for(made.lost(), 5))


async def test_all_that_came_before_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MOST_READ_S", 0.0)
    listener = Counting()
    with broker() as peer:
        settings = Settings(host="127.0.0.1", port=peer.port, client_id="edge-1", keepalive_s=600, connect_timeout_s=5)
        made = await Connection.open(settings, WILL, listener)
        peer.send(MESSAGE * 100)
        peer.reset()
        await asyncio.wait_for(made.lost(), 5)
        assert listener.heard == 100


async def test_others_have_their_turn_while_a_broker_sends_without_end(tmp_path: Path) -> None:
    authority(tmp_path, "edge-1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    of = Tls(ca_file=f"{tmp_path}/ca.crt", certificate_file=f"{tmp_path}/edge-1.crt", key_file=f"{tmp_path}/edge-1.key")
    with broker(tls) as peer:
        settings = Settings(
            host="127.0.0.1", port=peer.port, client_id="edge-1", keepalive_s=600, connect_timeout_s=5, tls=of
        )
        made = await Connection.open(settings, WILL, Deaf())
        end_s = time.monotonic() + 20

        def flood() -> None:
            with suppress(OSError):
                peer.send(PONG[:1])
                while time.monotonic() < end_s:
                    peer.send(PONG[1:] + PONG * 8191 + PONG[:1])  # one record, and none ends where a packet does

        flooding = threading.Thread(target=flood, daemon=True)
        flooding.start()
        try:
            for _ in range(100):
                await asyncio.sleep(0.005)
            assert flooding.is_alive()
            assert not made.closed
        finally:
            made.abort("enough")
            peer.close()
        flooding.join(10)


@pytest.mark.parametrize("connect", [device, fleet])
async def test_what_nobody_asked_for_is_not_collected(
    connect: Callable[[int], "asyncio.Future[Connection | Link]"],
) -> None:
    with broker() as peer:
        made = await connect(peer.port)
        peer.send(MESSAGE_QOS_2)
        assert "QoS 2" in str(await asyncio.wait_for(made.lost(), 5))
