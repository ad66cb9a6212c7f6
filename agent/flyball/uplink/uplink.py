"""The device's side of the fleet: keeps a link to the broker, says how it goes, takes orders.

    snapshot -> telemetry --+
    Events -> events -------+-> post (outbox) -> mqtt.Connection -> broker
    journal <-> execution --+                          |
        ^----------- orders, signals <-----------------+

start() returns at once and nothing here ever makes the daemon wait: a broker that is away, refuses or talks nonsense
is tried again with back-off, logged when it goes and when it comes. One CONNECT is one session: its number is on disk
before the packet leaves. After it: status init, subscriptions, birth, and once that is acknowledged status ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flyball import config
from flyball.clock import Clock, boot_id, wall_is_synchronized
from flyball.errors import ConfigError, FlyballError, LinkError, MessageError, StateError
from flyball.events import Event, Events
from flyball.ports import UplinkStatus
from flyball.uplink import topics
from flyball.uplink.alarms import DUPLICATE_IDENTITY, STATE_STORE, Alarms
from flyball.uplink.announcer import EVENTS, Announcer
from flyball.uplink.backoff import TAKEN_OVER, Backoff, Waits
from flyball.uplink.commands import Handler, Row
from flyball.uplink.execution import Execution
from flyball.uplink.inbox import Inbox
from flyball.uplink.journal import Journal
from flyball.uplink.messages import BirthFacts, Encoded
from flyball.uplink.mqtt import Connection, Received, Settings, Will
from flyball.uplink.outbox import Span
from flyball.uplink.post import Post
from flyball.uplink.record import Record
from flyball.uplink.sequence import Counter
from flyball.uplink.stamp import Stamper
from flyball.uplink.state import Stream
from flyball.uplink.telemetry import STREAM, Telemetry

log = logging.getLogger(__name__)

Severity = Literal["info", "warning", "error"]

DEFAULT_PORT = 1883
BLOCKS = {STREAM: 3600, EVENTS: 1000}  # numbers reserved per write: an hour of telemetry at 1 Hz
EARLY_EVENTS = 256  # kept until the store is open and can number them


@dataclass(frozen=True, kw_only=True)
class Timing:
    will_delay_s: int = 25  # a reconnect within it leaves no "lost" behind
    connect_timeout_s: float = 10.0
    drain_s: float = 2.0  # at the end, for what still waits, and again for the last status
    waits: Waits = field(default_factory=Waits)


class Uplink:
    """`snapshot` and `birth_facts` are called on the event loop and have to be quick."""

    def __init__(
        self,
        settings: config.Uplink,
        *,
        snapshot: Callable[[], Record],
        birth_facts: Callable[[], BirthFacts],
        handlers: Sequence[Handler[Any]],
        events: Events,
        clock: Clock,
        state_dir: Path,
        timing: Timing | None = None,
        synchronized: Callable[[], bool] = wall_is_synchronized,
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._birth_facts = birth_facts
        self._handlers = handlers
        self._events = events
        self._clock = clock
        self._timing = timing or Timing()
        self._stamper = Stamper(clock, boot_id(), synchronized)
        self._device = _device(settings)
        by_name = {h.name: h for h in handlers}
        self._announcer = Announcer(self._device, by_name, settings.commands, self._stamper)
        self._post = Post(lambda gaps: self._announcer.gaps(gaps, "dropped, or lost with a restart of the daemon"))
        self._alarms = Alarms(self._announcer, events, clock, self._post.add)
        self._backoff = Backoff(self._timing.waits)
        self._journal = Journal(state_dir)
        self._execution = Execution(
            handlers=by_name,
            allowed=settings.commands,
            journal=self._journal,
            tell=self._tell,
            events=events,
            stamper=self._stamper,
        )
        self._inbox = Inbox(
            device=self._device,
            execution=self._execution,
            signals={"rebirth": self._rebirth, "sync": self._sync, "probe": self._probed},
            ignored=self._ignored,
            stored=self._stored,
        )
        self._counters: dict[str, Counter] = {}
        self._telemetry: Telemetry | None = None
        self._early: deque[Event] = deque(maxlen=EARLY_EVENTS)
        self._link: Connection | None = None
        self._since_s: float | None = None
        self._last_error = ""
        self._calm: asyncio.TimerHandle | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._writing: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------------ lifecycle

    async def start(self) -> None:
        """Once. Does nothing when the configuration has the uplink switched off."""
        if not self._settings.enabled or self._tasks:
            return
        for name in sorted(set(self._settings.commands) - {h.name for h in self._handlers}):
            log.warning("uplink.commands: %r is no command that this version knows", name)
        self._since_s = self._clock.monotonic_s()
        loop = asyncio.get_running_loop()
        self._events.subscribe(lambda event: self._heard(event, loop))
        self._tasks["link"] = asyncio.create_task(self._keep_linked(), name="uplink-link")

    async def stop(self) -> None:
        """Hands on what it can in `drain_s`, says goodbye, and leaves the rest on the disk."""
        if not self._tasks:
            return
        await self._end("link", "telemetry")
        if self._telemetry is not None:
            self._telemetry.flush()
        if "inbox" in self._tasks:
            # Not cancelled in the middle of a commit: what is committed is also begun, or taken up at the next start.
            self._inbox.finish()
            await asyncio.wait({self._tasks["inbox"]}, timeout=self._timing.drain_s)
        await self._end("inbox", "work")
        await self._execution.interrupt()
        link = self._link
        if link is not None and not link.closed:
            await self._post.drain(self._timing.drain_s)
            self._post.add(self._announcer.status("disconnected"))
            await self._post.drain(self._timing.drain_s)
            await link.close()
        if self._writing:
            await asyncio.wait(self._writing)
        await self._close_journal()
        if self._calm is not None:
            self._calm.cancel()
        self._link = None
        self._tasks.clear()

    def state(self) -> UplinkStatus:
        return UplinkStatus(
            connected=self._link is not None and not self._link.closed,
            broker=self._settings.broker,
            error=self._last_error,
            since_s=self._since_s,
            session=self._announcer.session or None,
            commands=self._announcer.commands,
            queued=len(self._post),
            dropped=self._post.dropped,
        )

    async def _end(self, *names: str) -> None:
        tasks = [self._tasks[n] for n in names if n in self._tasks]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("uplink: a task had ended with an error", exc_info=result)

    async def _close_journal(self) -> None:
        try:
            if self._counters:
                await self._journal.save_streams(self._streams(final=True))
        except StateError as error:
            log.error("uplink: %s", error)
        finally:
            await self._journal.close()

    # ------------------------------------------------------------------------------------------------------- the link

    async def _keep_linked(self) -> None:
        """One session after the other. The boundary of this loop: nothing that goes wrong in it ends it."""
        while True:
            lasted_s = 0.0
            error: Exception
            try:
                error = await self._session()
                lasted_s = self._clock.monotonic_s() - (self._since_s or 0.0)
            except Exception as caught:
                error = caught
            self._went_down(error)
            code = error.code if isinstance(error, LinkError) else None
            if code == TAKEN_OVER:
                self._alarms.raise_alarm(
                    DUPLICATE_IDENTITY,
                    f"another client connected to {self._settings.broker} as {self._device.device!r}; "
                    "every device needs an id of its own (uplink.device)",
                )
            await asyncio.sleep(self._backoff.failed(code, lasted_s))

    async def _session(self) -> LinkError:
        """From the store to the end of the connection, whose reason is given back. Raises LinkError when there was
        none, StateError when its number could not be written down."""
        await self._begin_session()
        will = Will(topic=self._device.status, payload=self._announcer.will(), delay_s=self._timing.will_delay_s)
        link = await Connection.open(self._connect_settings(), will, self)
        self._came_up(link)
        try:
            codes = await link.subscribe(self._device.orders())
            if any(code >= 0x80 for code in codes):
                self._announcer.commands = "denied"
                log.error("uplink: the broker denies the subscription to commands (%s)", ", ".join(map(hex, codes)))
            self._post.add(self._announcer.birth(self._birth_facts(), lambda: self._ready(link)))
            return await link.lost()
        except Exception:
            link.abort("given up")
            raise

    async def _begin_session(self) -> None:
        try:
            if not self._counters:
                await self._open_streams()
            opened = await self._journal.begin_session(self._streams(), self._stamper.now())
            self._announcer.begin(opened.epoch, opened.session)
            if "work" not in self._tasks:
                await self._execution.recover()
                self._go_on()
        except StateError as error:
            self._stored(str(error))
            raise
        self._stored("")
        if opened.replaced:
            self._report("state_store_replaced", f"the uplink's memory was begun anew: {opened.replaced}", "error")
        while self._early:
            self._publish_event(self._early.popleft())

    async def _open_streams(self) -> None:
        counters = {}
        for name, block in BLOCKS.items():
            start, left = await self._journal.open_stream(name, block)
            counters[name] = Counter(name, start, block, self._reserve)
            if left is not None:
                self._post.missing(left)
        self._counters = counters
        self._telemetry = Telemetry(
            snapshot=self._snapshot,
            counter=counters[STREAM],
            stamper=self._stamper,
            epoch=lambda: self._announcer.epoch,
            publish=self._publish_batch,
            period_s=self._settings.telemetry_period_s,
            batch_records=self._settings.batch_records,
            batch_s=self._settings.batch_s,
        )

    def _go_on(self) -> None:
        """What works whether or not there is a link, as soon as the store is open."""
        works = {"work": self._execution.work(), "inbox": self._inbox.work()}
        if self._telemetry is not None:
            works["telemetry"] = self._telemetry.run()
        for name, work in works.items():
            self._tasks[name] = asyncio.create_task(work, name=f"uplink-{name}")

    def _came_up(self, link: Connection) -> None:
        self._link = link
        self._since_s = self._clock.monotonic_s()
        self._last_error = ""
        # What an earlier session said of itself is out of date.
        self._post.forget(self._device.status)
        self._post.forget(self._device.birth)
        self._post.add(self._announcer.status("init"))
        self._post.link_up(link)
        log.info("uplink: connected to %s, session %d", self._settings.broker, self._announcer.session)
        self._report("uplink_up", f"connected to {self._settings.broker}, session {self._announcer.session}")

    def _ready(self, link: Connection) -> None:
        """The birth is acknowledged."""
        if link is self._link:
            self._post.add(self._announcer.status("ready"))
            self._alarms.repeat()
            self._post.report_gaps()
            # A broker may grant a subscription that its rules then leave empty; only an answer proves that it works.
            self._publish_event(self._event("probe", "answer with sig/probe"))
            # The other one comes back after taken_over_s, as we would; only then is it known to be gone.
            calm_s = 2 * self._timing.waits.taken_over_s
            self._calm = asyncio.get_running_loop().call_later(calm_s, self._alarms.clear, DUPLICATE_IDENTITY)

    def _went_down(self, error: Exception) -> None:
        was_up, self._link = self._last_error == "", None
        self._post.link_lost()
        if self._calm is not None:
            self._calm.cancel()
        known = isinstance(error, FlyballError)
        self._last_error = str(error) if known else f"{type(error).__name__}: {error}"
        if was_up:
            self._since_s = self._clock.monotonic_s()
            log.warning("uplink: %s; trying again with back-off", self._last_error, exc_info=None if known else error)
            self._report("uplink_down", self._last_error, "warning")

    def _connect_settings(self) -> Settings:
        host, _, port = self._settings.broker.removeprefix("mqtt://").partition(":")
        return Settings(
            host=host,
            port=int(port or DEFAULT_PORT),
            client_id=self._device.device,
            keepalive_s=self._settings.keepalive_s,
            connect_timeout_s=self._timing.connect_timeout_s,
            username=self._settings.username,
            password_file=self._settings.password_file,
        )

    # ------------------------------------------------------------------------------------- what comes from the broker

    def received(self, connection: Connection, message: Received) -> None:
        self._inbox.put(connection, message)

    def published(self, connection: Connection, id: int, refusal: str) -> None:
        self._post.published(connection, id, refusal)

    def _rebirth(self) -> None:
        self._post.add(self._announcer.birth(self._birth_facts()))

    def _sync(self) -> None:
        """Everything that is still on its way here, now."""
        if self._telemetry is not None:
            self._telemetry.flush()
        self._execution.repeat()

    def _probed(self) -> None:
        if self._announcer.commands != "verified":
            self._announcer.commands = "verified"
            self._post.add(self._announcer.status("ready"))

    def _ignored(self, why: str) -> None:
        self._report("command_ignored", why, "warning")

    # --------------------------------------------------------------------------------------- what goes to the broker

    def _tell(self, row: Row) -> None:
        def acknowledged() -> None:
            self._write(self._journal.told(row.id, row.rev))

        self._post.add(self._announcer.command_state(row, acknowledged if row.final() else None))

    def _publish_batch(self, encoded: Encoded, span: Span) -> None:
        if self._link is not None:
            self._post.report_gaps()
        self._post.add(self._announcer.batch(encoded, span))

    def _heard(self, event: Event, loop: asyncio.AbstractEventLoop) -> None:
        """From Events, perhaps in another thread."""
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            self._publish_event(event)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._publish_event, event)

    def _publish_event(self, event: Event) -> None:
        if not self._tasks:
            return  # stopped
        if not self._announcer.session:
            self._early.append(event)
            return
        try:
            numbered = self._announcer.event(event, self._counters[EVENTS].next)
        except MessageError as error:
            log.error("uplink: event %r cannot be published: %s", event.kind, error)
            return
        self._counters[EVENTS].take(1)
        self._post.add(numbered)

    def _report(self, kind: str, message: str, severity: Severity = "info") -> None:
        self._events.publish(self._event(kind, message, severity))

    def _event(self, kind: str, message: str, severity: Severity = "info") -> Event:
        return Event(kind=kind, t_s=self._clock.monotonic_s(), message=message, severity=severity)

    # -------------------------------------------------------------------------------------------------- stream numbers

    def _streams(self, final: bool = False) -> dict[str, Stream]:
        """How far the streams are; at a clean end without the reserve, so that nothing is reported missing."""
        return {
            name: Stream(
                next=counter.next if final else counter.reserved, settled=self._post.settled(name, counter.next)
            )
            for name, counter in self._counters.items()
        }

    def _reserve(self, stream: str, next: int) -> None:
        self._write(self._journal.save_streams(self._streams()))

    def _write(self, work: Coroutine[Any, Any, None]) -> None:
        """Writes to the store while other things go on."""

        async def write() -> None:
            try:
                await work
                self._stored("")
            except StateError as error:
                self._stored(str(error))

        task = asyncio.get_running_loop().create_task(write())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _stored(self, trouble: str) -> None:
        if trouble:
            self._alarms.raise_alarm(STATE_STORE, trouble)
        else:
            self._alarms.clear(STATE_STORE)


def _device(settings: config.Uplink) -> topics.Device:
    try:
        return topics.Device(settings.tenant, settings.device_id())
    except MessageError as error:
        raise ConfigError("the uplink has no usable identity", [f"uplink.tenant, uplink.device: {error}"]) from error
