"""One simulated device: sessions, telemetry, events and orders, as the protocol has them.

Machine -> batches, events -> Queue -> Link -> broker; orders and signals -> answers

Uses the protocol's own core (messages, topics, batch, commands, back-off), on the caller's event loop and
without a thread. Keeps nothing on the disk: a new process is a new epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from flyball.clock import Clock, boot_id
from flyball.errors import LinkError, MessageError
from flyball.uplink import commands, topics
from flyball.uplink.backoff import Backoff, Waits
from flyball.uplink.messages import Encoded, Presence, TwinDesired, decode, encode
from flyball.uplink.record import Record
from flyball.uplink.stamp import Stamper
from flyball.uplink.topics import Device
from flyball_fleet.address import Address
from flyball_fleet.link import Link, Message, Terms
from flyball_fleet.simulate.announcer import EVENTS, MAIN, Announcer
from flyball_fleet.simulate.machine import Machine
from flyball_fleet.simulate.orders import Orders
from flyball_fleet.simulate.queue import Lane, Publication, Queue
from flyball_fleet.spans import Range

SESSION_EXPIRY_S = 7 * 86400
STATE_EXPIRY_S = 7 * 86400
WINDOW = 8  # unacknowledged publications
BATCH_RECORDS = 60


@dataclass(frozen=True, kw_only=True)
class Habits:
    rate_hz: float = 1.0
    batch_s: float = 10.0
    event_every_s: float = 60.0
    keepalive_s: int = 45
    will_delay_s: int = 25
    timeout_s: float = 30.0  # hundreds connect at once
    session_expiry_s: int = SESSION_EXPIRY_S
    waits: Waits = field(default_factory=Waits)


class SimulatedDevice:
    def __init__(self, address: Address, device: Device, habits: Habits, clock: Clock, source: random.Random) -> None:
        self._address = address
        self._device = device
        self._habits = habits
        self._random = source
        self._stamper = Stamper(clock, boot_id(), lambda: True)
        self._clock = clock
        self._backoff = Backoff(habits.waits, source.random)
        self._announcer = Announcer(self._stamper)
        self._machine = Machine(source)
        self._orders = Orders(self._machine)
        self._queue = Queue()
        self._link: Link | None = None
        self._records: list[Record] = []
        self._drained = asyncio.Event()
        self._left = False  # whether this session has said goodbye
        self.ready = False
        self.connects = 0

    @property
    def name(self) -> str:
        return self._device.device

    @property
    def epoch(self) -> str:
        return self._announcer.epoch

    @property
    def session(self) -> int:
        return self._announcer.session

    def sent(self) -> dict[str, int]:
        """Numbers given out so far, by stream."""
        return self._announcer.sent()

    def effects(self) -> int:
        return self._orders.effects

    # ---------------------------------------------------------------------------------------------------- the link

    async def keep_linked(self) -> None:
        """For ever: connects, introduces itself, waits for the end, waits with full jitter, connects again."""
        while True:
            began_s, code = self._clock.monotonic_s(), None
            try:
                self._announcer.begin_session()
                link = await self._open()
                began_s = self._clock.monotonic_s()
                code = (await link.lost()).code
            except LinkError as error:
                code = error.code
            self.ready, self._link = False, None
            self._queue.link_lost()
            await asyncio.sleep(self._backoff.failed(code, self._clock.monotonic_s() - began_s))

    async def _open(self) -> Link:
        habits = self._habits
        terms = Terms(
            client_id=self.name,
            clean_start=False,
            session_expiry_s=habits.session_expiry_s,
            receive_maximum=8,
            keepalive_s=habits.keepalive_s,
            timeout_s=habits.timeout_s,
            will_topic=self._device.status,
            will_payload=self._announcer.status("lost").payload,
            will_delay_s=habits.will_delay_s,
        )
        link = await Link.open(self._address, terms, self._received)
        try:
            filters = dict.fromkeys((*self._device.orders(), self._device.twin_desired))
            await link.subscribe(tuple(filters), as_published=True)
        except LinkError as error:
            link.abort(str(error))
            raise
        self.connects += 1
        self._queue.forget(self._device.status)
        self._queue.forget(self._device.birth)
        self._link = link
        self._left = False
        self._say("init")
        self._tell_birth(self._introduced)
        return link

    def _introduced(self) -> None:
        """The birth is acknowledged."""
        self.ready = True
        self._say("ready")
        self._report_gaps()
        self.event("probe", "answer with sig/probe")

    async def leave(self, timeout_s: float = 10.0) -> None:
        """Seals what is left, hands it on, says goodbye. To be called while keep_linked() still runs."""
        self.seal()
        link = self._link
        if link is None or link.closed:
            return  # the will says lost, which is the truth
        self._report_gaps()
        if not await self._drain(timeout_s):
            link.abort("not drained")  # the will says lost, which is the truth
            return
        self._say("disconnected")
        await self._drain(timeout_s)
        await link.close()

    async def _drain(self, timeout_s: float) -> bool:
        self._drained.clear()
        self._pump()
        try:
            await asyncio.wait_for(self._drained.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True

    # ---------------------------------------------------------------------------------------------- what it says

    async def live(self) -> None:
        """Records at the stated rate, for ever; devices do not tick together."""
        habits, loop = self._habits, asyncio.get_running_loop()
        period_s = 1 / habits.rate_hz
        at = loop.time() + self._random.uniform(0, period_s)
        sealed_at = at + self._random.uniform(0, habits.batch_s)
        event_at = at + self._random.uniform(0, habits.event_every_s)
        while True:
            await asyncio.sleep(at - loop.time())
            self._records.append(self._machine.record(self._stamper.now()))
            if at >= sealed_at or len(self._records) >= BATCH_RECORDS:
                sealed_at = at + habits.batch_s
                self.seal()
            if at >= event_at:
                event_at = at + habits.event_every_s
                self.event("decision", f"stays on {self._machine.rung}: simulated")
            at = max(at + period_s, loop.time())

    def seal(self) -> None:
        """Makes a batch of the records at hand."""
        records, self._records = self._records, []
        if not records:
            return
        encoded, numbers = self._announcer.batch(records)
        self._publish(self._device.telemetry(MAIN), encoded, "telemetry", stream=MAIN, numbers=(numbers,))

    def event(self, kind: str, message: str) -> None:
        encoded, numbers = self._announcer.event(kind, message)
        self._publish(self._device.event(kind), encoded, "event", stream=EVENTS, numbers=(numbers,))

    def _say(self, state: Presence) -> None:
        if self._left:
            return  # a probe's late answer would stay retained as "ready", and no will takes it back
        self._left = state == "disconnected"
        self._publish(self._device.status, self._announcer.status(state), "state", retain=True)

    def _tell_birth(self, acknowledged: Callable[[], None] | None = None) -> None:
        self._publish(self._device.birth, self._announcer.birth(), "state", retain=True, acknowledged=acknowledged)

    def _report_gaps(self) -> None:
        for stream, ranges in self._queue.take_lost().items():
            encoded = self._announcer.gap(stream, ranges)
            self._publish(self._device.gap, encoded, "state", stream=stream, numbers=tuple(ranges))

    # -------------------------------------------------------------------------------------------------- what it hears

    def _received(self, link: Link, message: Message) -> None:
        with contextlib.suppress(MessageError):  # a real device would report it
            self._take(message)
        link.acknowledge(message)

    def _take(self, message: Message) -> None:
        topic = topics.parse(message.topic)
        if message.retain and isinstance(topic, topics.Command):
            return  # it would come again and again
        if isinstance(topic, topics.Command):
            now = self._stamper.now()
            for row in self._orders.receive(topic.kind, topic.id, message.payload, message.expiry_s, now):
                self._publish(
                    self._device.command_state(topic.kind, topic.id),
                    encode(commands.state_message(row, self.epoch, now)),
                    "state",
                    retain=True,
                    expiry_s=STATE_EXPIRY_S,
                )
        elif topic.suffix == "twin" and topic.name == "desired" and message.payload:
            reported = self._announcer.report(decode(message.payload, TwinDesired, deflated=message.deflated))
            self._publish(self._device.twin_reported, reported, "state", retain=True)
        elif topic.suffix == "sig" and topic.name == "rebirth":
            self._tell_birth()
        elif topic.suffix == "sig" and topic.name == "sync":
            self.seal()
        elif topic.suffix == "sig" and topic.name == "probe" and not self._announcer.verified:
            self._announcer.verified = True
            self._say("ready")

    # ---------------------------------------------------------------------------------------------------- the queue

    def _publish(
        self,
        topic: str,
        encoded: Encoded,
        lane: Lane,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
        stream: str = "",
        numbers: tuple[Range, ...] = (),
        acknowledged: Callable[[], None] | None = None,
    ) -> None:
        self._queue.add(
            Publication(
                topic=topic,
                payload=encoded.payload,
                lane=lane,
                deflated=encoded.deflated,
                retain=retain,
                expiry_s=expiry_s,
                stream=stream,
                numbers=numbers,
                acknowledged=acknowledged,
            )
        )
        self._pump()

    def _pump(self) -> None:
        link = self._link
        while link is not None and not link.closed and self._queue.under_way() < WINDOW:
            taken = self._queue.take()
            if taken is None:
                break
            id, publication = taken
            link.publish(
                publication.topic,
                publication.payload,
                retain=publication.retain,
                deflated=publication.deflated,
                expiry_s=publication.expiry_s,
                done=partial(self._delivered, id),
            )
        if not len(self._queue):
            self._drained.set()

    def _delivered(self, id: int, refusal: str) -> None:
        publication = self._queue.delivered(id, refused=bool(refusal))
        if publication is not None and not refusal and publication.acknowledged is not None:
            publication.acknowledged()
        self._pump()
