"""One connection to a broker, MQTT 5: the fleet's only module that knows paho.

Address, Terms -> Link.open -> publish, subscribe, acknowledge -> on_message; at the end `lost`, once

paho runs on the caller's event loop (the uplink's driver), so one process holds many links without a thread for
each; only name resolution, TCP connect and the TLS handshake are done elsewhere, because they block. Acknowledging is
the caller's business: not before what was received is safe. Never retries and never decides.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from flyball.errors import LinkError
from flyball.uplink.driver import Driver
from flyball_fleet.address import Address
from flyball_fleet.credentials import password, tls

MAXIMUM_PACKET = 256 * 1024
CLOSE_S = 1.0
ANSWER_S = 30.0  # for SUBACK and PUBACK: a broker that keeps the connection alive may still never answer
REFUSED = 0x80  # reason codes from here on


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What CONNECT says. A session expiry of 0 with clean_start is a guest; the broker keeps nothing for it."""

    client_id: str
    clean_start: bool = True
    session_expiry_s: int = 0
    receive_maximum: int = 100
    keepalive_s: int = 45
    timeout_s: float = 10.0
    will_topic: str = ""
    will_payload: bytes = b""
    will_delay_s: int = 0


@dataclass(frozen=True, kw_only=True)
class Message:
    topic: str
    payload: bytes
    deflated: bool
    retain: bool
    qos: int
    id: int
    expiry_s: int | None


