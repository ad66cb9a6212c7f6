"""The groups that this device is in, and what is ordered to all of their members.

groups of the desired document -> filters -> subscribed; an order for a group -> the same order for this device

Every member carries such an order out once: its id counts like that of an order for this device alone, so that one
which comes through two groups, or through a group and directly, has one effect; its state stands under the device.
Takes orders only, no signals, and nothing of a group that the desired document does not name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from flyball.errors import MessageError
from flyball.uplink import topics
from flyball.uplink.connection import Connection

log = logging.getLogger(__name__)


class Membership:
    def __init__(self, device: topics.Device) -> None:
        self._device = device
        self._groups: tuple[str, ...] = ()
        self._left: set[str] = set()  # filters of which the broker still thinks that they are wanted
        self._due = asyncio.Event()

    def become(self, groups: Sequence[str]) -> None:
        """The device is in these groups, and in the one of all devices."""
        if tuple(groups) != self._groups:
            self._groups = tuple(groups)
            self._due.set()

    def filters(self) -> tuple[str, ...]:
        return tuple(topics.group_orders(self._device.tenant, name) for name in ("", *self._groups))

    def own(self, topic: str) -> str:
        """The topic under which this order would have come to this device alone; one that is of no group comes back
        as it is. Raises MessageError for a group that the device is not in."""
        name, rest = topics.group_of(topic, self._device.tenant)
        if name is None:
            return topic
        if name and name not in self._groups:
            # The broker keeps subscriptions with the session, also those from before the device left a group.
            self._left.add(topics.group_orders(self._device.tenant, name))
            self._due.set()
            raise MessageError(f"topic {topic!r}: this device is not in the group {name!r}")
        return f"{self._device.root}/{rest}"

    async def follow(self, link: Connection, held: Sequence[str]) -> None:
        """Keeps the subscriptions in step; `held` are made already. Raises LinkError when the connection ends."""
        now = set(held)
        while True:
            await self._due.wait()
            self._due.clear()
            wanted = set(self.filters())
            gone, self._left = (now | self._left) - wanted, set()
            fresh = sorted(wanted - now)
            now = wanted
            if gone:
                link.unsubscribe(sorted(gone))
            if fresh:
                tell_refused(fresh, await link.subscribe(fresh))


def tell_refused(filters: Sequence[str], codes: Sequence[int]) -> None:
    """A broker that knows no groups takes nothing from the orders for this device alone."""
    refused = [f for f, code in zip(filters, codes, strict=False) if code >= 0x80]
    if refused:
        log.info("uplink: orders for groups may not be read: %s", ", ".join(refused))
