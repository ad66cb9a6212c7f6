"""One connected MQTT client on the event loop, without a thread of its own.

socket readable or writable, timer -> Driver -> the client's loop_read, loop_write, loop_misc -> its callbacks

For the device's connection and for the fleet's links, of which one process may hold hundreds. What goes wrong is told
through `broken`. Never sends, never retries and never decides; of paho it knows the client that it is given.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from flyball.errors import LinkError

if TYPE_CHECKING:
    from flyball.uplink.mqtt import Client

KEEPALIVE_S = 60  # a broker may ask for none
MOST_READ_S = 0.005  # at one go


class Driver:
    """From start() to stop(). `broken` is told why the connection cannot go on, and calls stop(); `look` is called
    before every tick of the timer, four in a keep-alive, be it the one asked for or the one that CONNACK sets."""

    def __init__(self, client: Client, broken: Callable[[LinkError], None], look: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._broken = broken
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._armed_s = 0.0
        self._failure = select.poll()  # errors alone: of everything else the event loop tells
        self._going_on: asyncio.Handle | None = None  # with what one turn of reading has left
        self._stopped = False

    def start(self) -> None:
        client = self._client
        sock = client.socket()
        if sock is None:
            self._broken(LinkError("the broker closed the connection at once"))
            return
        client.on_socket_close = self._forget
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._forget_writer
        self._failure.register(sock, 0)
        self._loop.add_reader(sock, self._step, self._read)
        if client.want_write():  # a CONNECT that did not fit the socket's buffer
            self._want_write(client, None, sock)
        if hasattr(sock, "pending"):  # CONNACK may have come along with the handshake's last bytes
            self._loop.call_soon(self._step, self._read)
        self._tick()

    def stop(self) -> None:
        """Closes the socket without a DISCONNECT."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._going_on is not None:
            self._going_on.cancel()
        release(self._client)
        self._broken = self._look = _nobody  # undoes the cycle owner -> driver -> owner

    def _step(self, work: Callable[[], object]) -> None:
        """Lets paho read or write. Its parser raises whatever it likes on bytes that are not MQTT."""
        if self._stopped:
            return
        try:
            work()
        except Exception as error:
            self._broken(LinkError(f"what the broker sends is not MQTT 5 ({type(error).__name__}: {error})"))

    def _read(self) -> None:
        """Until nothing is left: what TLS has decrypted already makes no socket readable again, and of one that has
        failed uvloop tells once and no more, whatever came before the failure. Others have their turn in between."""
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None
        until_s = monotonic() + MOST_READ_S  # the loop's own time stands still meanwhile
        while not self._stopped:
            self._client.loop_read()
            # They grow until the broker releases them, and each makes a read longer. Another paho may not have them so.
            if getattr(self._client, "_in_messages", None):
                self._broken(LinkError("the broker sends with QoS 2, for which nobody has asked"))
                return
            if self._period_s() != self._armed_s:
                self._arm()  # CONNACK has named another keep-alive, perhaps a far shorter one
            sock = self._client.socket()
            if sock is None:
                return  # it has ended, and paho has said why
            pending = getattr(sock, "pending", None)
            if (pending is None or not pending()) and not self._failure.poll(0):
                return
            if monotonic() > until_s:
                self._going_on = self._loop.call_soon(self._step, self._read)
                return

    def _tick(self) -> None:
        self._look()
        if not self._stopped:
            self._arm()
            self._step(self._client.loop_misc)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_s = self._period_s()
        self._timer = self._loop.call_later(self._armed_s, self._tick)

    def _period_s(self) -> float:
        # A quarter: the broker gives up after 1.5 keep-alives, and this notices at the latest after 1.25.
        return (self._client.keepalive or KEEPALIVE_S) / 4

    # ------------------------------------------------------------------------------ paho's callbacks, under its locks

    def _want_write(self, _client: Any, _data: Any, sock: Any) -> None:
        self._loop.add_writer(sock, self._step, self._client.loop_write)

    def _forget_writer(self, _client: Any, _data: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _forget(self, _client: Any, _data: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)


def _nobody(*_: object) -> None:
    pass


def release(client: Client) -> None:
    """Closes the socket without a DISCONNECT; nothing of the client's owner is called afterwards."""
    sock = client.socket()
    if sock is not None:
        if client.on_socket_close is not None:
            client.on_socket_close(client, None, sock)
        sock.close()
    # Nothing may be called from the destructor, and the cycle client -> callback -> owner -> client is undone.
    client.on_socket_close = client.on_socket_register_write = client.on_socket_unregister_write = None
    client.on_connect = client.on_disconnect = client.on_message = client.on_publish = client.on_subscribe = None
