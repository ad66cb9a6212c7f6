"""One MQTT ping: order out, state back, as a fleet would do it (PROTOCOL: commands).

cmd/ping/<id>/req -> the daemon's journal -> cmd/ping/<id>/st, states in order, the echo in the last one
"""

from __future__ import annotations

import json
import queue
import time
import uuid
import zlib

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

FINAL = {"successful", "failed", "rejected", "timed_out", "canceled", "expired"}


def ping(port: int, root: str, timeout_s: float) -> tuple[float, list[str]]:
    """Seconds from order to answer, and the states seen. Raises AssertionError when it does not succeed in time."""
    echo, order = uuid.uuid4().hex, uuid.uuid4().hex
    subscribed: queue.Queue[None] = queue.Queue()
    arrived: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"hil-{order}", protocol=mqtt.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe([(f"{root}/status", 1), (f"{root}/cmd/ping/{order}/st", 1)]) and None
    client.on_subscribe = lambda *_: subscribed.put(None)
    client.on_message = lambda _client, _data, message: arrived.put(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    deadline = time.monotonic() + timeout_s
    states: list[str] = []
    begun = 0.0
    try:
        subscribed.get(timeout=timeout_s)
        while True:
            try:
                message = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no final state of the ping within {timeout_s:g} s; seen: {states}") from None
            content = json.loads(_plain(message))
            if message.topic.endswith("/status"):
                states.append(f"status {content['state']}")
                if content["state"] == "ready" and not begun:
                    begun = time.monotonic()
                    _order(client, f"{root}/cmd/ping/{order}/req", echo)
                continue
            states.append(content["state"])
            if content["state"] in FINAL:
                assert content["state"] == "successful", content
                assert content["result"]["echo"] == echo
                return time.monotonic() - begun, states
    finally:
        client.publish(f"{root}/cmd/ping/{order}/st", b"", qos=1, retain=True).wait_for_publish(5.0)
        client.disconnect()
        client.loop_stop()


def _order(client: mqtt.Client, topic: str, echo: str) -> None:
    properties = Properties(PacketTypes.PUBLISH)
    properties.MessageExpiryInterval = 30
    client.publish(topic, json.dumps({"args": {"echo": echo}, "ttl_s": 30}), qos=1, properties=properties)


def _plain(message: mqtt.MQTTMessage) -> bytes:
    marks = dict(getattr(message.properties, "UserProperty", []))
    return zlib.decompress(message.payload) if marks.get("enc") == "deflate" else message.payload
