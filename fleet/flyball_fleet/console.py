"""A guest at the broker, for people: what is retained, orders and their states, twins.

Console -> subscribe -> members, twins; send -> states of many devices; set_twin -> what the devices report

Keeps nothing: what it knows is what is retained at the broker. The server's file is not needed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from flyball.errors import MessageError
from flyball.uplink.commands import FINAL
from flyball.uplink.messages import (
    MAX_VERSION,
    CommandState,
    Request,
    Status,
    TwinDesired,
    TwinReported,
    encode,
)
from flyball.uplink.topics import ROOT, Device
from flyball_fleet import intake
from flyball_fleet.address import Address
from flyball_fleet.intake import Arrival
from flyball_fleet.link import Link, Message, Terms
from flyball_fleet.targets import Member
from flyball_fleet.view import members as members_of

QUIET_S = 0.4  # nothing more came: what is retained has been heard
SETTLE_S = 10.0


class Console:
    """Made by open_console()."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._link: Link | None = None
        self._changed = asyncio.Event()
        self._heard = 0
        self.status: dict[str, Status] = {}
        self.desired: dict[str, TwinDesired] = {}
        self.reported: dict[str, TwinReported] = {}
        self.states: dict[tuple[str, str], CommandState] = {}  # device, command id

    async def connect(self, address: Address) -> None:
        terms = Terms(client_id=f"flyball-console-{secrets.token_hex(4)}", timeout_s=5.0)
        self._link = await Link.open(address, terms, self._received)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()

    async def learn(self, *suffixes: str) -> None:
        """What is retained below every device's `suffixes`. Raises LinkError."""
        link, loop = self._linked(), asyncio.get_running_loop()
        await link.subscribe([f"{ROOT}/{self._tenant}/+/{suffix}" for suffix in suffixes])
        end_s, heard = loop.time() + SETTLE_S, -1
        while heard != self._heard and loop.time() < end_s:
            heard = self._heard
            await asyncio.sleep(QUIET_S)

    def members(self) -> dict[str, Member]:
        """Devices that have spoken, with the groups and tags that their desired documents give them."""
        found = {}
        for name in sorted({*self.status, *self.desired}):
            groups, tags = members_of(self.document(name))
            state = self.status[name].state if name in self.status else ""
            found[name] = Member(state, groups, tags)
        return found

    def document(self, device: str) -> dict[str, Any]:
        """The desired document, empty when there is none."""
        if device not in self.desired:
            return {}
        doc = msgspec.json.decode(self.desired[device].doc)
        return doc if isinstance(doc, dict) else {}

    # -------------------------------------------------------------------------------------------------------- orders

    async def send(
        self,
        devices: Sequence[str],
        kind: str,
        args: dict[str, object],
        *,
        id: str,
        ttl_s: float,
        rate_hz: float,
        timeout_s: float,
        told: Callable[[dict[str, CommandState]], None],
    ) -> dict[str, CommandState]:
        """The last state of every device that answered; `told` hears of changes. Raises LinkError, MessageError."""
        link, loop = self._linked(), asyncio.get_running_loop()
        topics = {name: Device(self._tenant, name).request(kind, id) for name in devices}
        payload = encode(Request(args=msgspec.Raw(msgspec.json.encode(args)), ttl_s=ttl_s))
        await link.subscribe([f"{ROOT}/{self._tenant}/+/cmd/{kind}/{id}/st"])

        async def publish() -> None:
            for topic in topics.values():
                await link.deliver(topic, payload.payload, deflated=payload.deflated, expiry_s=max(1, round(ttl_s)))
                await asyncio.sleep(1 / rate_hz)

        def answered() -> dict[str, CommandState]:
            return {name: self.states[name, id] for name in devices if (name, id) in self.states}

        publishing = asyncio.create_task(publish())
        try:
            await self._until(
                lambda: publishing.done() and sum(s.state in FINAL for s in answered().values()) == len(devices),
                loop.time() + timeout_s + len(devices) / rate_hz,
                lambda: told(answered()),
                publishing,
            )
        finally:
            publishing.cancel()
        return answered()

    # --------------------------------------------------------------------------------------------------------- twins

    async def set_twin(self, device: str, doc: dict[str, Any]) -> int:
        """Publishes the document with the next version, which is given back. Raises LinkError, MessageError."""
        before = self.desired[device].version if device in self.desired else 0
        reported = self.reported[device].desired_version if device in self.reported else 0
        version = max(before, reported) + 1
        if version > MAX_VERSION:
            raise MessageError(f"{device}: version {before} is the last there is; reset the device's twin")
        desired = encode(TwinDesired(version=version, doc=msgspec.Raw(msgspec.json.encode(doc))))
        topic = Device(self._tenant, device).twin_desired
        await self._linked().deliver(topic, desired.payload, deflated=desired.deflated, retain=True)
        return version

    async def reports(self, versions: dict[str, int], timeout_s: float) -> dict[str, TwinReported]:
        """Reports about these versions, or later ones, as far as they come in time."""

        def answered() -> dict[str, TwinReported]:
            return {
                name: self.reported[name]
                for name, version in versions.items()
                if name in self.reported
                and version <= max(self.reported[name].desired_version, self.reported[name].refused_version or 0)
            }

        end_s = asyncio.get_running_loop().time() + timeout_s
        await self._until(lambda: len(answered()) == len(versions), end_s)
        return answered()

    # ------------------------------------------------------------------------------------------------------- waiting

    async def _until(
        self,
        condition: Callable[[], bool],
        end_s: float,
        told: Callable[[], None] = lambda: None,
        work: asyncio.Task[None] | None = None,
    ) -> None:
        """Until it is true or `end_s` of the loop's clock. Raises LinkError."""
        link, loop = self._linked(), asyncio.get_running_loop()
        lost = asyncio.ensure_future(link.lost())
        try:
            while not condition() and loop.time() < end_s:
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                waits: set[asyncio.Future[Any]] = {changed, lost}
                if work is not None and not work.done():
                    waits.add(work)
                await asyncio.wait(waits, timeout=max(0.0, end_s - loop.time()), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if lost.done():
                    raise lost.result()
                if work is not None and work.done():
                    work.result()
                told()
        finally:
            lost.cancel()

    def _linked(self) -> Link:
        assert self._link is not None, "connect() first"
        return self._link

    def _received(self, link: Link, message: Message) -> None:
        link.acknowledge(message)
        self._heard += 1
        try:
            arrival = intake.read(message.topic, message.payload, deflated=message.deflated, retain=message.retain)
        except (MessageError, intake.Ignored):
            return  # the server keeps account of what is wrong
        self._take(arrival)
        self._changed.set()

    def _take(self, arrival: Arrival) -> None:
        device, message = arrival.device, arrival.message
        kept: dict[str, Any] | None = {
            "status": self.status,
            "twin": self.desired if arrival.name == "desired" else self.reported,
        }.get(arrival.kind)
        if kept is not None and message is not None:
            kept[device] = message
        elif kept is not None:
            kept.pop(device, None)
        elif arrival.kind == "st" and message is not None:
            before = self.states.get((device, arrival.id))
            if before is None or message.rev >= before.rev:
                self.states[device, arrival.id] = message


@asynccontextmanager
async def open_console(address: Address, tenant: str) -> AsyncIterator[Console]:
    """Raises LinkError."""
    console = Console(tenant)
    await console.connect(address)
    try:
        yield console
    finally:
        await console.close()
