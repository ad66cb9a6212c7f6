"""A connection that is reset while packets of the broker wait to be read: the event loop tells of it once."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from test_keepalive import device, fleet

from flyball.uplink.connection import Connection
from flyball_fleet.link import Link

pytestmark = pytest.mark.anyio

ACCEPTED = bytes([0x20, 3, 0, 0, 0])
PONG = bytes([0xD0, 0])
PACKETS = 5  # one wake-up reads fewer
BUSY_S = 0.2


class Resetting:
    """Accepts one client; reset() sends it packets and breaks off without a FIN. It keeps the event loop busy, so that
    the packets and the reset are found together."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        self._peer, _ = self._listening.accept()
        self._peer.recv(1024)
        self._peer.sendall(ACCEPTED)

    def reset(self) -> None:
        self._thread.join(10)
        assert self._peer is not None
        self._peer.sendall(PONG * PACKETS)
        self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._peer.close()
        time.sleep(BUSY_S)

    def close(self) -> None:
        self._listening.close()


@contextmanager
def broker() -> Iterator[Resetting]:
    one = Resetting()
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("connect", [device, fleet])
async def test_it_is_noticed_at_once(connect: Callable[[int], "asyncio.Future[Connection | Link]"]) -> None:
    with broker() as peer:
        made = await connect(peer.port)
        peer.reset()
        error = await asyncio.wait_for(made.lost(), 5)  # the first tick of the timer comes after 150 s
        assert "broke off" in str(error)


async def test_publishing_meanwhile_raises_nothing_and_ends_it() -> None:
    with broker() as peer:
        made = await device(peer.port)
        peer.reset()
        made.publish("a/b", b"x" * 100_000, retain=False, deflated=False, expiry_s=None)
        error = await asyncio.wait_for(made.lost(), 5)
        assert "broke off" in str(error)
