"""One connection to a broker: what is sent, what is acknowledged, and how it ends.

settings, will -> Connection.open -> publish, subscribe, acknowledge -> Listener; at the end `lost`, once

A Connection is used for one CONNECT; what is not acknowledged when it ends is sent again by outbox.py. It does without
what the broker cannot do (capabilities.py). Callbacks from paho run under its locks, so they only note what happened;
the listener hears it from the loop. Never retries, never waits, never decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flyball.errors import LinkError
from flyball.uplink import mqtt, tls
from flyball.uplink.aliases import Aliases
from flyball.uplink.capabilities import EVERYTHING, Capabilities, offered
from flyball.uplink.driver import Driver
from flyball.uplink.mqtt import Received, Will
from flyball.uplink.transport import Settings, in_thread

if TYPE_CHECKING:
    from flyball.uplink.mqtt import Client, MQTTMessage, Properties, ReasonCode

CLEAN_DISCONNECT_S = 1.0


class Listener(Protocol):
    """Called from the event loop, outside of paho."""

    def received(self, connection: Connection, message: Received) -> None: ...

    def published(self, connection: Connection, id: int, refusal: str) -> None:
        """The broker has acknowledged a publication; `refusal` is its reason not to pass it on, or ""."""
        ...


class Connection:
    """Made by open()."""

    def __init__(self, client: Client, listener: Listener, patience_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._driver = Driver(client, self._end, self._look)
        self._listener = listener
        self._accepted: asyncio.Future[Properties] = self._loop.create_future()
        self._lost: asyncio.Future[LinkError] = self._loop.create_future()
        self._subscriptions: dict[int | None, asyncio.Future[tuple[int, ...]]] = {}
        self._patience_s = patience_s  # for the acknowledgement of a publication
        self._aliases = Aliases(0)
        # By packet id: when it was handed over, and its size, which for a subscription is 0.
        self._unacknowledged: dict[int | None, tuple[float, int]] = {}
        self.capabilities = Capabilities(topic_aliases=0)
        self.session_present = False  # whether the broker still knew our session
        self._attach()

    @classmethod
    async def open(
        cls, settings: Settings, will: Will, listener: Listener, spared: Capabilities = EVERYTHING
    ) -> Connection:
        """Connected and accepted by the broker, which is not asked for more than `spared` has. Raises LinkError."""
        attempt = mqtt.Attempt(settings, will, spared)
        # Longer than each step may take by itself: a peer that drips bytes would hold us for ever.
        limit_s = settings.resolve_timeout_s + 3 * settings.connect_timeout_s
        try:
            client = await in_thread(attempt.connect, mqtt.discard, limit_s)
        except asyncio.TimeoutError:
            attempt.give_up()
            raise LinkError(f"{attempt.where} is not reached in {limit_s:g} s") from None
        except asyncio.CancelledError:
            attempt.give_up()
            raise
        connection = cls(client, listener, patience_s=max(settings.keepalive_s, settings.connect_timeout_s))
        try:
            await asyncio.wait({connection._accepted}, timeout=settings.connect_timeout_s)
        except asyncio.CancelledError:
            connection.abort("given up")
            raise
        if not connection._accepted.done():
            connection.abort(
                f"{attempt.where} took the connection and then said nothing for "
                f"{settings.connect_timeout_s:g} s: is an MQTT 5 broker listening there?"
            )
        try:
            properties = connection._accepted.result()
        except LinkError as error:
            if settings.tls is not None and error.code is None and attempt.last_words:
                # With TLS 1.3 the broker judges our certificate after the handshake, and only paho reads what it says.
                raise tls.explain(Exception(attempt.last_words), attempt.where) from error
            raise
        client.on_log = None
        connection.capabilities = offered(properties) & spared
        connection._aliases = Aliases(connection.capabilities.topic_aliases)
        return connection

    @property
    def receive_maximum(self) -> int:
        return self.capabilities.receive_maximum

    @property
    def maximum_packet(self) -> int:
        return self.capabilities.maximum_packet

    @property
    def largest_unacknowledged(self) -> int | None:
        """In bytes, of what is under way, or was when the connection ended."""
        return max((size for _, size in self._unacknowledged.values() if size), default=None)

    @property
    def closed(self) -> bool:
        return self._lost.done()

    async def lost(self) -> LinkError:
        """Waits for the end of the connection and says why."""
        return await asyncio.shield(self._lost)

    def publish(self, topic: str, payload: bytes, *, retain: bool, deflated: bool, expiry_s: int | None) -> int:
        """QoS 1, and retained, where the broker can; the packet id comes back through Listener.published, unless the
        connection ends first. Without QoS 1 it comes as soon as the packet has left."""
        can = self.capabilities
        properties: dict[str, object] = {}
        if deflated:
            properties["UserProperty"] = ("enc", "deflate")
        if expiry_s is not None:
            properties["MessageExpiryInterval"] = expiry_s
        size = len(topic) + len(payload)
        topic, alias = self._aliases.shorten(topic)
        if alias is not None:
            properties["TopicAlias"] = alias
        id = mqtt.publish(
            self._client, topic, payload, qos=can.qos, retain=retain and can.retain, properties=properties
        )
        self._unacknowledged[id] = (self._loop.time(), size)
        return id

    async def subscribe(self, orders: Sequence[str], watched: Sequence[str] = ()) -> tuple[int, ...]:
        """The broker's reason code for each filter; 0x80 and above is a refusal. Raises LinkError.

        Of orders the retain flag comes as it was published, so that a retained one can be told from a live one;
        retained messages are sent for a new subscription only, not at every reconnect. What is watched comes at every
        connect with what is retained there, and is not kept for us while we are away.
        """
        id = mqtt.subscribe(self._client, orders, watched)
        future: asyncio.Future[tuple[int, ...]] = self._loop.create_future()
        self._subscriptions[id] = future
        self._unacknowledged[id] = (self._loop.time(), 0)
        if self._lost.done():
            raise self._lost.result()
        return await future

    def unsubscribe(self, filters: Sequence[str]) -> None:
        if not self.closed:
            mqtt.unsubscribe(self._client, filters)

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
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        self._driver.start()

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._loop.call_soon(self._end, LinkError(f"the broker refused the connection: {reason}", reason.value))
        elif not self._accepted.done():
            self.session_present = flags.session_present
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
            deflated=("enc", "deflate") in getattr(message.properties, "UserProperty", ()),
        )
        self._loop.call_soon(self._listener.received, self, received)

    def _on_publish(self, _client: Any, _data: Any, id: int, reason: ReasonCode, _properties: Any) -> None:
        self._unacknowledged.pop(id, None)
        self._loop.call_soon(self._listener.published, self, id, str(reason) if reason.is_failure else "")

    def _on_subscribe(self, _client: Any, _data: Any, id: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        self._unacknowledged.pop(id, None)
        future = self._subscriptions.pop(id, None)
        if future is not None and not future.done():
            future.set_result(tuple(r.value for r in reasons))

    # -------------------------------------------------------------------------------------------------- the event loop

    def _look(self) -> None:
        oldest_s = min((since_s for since_s, _ in self._unacknowledged.values()), default=None)
        if oldest_s is not None and self._loop.time() - oldest_s > self._patience_s:
            # Its answers to pings, where a proxy gives them, would keep such a connection for ever.
            self._end(LinkError(f"the broker has acknowledged nothing for {self._patience_s:g} s"))

    def _end(self, error: LinkError) -> None:
        if self._lost.done():
            return
        self._lost.set_result(error)
        waiting: list[asyncio.Future[Any]] = [self._accepted, *self._subscriptions.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # somebody may have stopped waiting for it
        self._driver.stop()
        mqtt.discard(self._client)
