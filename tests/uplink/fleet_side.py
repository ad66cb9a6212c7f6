"""The other end of the uplink, for tests: a plain MQTT 5 client that keeps what it hears."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from flyball.uplink import batch

ROOT = "flyball/v1/acme/edge-1"


@dataclass(frozen=True)
class Heard:
    suffix: str
    payload: bytes  # inflated
    retain: bool
    qos: int
    expiry_s: int | None
    deflated: bool

    @property
    def doc(self) -> Any:
        """Of a batch with its columns unpacked."""
        if self.suffix.split("/")[-2:-1] == ["t"]:
            return msgspec.to_builtins(batch.decode(self.payload))
        return json.loads(self.payload)


class Fleet:
    """Subscribes to everything below one device; a context manager."""

    def __init__(
        self, port: int, root: str = ROOT, tls: tuple[Path, str] | None = None, user: tuple[str, str] | None = None
    ) -> None:
        """`tls` is a folder of certificates.sh and the name of a client in it."""
        self._port = port
        self._root = root
        self.heard: list[Heard] = []
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"fleet-{uuid.uuid4().hex}", protocol=MQTTv5)
        self._client.on_connect = lambda _c, _d, flags, *_: (
            self._subscribed.set() if flags.session_present else self._client.subscribe(f"{root}/#", qos=1)
        )
        if user is not None:
            self._client.username_pw_set(*user)
        if tls is not None:
            folder, name = tls
            self._client.tls_set(f"{folder}/ca.crt", f"{folder}/{name}.crt", f"{folder}/{name}.key")
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)

    def __enter__(self) -> Fleet:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 600  # a broker that restarts in between keeps what came for us
        # mosquitto 2.0.11 does not keep a session over its restart that was begun with a clean start.
        self._client.connect("127.0.0.1", self._port, clean_start=False, properties=session)
        self._client.loop_start()
        assert self._subscribed.wait(10), "the broker does not answer"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(
        self,
        suffix: str,
        payload: bytes | dict[str, Any] = b"",
        *,
        retain: bool = False,
        expiry_s: int | None = None,
        deflated: bool = False,
    ) -> None:
        """QoS 1; returns when the broker has it."""
        properties = Properties(PacketTypes.PUBLISH)
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        if deflated:
            properties.UserProperty = ("enc", "deflate")
        topic = f"{self._root}/{suffix}"
        self._client.publish(topic, data, qos=1, retain=retain, properties=properties).wait_for_publish(10)

    def order(self, kind: str, id: str, args: dict[str, Any], **more: Any) -> None:
        self.send(f"cmd/{kind}/{id}/req", {"args": args, **more}, expiry_s=600)

    def find(self, suffix: str, wanted: Callable[[Any], bool] = lambda _: True) -> Heard | None:
        """The first message on that suffix whose document is wanted."""
        for heard in list(self.heard):
            if heard.suffix == suffix and heard.payload and wanted(heard.doc):
                return heard
        return None

    def all(self, suffix: str) -> list[Any]:
        return [h.doc for h in list(self.heard) if h.suffix == suffix and h.payload]

    def wait(
        self, suffix: str, wanted: Callable[[Any], bool] = lambda _: True, timeout_s: float = 10, since: int = 0
    ) -> Any:
        """The document of the first such message after the first `since` ones."""
        deadline = time.monotonic() + timeout_s
        looked_at = since
        with self._changed:
            while True:
                fresh, looked_at = self.heard[looked_at:], len(self.heard)
                for heard in fresh:
                    if heard.suffix == suffix and heard.payload and wanted(heard.doc):
                        return heard.doc
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    got = "\n".join(f"  {h.suffix} {h.payload[:200]!r}" for h in self.heard[since:])
                    raise AssertionError(f"nothing wanted came on {suffix} in {timeout_s} s; what came:\n{got}")

    async def waits(
        self, suffix: str, wanted: Callable[[Any], bool] = lambda _: True, timeout_s: float = 10, since: int = 0
    ) -> Any:
        return await asyncio.to_thread(self.wait, suffix, wanted, timeout_s, since)

    def states(self, kind: str, id: str) -> list[str]:
        """The states told of a command, repetitions left out."""
        told = [(d["rev"], d["state"]) for d in self.all(f"cmd/{kind}/{id}/st")]
        return [state for _, state in dict.fromkeys(told)]

    def until_connected(self, connected: bool) -> None:
        """When the broker goes and comes."""
        deadline = time.monotonic() + 20
        while self._client.is_connected() != connected:
            assert time.monotonic() < deadline, "the fleet's own connection does not follow the broker"
            time.sleep(0.01)

    def _on_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        user = dict(getattr(message.properties, "UserProperty", []))
        deflated = user.get("enc") == "deflate"
        heard = Heard(
            suffix=message.topic[len(self._root) + 1 :],
            payload=_inflated(message.payload) if deflated else message.payload,
            retain=message.retain,
            qos=message.qos,
            expiry_s=getattr(message.properties, "MessageExpiryInterval", None),
            deflated=deflated,
        )
        with self._changed:
            self.heard.append(heard)
            self._changed.notify_all()


def _inflated(payload: bytes) -> bytes:
    """Our own messages come back here too, and some of them mean ill."""
    try:
        return zlib.decompress(payload)
    except zlib.error:
        return payload
