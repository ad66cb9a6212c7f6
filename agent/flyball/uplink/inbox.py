"""What the broker sends us, one message after another.

Received -> topic -> Execution (orders) or a signal's function -> acknowledged

In the order of arrival, since MQTT wants its acknowledgements in that order (4.6.0-2). Every message is acknowledged
in the end, or it would fill the broker's window of 8 and stop the link; only an order that could not be written down
is not, and then the connection is given up, so that the broker keeps it and sends it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from flyball.errors import MessageError, StateError
from flyball.uplink import topics
from flyball.uplink.connection import Connection
from flyball.uplink.execution import Execution
from flyball.uplink.mqtt import Received

log = logging.getLogger(__name__)

MOST_QOS_0 = 256


class Inbox:
    """`own` turns the topic of a group's order into that of this device's; `signals` are functions by name; `aside`
    takes what is neither order nor signal, and says whether it did; `ignored` hears of messages that mean nothing;
    `stored` hears how it went to write an order down: "" or what was wrong."""

    def __init__(
        self,
        *,
        device: topics.Device,
        execution: Execution,
        own: Callable[[str], str],
        signals: Mapping[str, Callable[[], None]],
        aside: Callable[[Received], Awaitable[bool]],
        ignored: Callable[[str], None],
        stored: Callable[[str], None],
    ) -> None:
        self._device = device
        self._execution = execution
        self._own = own
        self._signals = signals
        self._aside = aside
        self._ignored = ignored
        self._stored = stored
        self._queue: asyncio.Queue[tuple[Connection, Received] | None] = asyncio.Queue()
        self._flooded = False

    def put(self, connection: Connection, message: Received) -> None:
        """Of QoS 1 the receive maximum that CONNECT states bounds how many wait; of QoS 0 nothing else does."""
        if not message.qos and self._queue.qsize() >= MOST_QOS_0:
            if not self._flooded:
                self._ignored(f"more than {MOST_QOS_0} messages of QoS 0 at once; orders and signals have QoS 1")
            self._flooded = True
            return
        self._flooded = self._flooded and not self._queue.empty()
        self._queue.put_nowait((connection, message))

    def finish(self) -> None:
        """work() ends after what has arrived until now."""
        self._queue.put_nowait(None)

    async def work(self) -> None:
        while (item := await self._queue.get()) is not None:
            connection, message = item
            if connection.closed and message.qos:
                continue  # cannot be acknowledged any more, so it comes again
            try:
                await self._take(connection, message)
            except StateError as error:
                self._stored(str(error))
                connection.abort(f"an order could not be written down, so the broker has to keep it: {error}")
            except MessageError as error:
                self._ignored(str(error))
                connection.acknowledge(message)
            except Exception:
                # The boundary of this loop.
                log.exception("uplink: a message on %.200r could not be handled", message.topic)
                connection.acknowledge(message)

    async def _take(self, connection: Connection, message: Received) -> None:
        if await self._aside(message):
            connection.acknowledge(message)
            return
        topic = topics.parse(self._own(message.topic))
        if topic.device != self._device:
            raise MessageError(f"topic {message.topic!r} is not of this device")
        if message.retain:
            raise MessageError(f"{message.topic}: retained, so it would come again and again; not done")
        if isinstance(topic, topics.Command):
            await self._execution.receive(
                topic.kind, topic.id, message.payload, message.expiry_s, lambda: connection.acknowledge(message),
                message.deflated,
            )  # fmt: skip
            self._stored("")
        elif topic.name in self._signals:
            self._signals[topic.name]()
            connection.acknowledge(message)
        else:
            raise MessageError(f"unknown signal {topic.name!r}; known: {', '.join(sorted(self._signals))}")
