"""One connection to a broker, MQTT 5: the only module that knows paho.

settings, will -> Connection.open -> publish, subscribe, acknowledge -> Listener; at the end `lost`, once

paho runs on the daemon's own event loop (add_reader and add_writer), not in its thread (loop_start). Counted over 60 s
of an idle connection with a keep-alive of 45 s: its thread wakes 62 times and takes 10 ms of CPU, the loop 7 times and
2 ms, because there is one timer every keepalive/4 and else only packets. It also saves the thread's stack, and,
decisive, every callback already runs where the rest of the uplink does: an acknowledgement can follow a commit without
a lock, and nothing is sent again behind our back.

Only connecting is done elsewhere, in a short-lived thread: name resolution and TCP connect (later TLS) block for as
long as they like. A Connection is used for one CONNECT; what is not acknowledged when it ends is sent again by
outbox.py. Callbacks from paho run under its locks, so they only note what happened; the listener hears it from the
loop. Never retries, never waits, never decides.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from flyball.errors import LinkError

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

SESSION_EXPIRY_S = 7 * 86400  # the default of 0 would lose what is sent while we are away, silently
RECEIVE_MAXIMUM = 8
MAXIMUM_PACKET = 256 * 1024
CLEAN_DISCONNECT_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    host: str
    port: int
    client_id: str
    keepalive_s: int
    connect_timeout_s: float
    username: str = ""
    password_file: str = ""  # read at every attempt, so that a new password needs no restart


@dataclass(frozen=True, kw_only=True)
class Will:
    topic: str
    payload: bytes
    delay_s: int


@dataclass(frozen=True, kw_only=True)
class Received:
    """`expiry_s` is what the broker left of the message expiry. To be acknowledged with Connection.acknowledge."""

    topic: str
    payload: bytes
    retain: bool
    expiry_s: int | None
    qos: int
    id: int


class Listener(Protocol):
    """Called from the event loop, outside of paho."""

    def received(self, connection: Connection, message: Received) -> None: ...

    def published(self, connection: Connection, id: int, refusal: str) -> None:
        """The broker has acknowledged a publication; `refusal` is its reason not to pass it on, or ""."""
        ...


class Connection:
    """Made by open()."""

    def __init__(self, client: Client, listener: Listener) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._listener = listener
        self._accepted: asyncio.Future[Properties] = self._loop.create_future()
        self._lost: asyncio.Future[LinkError] = self._loop.create_future()
        self._subscriptions: dict[int | None, asyncio.Future[tuple[int, ...]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.receive_maximum = 65535  # what the broker takes at once; MQTT 5, 3.2.2.3.3
        self.maximum_packet = MAXIMUM_PACKET
        self._attach()

    @classmethod
    async def open(cls, settings: Settings, will: Will, listener: Listener) -> Connection:
        """Connected and accepted by the broker. Raises LinkError."""
        client = await _in_thread(lambda: _connect(settings, will), _discard)
        connection = cls(client, listener)
        try:
            await asyncio.wait({connection._accepted}, timeout=settings.connect_timeout_s)
        except asyncio.CancelledError:
            connection.abort("given up")
            raise
        if not connection._accepted.done():
            connection.abort(
                f"{settings.host}:{settings.port} took the connection and then said nothing for "
                f"{settings.connect_timeout_s:g} s: is an MQTT 5 broker listening there?"
            )
        properties = connection._accepted.result()
        connection.receive_maximum = getattr(properties, "ReceiveMaximum", 65535)
        connection.maximum_packet = getattr(properties, "MaximumPacketSize", MAXIMUM_PACKET)
        return connection

    @property
    def closed(self) -> bool:
        return self._lost.done()

    async def lost(self) -> LinkError:
        """Waits for the end of the connection and says why."""
        return await asyncio.shield(self._lost)

    def publish(self, topic: str, payload: bytes, *, retain: bool, deflated: bool, expiry_s: int | None) -> int:
        """QoS 1; the packet id comes back through Listener.published, unless the connection ends first."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
        if deflated:
            properties.UserProperty = ("enc", "deflate")
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        return self._client.publish(topic, payload, qos=1, retain=retain, properties=properties).mid

    async def subscribe(self, orders: Sequence[str], watched: Sequence[str] = ()) -> tuple[int, ...]:
        """The broker's reason code for each filter; 0x80 and above is a refusal. Raises LinkError.

        Of orders the retain flag comes as it was published, so that a retained one can be told from a live one;
        retained messages are sent for a new subscription only, not at every reconnect. What is watched comes at every
        connect with what is retained there, and is not kept for us while we are away.
        """
        from paho.mqtt.subscribeoptions import SubscribeOptions

        options = SubscribeOptions(
            qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        )
        watching = SubscribeOptions(qos=0, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
        filters = [*((f, options) for f in orders), *((f, watching) for f in watched)]
        _, id = self._client.subscribe(filters)
        future: asyncio.Future[tuple[int, ...]] = self._loop.create_future()
        self._subscriptions[id] = future
        if self._lost.done():
            raise self._lost.result()
        return await future

    def acknowledge(self, message: Received) -> None:
        """Nothing happens when the connection is gone: the broker then sends the message again."""
        if message.qos == 1 and not self.closed:
            self._client.ack(message.id, message.qos)

    def abort(self, reason: str) -> None:
        """Breaks off without a word, so that the broker keeps what was not acknowledged, and the will."""
        self._end(LinkError(reason))

    async def close(self) -> None:
        """A clean DISCONNECT, after which the broker does not publish the will."""
        if not self.closed:
            self._client.disconnect()
            await asyncio.wait({self._lost}, timeout=CLEAN_DISCONNECT_S)
            self._end(LinkError("closed"))

    # ------------------------------------------------------------------------------ paho's callbacks, under its locks

    def _attach(self) -> None:
        client = self._client
        sock = client.socket()
        if sock is None:
            self._end(LinkError("the broker closed the connection at once"))
            return
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_socket_close = self._forget_socket
        client.on_socket_register_write = lambda _c, _u, s: self._loop.add_writer(s, self._step, client.loop_write)
        client.on_socket_unregister_write = self._forget_writer
        self._loop.add_reader(sock, self._step, client.loop_read)
        if client.want_write():  # a CONNECT that did not fit the socket's buffer
            self._loop.add_writer(sock, self._step, client.loop_write)
        self._keep_alive()

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._loop.call_soon(self._end, LinkError(f"the broker refused the connection: {reason}", reason.value))
        elif not self._accepted.done():
            self._accepted.set_result(properties)

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            error = LinkError(f"the broker ended the connection: {reason}", reason.value)
        else:
            error = LinkError(f"the connection to the broker broke off: {reason}")
        self._loop.call_soon(self._end, error)

    def _on_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no topic of ours: refused like any other that means nothing
        expiry_s = getattr(message.properties, "MessageExpiryInterval", None)
        received = Received(
            topic=topic,
            payload=bytes(message.payload),
            retain=message.retain,
            expiry_s=expiry_s,
            qos=message.qos,
            id=message.mid,
        )
        self._loop.call_soon(self._listener.received, self, received)

    def _on_publish(self, _client: Any, _data: Any, id: int, reason: ReasonCode, _properties: Any) -> None:
        self._loop.call_soon(self._listener.published, self, id, str(reason) if reason.is_failure else "")

    def _on_subscribe(self, _client: Any, _data: Any, id: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        future = self._subscriptions.pop(id, None)
        if future is not None and not future.done():
            future.set_result(tuple(r.value for r in reasons))

    # -------------------------------------------------------------------------------------------------- the event loop

    def _step(self, work: Callable[[], object]) -> None:
        """Lets paho read or write. Its parser raises whatever it likes on bytes that are not MQTT."""
        try:
            work()
        except Exception as error:
            self._end(LinkError(f"what the broker sends is not MQTT 5 ({type(error).__name__}: {error})"))

    def _keep_alive(self) -> None:
        if not self.closed:
            # A quarter: the broker gives up after 1.5 keep-alives, and this notices at the latest after 1.25.
            keepalive_s = self._client.keepalive or 60  # a broker may ask for none
            self._timer = self._loop.call_later(keepalive_s / 4, self._keep_alive)
            self._step(self._client.loop_misc)

    def _end(self, error: LinkError) -> None:
        if self._lost.done():
            return
        self._lost.set_result(error)
        if self._timer is not None:
            self._timer.cancel()
        waiting: list[asyncio.Future[Any]] = [self._accepted, *self._subscriptions.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # somebody may have stopped waiting for it
        _discard(self._client)

    def _forget_socket(self, _client: Any, _data: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)

    def _forget_writer(self, _client: Any, _data: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)


def _connect(settings: Settings, will: Will) -> Client:
    """Blocks: resolves the name, connects, and sends CONNECT. Raises LinkError."""
    # Imported here: paho costs 9 MiB, and most devices never switch the uplink on.
    from paho.mqtt.client import Client, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        protocol=MQTTv5,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = settings.connect_timeout_s
    if settings.username:
        client.username_pw_set(settings.username, _password(settings.password_file))
    will_properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]  # paho
    will_properties.WillDelayInterval = will.delay_s
    client.will_set(will.topic, will.payload, qos=1, retain=True, properties=will_properties)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
    properties.SessionExpiryInterval = SESSION_EXPIRY_S
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    properties.MaximumPacketSize = MAXIMUM_PACKET
    where = f"{settings.host}:{settings.port}"
    try:
        client.connect(settings.host, settings.port, settings.keepalive_s, clean_start=False, properties=properties)
    except socket.gaierror as error:
        raise LinkError(f"the broker's name {settings.host!r} cannot be resolved: {error.strerror}") from error
    except OSError as error:
        raise LinkError(f"no connection to {where}: {error.strerror or error}") from error
    except ValueError as error:  # a port or a name that paho does not take
        raise LinkError(f"uplink.broker: {where}: {error}") from error
    return client


def _password(file: str) -> str | None:
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LinkError(f"uplink.password_file: {file} cannot be read: {error}") from error


def _discard(client: Client) -> None:
    """Closes the socket without a DISCONNECT."""
    sock = client.socket()
    if sock is not None:
        if client.on_socket_close is not None:
            client.on_socket_close(client, None, sock)
        sock.close()
    # Nothing may be called from the destructor, and the cycle client -> callback -> connection -> client is undone.
    client.on_socket_close = client.on_socket_register_write = client.on_socket_unregister_write = None
    client.on_connect = client.on_disconnect = client.on_message = client.on_publish = client.on_subscribe = None


async def _in_thread(work: Callable[[], T], discard: Callable[[T], None]) -> T:
    """The result of blocking work, in a thread of its own that the interpreter does not wait for at its end: it may
    sit in a resolver for half a minute. A result for which nobody waits any more is discarded."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if error is None and result is not None:
            discard(result) if future.done() else future.set_result(result)
        elif error is not None and not future.done():
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # every kind, or the waiting side would wait for ever
            error = caught
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:  # the loop has ended
            if result is not None:
                discard(result)

    threading.Thread(target=run, name="flyball-connect", daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            discard(future.result())  # delivered in the moment in which the waiting side left
        raise
