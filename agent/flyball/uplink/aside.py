"""What comes from the broker and is neither order nor signal: the desired document, Home Assistant's choices.

Received -> take -> Twin | HomeAssistant; at the begin of a session both say anew what holds

Either may be missing. Keeps nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.uplink.homeassistant import HomeAssistant
from flyball.uplink.mqtt import Received
from flyball.uplink.topics import Device
from flyball.uplink.twin import Twin


class Aside:
    def __init__(self, device: Device, twin: Twin | None, home: HomeAssistant | None) -> None:
        self._device = device
        self._twin = twin
        self._home = home

    def watched(self) -> Sequence[str]:
        """The filters to subscribe to."""
        desired = [self._device.twin_desired] if self._twin is not None else []
        return [*desired, *self._home.watched()] if self._home is not None else desired

    async def take(self, message: Received) -> bool:
        """Whether it was for one of them. Raises MessageError, StateError."""
        if self._twin is not None and message.topic == self._device.twin_desired:
            self._twin.desired(message.payload, message.deflated)
            return True
        if self._home is None:
            return False
        return await self._home.take(message.topic, message.payload, message.retain)

    def announce(self) -> None:
        if self._twin is not None:
            self._twin.again()
        if self._home is not None:
            self._home.announce()

    def end(self) -> None:
        if self._home is not None:
            self._home.end()