class Link:
    """Made by open()."""

    def __init__(self, client: Client, on_message: Callable[[Link, Message], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._driver = Driver(client, self._end, lambda: None)  # deliver() and subscribe() watch the time themselves
        self._on_message = on_message
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[LinkError] = self._loop.create_future()
        self._answers: dict[tuple[str, int | None], asyncio.Future[Sequence[int]]] = {}
        self._done: dict[int, Callable[[str], None]] = {}
        self.session_present = False
        self.receive_maximum = 65535
        self._attach()

    @classmethod
    async def open(cls, address: Address, terms: Terms, on_message: Callable[[Link, Message], None]) -> Link:
        """Connected and accepted. Raises LinkError. `on_message` is called on the event loop."""
        loop = asyncio.get_running_loop()
        link = cls(await loop.run_in_executor(None, _connect, address, terms), on_message)
        try:
            await asyncio.wait({link._accepted}, timeout=terms.timeout_s)
        except asyncio.CancelledError:
            link.abort("given up")
            raise
        if not link._accepted.done():
            link.abort(f"{address} took the connection and then said nothing for {terms.timeout_s:g} s")
        error = link._accepted.exception()
        if isinstance(error, LinkError) and error.code is None:  # it hung up instead of answering
            hint = "; perhaps it wants another certificate: check --cert and --key" if address.tls else ""
            raise LinkError(f"the broker {address} did not accept the connection: {error}{hint}")
        link._accepted.result()
        return link

    @property
    def closed(self) -> bool:
        return self._lost.done()

    async def lost(self) -> LinkError:
        """Waits for the end of the connection and says why."""
        return await asyncio.shield(self._lost)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        deflated: bool = False,
        expiry_s: int | None = None,
        done: Callable[[str], None] | None = None,
    ) -> None:
        """QoS 1. `done` hears "" or the broker's refusal; nothing when the connection ends first."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
        if deflated:
            properties.UserProperty = ("enc", "deflate")
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        if self.closed:
            return
        id = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties).mid
        if done is not None:
            self._done[id] = done

    async def deliver(self, topic: str, payload: bytes, **options: Any) -> None:
        """publish(), and waits for the broker's word. Raises LinkError."""
        told: asyncio.Future[str] = self._loop.create_future()
        self.publish(topic, payload, done=lambda why: None if told.done() else told.set_result(why), **options)
        ends: set[asyncio.Future[Any]] = {told, self._lost}
        await asyncio.wait(ends, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        if not told.done() and not self.closed:
            self.abort(f"the broker did not acknowledge {topic} in {ANSWER_S:g} s")
        if not told.done():
            raise self._lost.result()
        if told.result():
            raise LinkError(f"the broker refuses {topic}: {told.result()}; check its access rules")

    async def subscribe(self, filters: Sequence[str], *, as_published: bool = False, retained: bool = True) -> None:
        """QoS 1. Raises LinkError, also when the broker refuses one."""
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if retained else SubscribeOptions.RETAIN_DO_NOT_SEND
        options = SubscribeOptions(qos=1, retainAsPublished=as_published, retainHandling=handling)
        if self.closed:
            raise self._lost.result()
        _, id = self._client.subscribe([(f, options) for f in filters])
        answer: asyncio.Future[Sequence[int]] = self._loop.create_future()
        self._answers["subscribe", id] = answer
        await asyncio.wait({answer}, timeout=ANSWER_S)
        if not answer.done():
            self.abort(f"the broker did not answer a subscription in {ANSWER_S:g} s")
        for topic, code in zip(filters, answer.result(), strict=False):
            if code >= REFUSED:
                raise LinkError(f"the broker refuses the subscription to {topic} (0x{code:02x})", code)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """What was not subscribed does not matter."""
        if not self.closed:
            self._client.unsubscribe(list(filters))

    def acknowledge(self, message: Message) -> None:
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
            await asyncio.wait({self._lost}, timeout=CLOSE_S)
            self._end(LinkError("closed"))

    # ------------------------------------------------------------------------------ paho's callbacks, under its locks

    def _attach(self) -> None:
        client = self._client
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._published
        client.on_subscribe = self._subscribed
        self._driver.start()

    def _connected(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._loop.call_soon(self._end, LinkError(f"the broker refused the connection: {reason}", reason.value))
        elif not self._accepted.done():
            self.session_present = flags.session_present
            self.receive_maximum = getattr(properties, "ReceiveMaximum", 65535)
            self._accepted.set_result(None)

    def _disconnected(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        told = flags.is_disconnect_packet_from_server
        text = f"the broker ended the connection: {reason}" if told else f"the connection broke off: {reason}"
        self._loop.call_soon(self._end, LinkError(text, reason.value if told else None))

    def _received(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no topic of ours: refused like any other that means nothing
        user = getattr(message.properties, "UserProperty", [])
        received = Message(
            topic=topic,
            payload=bytes(message.payload),
            deflated=("enc", "deflate") in user,
            retain=message.retain,
            qos=message.qos,
            id=message.mid,
            expiry_s=getattr(message.properties, "MessageExpiryInterval", None),
        )
        self._loop.call_soon(self._on_message, self, received)

    def _published(self, _client: Any, _data: Any, id: int, reason: ReasonCode, _properties: Any) -> None:
        done = self._done.pop(id, None)
        if done is not None:
            self._loop.call_soon(done, str(reason) if reason.is_failure else "")

    def _subscribed(self, _client: Any, _data: Any, id: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        answer = self._answers.pop(("subscribe", id), None)
        if answer is not None and not answer.done():
            answer.set_result([r.value for r in reasons])

    def _end(self, error: LinkError) -> None:
        if self._lost.done():
            return
        self._lost.set_result(error)
        self._done.clear()
        waiting: list[asyncio.Future[Any]] = [self._accepted, *self._answers.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # somebody may have stopped waiting for it
        self._driver.stop()


def _connect(address: Address, terms: Terms) -> Client:
    """Blocks: resolves the name, connects, sends CONNECT. Raises LinkError."""
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=terms.client_id,
        protocol=MQTTv5,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = terms.timeout_s
    client.max_queued_messages_set(0)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
    properties.SessionExpiryInterval = terms.session_expiry_s
    properties.ReceiveMaximum = terms.receive_maximum
    properties.MaximumPacketSize = MAXIMUM_PACKET
    try:
        if address.username:
            client.username_pw_set(address.username, password(address))
        if address.tls:
            client.tls_set_context(tls(address))
        if terms.will_topic:
            will = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]  # paho
            will.WillDelayInterval = terms.will_delay_s
            client.will_set(terms.will_topic, terms.will_payload, qos=1, retain=True, properties=will)
        client.connect(
            address.host, address.port, terms.keepalive_s, clean_start=terms.clean_start, properties=properties
        )
    except ssl.SSLError as error:
        raise LinkError(f"{address}: TLS: {error.reason or error}; check --ca, --cert and --key") from error
    except OSError as error:
        raise LinkError(f"no connection to {address}: {error.strerror or error}") from error
    except ValueError as error:
        raise LinkError(f"{address}: {error}") from error
    return client
