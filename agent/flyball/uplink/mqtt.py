"""MQTT 5 as paho speaks it: the only module that knows paho.

settings, will -> Attempt.connect -> Client -> publish, subscribe -> discard

paho runs on the daemon's own event loop (driver.py), not in its thread (loop_start). Counted over 60 s
of an idle connection with a keep-alive of 45 s: its thread wakes 62 times and takes 10 ms of CPU, the loop 7 times and
2 ms, because there is one timer every keepalive/4 and else only packets. It also saves the thread's stack, and,
decisive, every callback already runs where the rest of the uplink does: an acknowledgement can follow a commit without
a lock, and nothing is sent again behind our back.

Only connecting is done elsewhere, in a short-lived thread: name resolution, TCP connect, proxy, TLS and WebSocket
handshake block for as long as they like (transport.py). Keeps nothing beyond one connection; connection.py drives it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyball.errors import LinkError
from flyball.uplink import tls
from flyball.uplink.capabilities import MAXIMUM_PACKET, Capabilities
from flyball.uplink.driver import release
from flyball.uplink.transport import Settings, dial, secret

if TYPE_CHECKING:
    from paho.mqtt.client import Client as Client
    from paho.mqtt.client import MQTTMessage as MQTTMessage
    from paho.mqtt.properties import Properties as Properties
    from paho.mqtt.reasoncodes import ReasonCode as ReasonCode

SESSION_EXPIRY_S = 7 * 86400  # the default of 0 would lose what is sent while we are away, silently
RECEIVE_MAXIMUM = 8


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
    deflated: bool = False  # as the sender says (user property enc=deflate)


class Attempt:
    """One attempt to connect, in a thread; given up from the event loop."""

    def __init__(self, settings: Settings, will: Will, spared: Capabilities) -> None:
        self._settings = settings
        self._will = will
        self._spared = spared
        self._handle: socket.socket | None = None
        self.where = f"{settings.host}:{settings.port}"
        self.last_words = ""  # what paho last had to say against the connection

    def connect(self) -> Client:
        """Blocks: resolves the name, connects, and sends CONNECT. Raises LinkError."""
        # Imported here: paho costs 9 MiB, and most devices never switch the uplink on.
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        settings = self._settings
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
            transport="tcp" if settings.path is None else "websockets",
        )
        client.connect_timeout = settings.connect_timeout_s
        client.max_inflight_messages = 0  # the outbox counts them; paho would queue, and then no order is sure
        client._create_socket_connection = self._dial  # type: ignore[method-assign]  # its own wants PySocks for a proxy
        client.on_log = self._note
        if settings.path is not None:
            client.ws_set_options(path=settings.path)
        if settings.username:
            client.username_pw_set(settings.username, secret(settings.password_file, "uplink.password_file"))
        if settings.tls is not None:
            client.tls_set_context(tls.context(settings.tls))
        will_properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]  # paho
        will_properties.WillDelayInterval = self._will.delay_s
        spared = self._spared
        client.will_set(
            self._will.topic, self._will.payload, qos=spared.qos, retain=spared.retain, properties=will_properties
        )
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = MAXIMUM_PACKET
        name = settings.server_name  # for the certificate and the Host header; _dial knows where to go
        connected = False
        try:
            client.connect(name, settings.port, settings.keepalive_s, clean_start=False, properties=properties)
            connected = True
        except OSError as error:  # _dial has errors of its own: this is what came after it
            if settings.tls is not None and (settings.path is None or isinstance(error, ssl.SSLError)):
                raise tls.explain(error, self.where) from error
            what = f"WebSocket at {self.where}{settings.path}" if settings.path is not None else self.where
            raise LinkError(f"no connection to {what}: {error.strerror or error}") from error
        except ValueError as error:  # a port or a name that paho does not take
            raise LinkError(f"uplink.broker: {self.where}: {error}") from error
        finally:
            if not connected:
                self.give_up()  # the error, which is kept until the next attempt, holds the socket open
            if self._handle is not None:
                self._handle.close()
        return client

    def give_up(self) -> None:
        """Ends the TCP connection, and with it the waiting for the peer."""
        if self._handle is not None:
            with contextlib.suppress(OSError):  # gone already
                self._handle.shutdown(socket.SHUT_RDWR)

    def _dial(self) -> socket.socket:
        sock = dial(self._settings)
        self._handle = sock.dup()  # TLS takes the socket itself away from us
        return sock

    def _note(self, _client: Any, _data: Any, level: int, text: str) -> None:
        from paho.mqtt.enums import LogLevel

        if level == LogLevel.MQTT_LOG_ERR:
            self.last_words = text


def publish(
    client: Client, topic: str, payload: bytes, *, qos: int, retain: bool, properties: Mapping[str, object]
) -> int:
    """The packet id. Properties by their names in the specification, without spaces."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    packed = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
    for name, value in properties.items():
        setattr(packed, name, value)
    return client.publish(topic, payload, qos=qos, retain=retain, properties=packed).mid


def subscribe(client: Client, orders: Sequence[str], watched: Sequence[str]) -> int | None:
    """The packet id. For what the filters mean see Connection.subscribe."""
    from paho.mqtt.subscribeoptions import SubscribeOptions

    options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
    watching = SubscribeOptions(qos=0, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
    return client.subscribe([*((f, options) for f in orders), *((f, watching) for f in watched)])[1]


def unsubscribe(client: Client, filters: Sequence[str]) -> None:
    """Nobody waits for the answer: what comes all the same is not taken."""
    client.unsubscribe(list(filters))


def discard(client: Client) -> None:
    """Of a client that connect() made; closes the socket without a DISCONNECT."""
    release(client)
    client.on_log = None
    del client._create_socket_connection
