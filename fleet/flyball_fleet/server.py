"""The fleet server: one process that keeps what the devices say.

broker -> Link -> Writer (SQLite, committed) -> PUBACK; rebirth and probe answers -> broker

With `shared`, telemetry, events and gaps come by a shared subscription, so that several servers divide them; what is
retained (status, birth, alarms, twins, command states) comes to every server, because a shared subscription brings
nothing retained. Nothing is acknowledged before it is committed. Never orders anything of a device.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flyball.clock import Clock
from flyball.errors import LinkError, MessageError
from flyball.uplink.backoff import TAKEN_OVER, Backoff, Waits
from flyball.uplink.messages import ServerState, Signal, encode
from flyball.uplink.topics import ROOT, Device
from flyball_fleet.address import Address
from flyball_fleet.counters import Counters
from flyball_fleet.limits import Limits
from flyball_fleet.link import Link, Message, Terms
from flyball_fleet.writer import Finished, Item, Writer

log = logging.getLogger(__name__)

GROUP = "flyball-fleet"
NUMBERED = ("t/+", "e/+", "gap")
STATES = ("status", "birth", "a/+", "twin/+", "cmd/+/+/st")
SESSION_EXPIRY_S = 7 * 86400  # while the server is away the broker keeps what comes for it
SIGNAL_EXPIRY_S = 60
ASK_AGAIN_S = 60.0  # for a birth
MOST_ASKED = 20_000
MOST_QOS_0 = 1000  # the protocol has none of it, and nothing but memory would bound it
TENANT = "default"


@dataclass(frozen=True, kw_only=True)
class Settings:
    address: Address
    db: Path
    id: str
    tenant: str = TENANT
    shared: bool = False
    limits: Limits = field(default_factory=Limits)
    keepalive_s: int = 30
    waits: Waits = field(default_factory=lambda: Waits(cap_s=30.0))  # one server, not a herd: it should be back soon


class Server:
    def __init__(self, settings: Settings, clock: Clock) -> None:
        Device(settings.tenant, settings.id)  # raises MessageError for what is no id
        self._settings = settings
        self._clock = clock
        self.counters = Counters()
        self.writer = Writer(settings.db, settings.limits, clock, self._done, self._failed)
        self._root = f"{ROOT}/{settings.tenant}"
        self._client_id = f"flyball-fleet-{settings.tenant}-{settings.id}"
        self._state_topic = f"{self._root}/_server/{settings.id}/state"
        self._link: Link | None = None
        self._asked: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled; then what has arrived is still stored. Raises StateError when the file cannot be opened."""
        self.writer.start()
        backoff = Backoff(self._settings.waits)
        down = ""
        try:
            while True:
                began_s = self._clock.monotonic_s()
                code = None
                try:
                    link = await self._open()
                    down, began_s = "", self._clock.monotonic_s()
                    error = await link.lost()
                except LinkError as caught:
                    error = caught
                self.counters.connected = False
                code = error.code
                if not down:
                    hint = f" (is another server started with --id {self._settings.id}?)" if code == TAKEN_OVER else ""
                    log.warning("fleet: %s%s; trying again with back-off", error, hint)
                down = str(error)
                await asyncio.sleep(backoff.failed(code, self._clock.monotonic_s() - began_s))
        finally:
            await self._close()

    async def leave(self) -> None:
        """Gives up this server's session, so that the broker keeps nothing for it any more. Raises LinkError."""
        terms = Terms(client_id=self._client_id)
        link = await Link.open(self._settings.address, terms, lambda _link, _message: None)
        await link.deliver(self._state_topic, b"", retain=True)
        await link.close()

    async def _open(self) -> Link:
        settings = self._settings
        terms = Terms(
            client_id=self._client_id,
            clean_start=False,
            session_expiry_s=SESSION_EXPIRY_S,
            keepalive_s=settings.keepalive_s,
            will_topic=self._state_topic,
            will_payload=self._state("lost"),
        )
        link = await Link.open(settings.address, terms, self._received)
        self._link = link
        alone = [f"{self._root}/+/{suffix}" for suffix in NUMBERED]
        shared = [f"$share/{GROUP}/{topic}" for topic in alone]
        numbered, other = (shared, alone) if settings.shared else (alone, shared)
        try:
            if link.session_present:
                link.unsubscribe(other)  # of a time when the server was started the other way
            await link.subscribe([*numbered, *(f"{self._root}/+/{suffix}" for suffix in STATES)])
            await link.deliver(self._state_topic, self._state("online"), retain=True)
        except LinkError as error:
            link.abort(str(error))
            raise
        self.counters.connects += 1
        self.counters.connected = True
        log.info("fleet: connected to %s, tenant %s, as %s", settings.address, settings.tenant, settings.id)
        return link

    async def _close(self) -> None:
        link, self._link = self._link, None
        await self.writer.stop()
        await asyncio.sleep(0)  # the last acknowledgements, which the writer has sent us
        if link is not None and not link.closed:
            try:
                await asyncio.wait_for(link.deliver(self._state_topic, self._state("offline"), retain=True), 2.0)
            except (LinkError, asyncio.TimeoutError) as error:
                log.warning("fleet: no goodbye: %s", error)
            await link.close()

    def _state(self, state: Literal["online", "offline", "lost"]) -> bytes:
        return encode(ServerState(state=state, session=self._settings.id, ts=round(self._clock.wall_s(), 3))).payload

    def _received(self, link: Link, message: Message) -> None:
        if message.qos == 0 and self.writer.waiting() >= MOST_QOS_0:
            self.counters.messages["dropped"] += 1
        else:
            self.writer.put(link, message)

    # --------------------------------------------------------------------------------------------- from the writer

    def _done(self, finished: Sequence[tuple[Item, Finished]]) -> None:
        """Committed: only now may the broker forget."""
        counts = self.counters
        for (link, message), outcome in finished:
            link.acknowledge(message)
            if outcome is None:
                counts.messages["ignored"] += 1
            elif isinstance(outcome, MessageError):
                counts.messages["rejected"] += 1
            else:
                counts.messages[outcome.result] += 1
                counts.records += outcome.records
                if outcome.lacks_birth:
                    self._ask_birth(outcome.device)
                if outcome.probes:
                    counts.probes += 1
                    self._signal(outcome.device, "probe")

    def _failed(self, why: str) -> None:
        self.counters.write_failures += 1
        log.error("fleet: %s; nothing is acknowledged, so the broker keeps it", why)
        if self._link is not None:
            self._link.abort(why)

    def _ask_birth(self, device: str) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._asked.get(device, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return
        if len(self._asked) >= MOST_ASKED:
            self._asked.clear()
        self._asked[device] = now_s
        self.counters.rebirths += 1
        self._signal(device, "rebirth")

    def _signal(self, device: str, name: str) -> None:
        link = self._link
        if link is not None and not link.closed:
            topic = Device(self._settings.tenant, device).signal(name)
            signal = Signal(server=self._settings.id, ts=round(self._clock.wall_s(), 3))
            link.publish(topic, encode(signal).payload, expiry_s=SIGNAL_EXPIRY_S)
