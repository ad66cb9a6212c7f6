"""The device's side of the fleet: keeps a link to the broker, says how it goes, takes orders.

    snapshot -> telemetry --+
    Events -> news ---------+-> ledger -> post (outbox) -> mqtt.Connection -> broker
    journal <-> execution ----------------^                       |
        ^------------------ orders, signals <---------------------+

start() returns at once and nothing here ever makes the daemon wait: a broker that is away, refuses or talks nonsense
is tried again with back-off, logged when it goes and when it comes. One CONNECT is one session: its number is on disk
before the packet leaves. After it: subscriptions, status init, birth, and once that is acknowledged status ready. A
stranger's status under our name ends the session before any of that is said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyball import config
from flyball.clock import Clock, boot_id, wall_is_synchronized
from flyball.errors import FlyballError, LinkError, StateError
from flyball.events import Events
from flyball.ports import UplinkStatus
from flyball.uplink import address
from flyball.uplink.alarms import DUPLICATE_IDENTITY, STATE_STORE, Alarms
from flyball.uplink.announcer import EVENTS, Announcer
from flyball.uplink.backoff import TAKEN_OVER, Backoff, Waits
from flyball.uplink.commands import Handler, Row
from flyball.uplink.execution import Execution
from flyball.uplink.identity import Identity
from flyball.uplink.inbox import Inbox
from flyball.uplink.journal import Journal
from flyball.uplink.ledger import Ledger
from flyball.uplink.messages import BirthFacts, Encoded, Presence
from flyball.uplink.mqtt import Connection, Received, Will
from flyball.uplink.news import News
from flyball.uplink.outbox import Span
from flyball.uplink.post import Post
from flyball.uplink.record import Record
from flyball.uplink.sequence import Counter
from flyball.uplink.stamp import Stamper
from flyball.uplink.telemetry import STREAM, Telemetry

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Timing:
    will_delay_s: int = 25  # a reconnect within it leaves no "lost" behind
    connect_timeout_s: float = 10.0
    drain_s: float = 2.0  # at the end, for what still waits, and again for the last status
    look_s: float = 1.0  # after a reconnect, for the status that is retained under our name
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
        self._device = address.device(settings)
        by_name = {h.name: h for h in handlers}
        self._announcer = Announcer(self._device, by_name, settings.commands, self._stamper)
        self._post = Post(
            lambda gaps: self._announcer.gaps(gaps, "dropped, or lost with a restart of the daemon"),
            progress=lambda: self._ledger.settled(),
        )
        self._alarms = Alarms(self._announcer, events, clock, self._post.add)
        self._backoff = Backoff(self._timing.waits)
        self._journal = Journal(state_dir)
        self._ledger = Ledger(self._post, self._journal.save_streams, self._stored)
        self._news = News(events, self._announcer, self._ledger, clock)
        self._identity = Identity()
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
        self._telemetry: Telemetry | None = None
        self._link: Connection | None = None
        self._looked: asyncio.Future[None] | None = None  # done when the status under our name was heard
        self._stranger: asyncio.Future[str] | None = None  # done when it is somebody else's
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
        self._news.begin()
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
        self._news.end()
        await self._ledger.close(self._timing.drain_s)
        link = self._link
        if link is not None and not link.closed:
            self._post.link_up(link)  # it may have been about to
            await self._post.drain(self._timing.drain_s)
            self._say("disconnected")
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
            if self._ledger.counters:
                await self._journal.save_streams(self._ledger.streams())
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
        self._identity.said(will.payload)
        loop = asyncio.get_running_loop()
        looked, stranger = self._looked, self._stranger = loop.create_future(), loop.create_future()
        settings = address.broker(self._settings, self._device.device, self._timing.connect_timeout_s)
        link = await Connection.open(settings, will, self)
        self._came_up(link)
        lost = asyncio.ensure_future(link.lost())
        try:
            await self._subscribe(link)
            if self._identity.spoken:
                await asyncio.wait({looked, lost}, timeout=self._timing.look_s, return_when=asyncio.FIRST_COMPLETED)
            if not stranger.done():
                self._introduce(link)
                await asyncio.wait({stranger, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not stranger.done():
                return lost.result()
            return await self._withdraw(link, lost, stranger.result())
        except Exception:
            link.abort("given up")
            raise
        finally:
            lost.cancel()

    async def _subscribe(self, link: Connection) -> None:
        orders = self._device.orders()
        codes = await link.subscribe(orders, watched=[self._device.status])
        if any(code >= 0x80 for code in codes[: len(orders)]):
            self._announcer.commands = "denied"
            log.error("uplink: the broker denies the subscription to commands (%s)", ", ".join(map(hex, codes)))
        elif any(code >= 0x80 for code in codes):
            log.info("uplink: our status may not be read here, so a second device of this id may go unnoticed")

    async def _begin_session(self) -> None:
        try:
            if not self._ledger.counters:
                await self._open_streams()
            opened = await self._journal.begin_session(self._ledger.streams(), self._stamper.now())
            self._announcer.begin(opened.epoch, opened.session)
            self._identity.begin(opened.epoch, opened.session)
            if "work" not in self._tasks:
                await self._execution.recover()
                self._go_on()
        except StateError as error:
            self._stored(str(error))
            raise
        self._stored("")
        if opened.replaced:
            self._news.report("state_store_replaced", f"the uplink's memory was begun anew: {opened.replaced}", "error")
        self._news.numbered()

    async def _open_streams(self) -> None:
        counters = {}
        for name in (STREAM, EVENTS):
            start, left = await self._journal.open_stream(name)
            counters[name] = Counter(name, start)
            if left is not None:
                self._post.missing(left)
        self._ledger.counters = counters
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
        log.info("uplink: connected to %s, session %d", self._settings.broker, self._announcer.session)
        self._news.report("uplink_up", f"connected to {self._settings.broker}, session {self._announcer.session}")

    def _introduce(self, link: Connection) -> None:
        self._say("init")
        self._post.link_up(link)
        self._post.add(self._announcer.birth(self._birth_facts(), lambda: self._ready(link)))

    async def _withdraw(self, link: Connection, lost: asyncio.Future[LinkError], stranger: str) -> LinkError:
        """Leaves the name to the other one, which our connecting has thrown out: it comes back when we are gone, or
        throws us out first, and then the alarm waits with us."""
        error = LinkError(f"another device is connected as {self._device.device!r} ({stranger})", TAKEN_OVER)
        self._alarms.raise_alarm(DUPLICATE_IDENTITY, f"{error}; every device needs an id of its own (uplink.device)")
        self._post.link_up(link)
        drained = asyncio.ensure_future(self._post.drain(self._timing.drain_s))
        try:
            ends: set[asyncio.Future[Any]] = {drained, lost}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            drained.cancel()
        await link.close()
        return error

    def _ready(self, link: Connection) -> None:
        """The birth is acknowledged."""
        if link is self._link:
            self._say("ready")
            self._alarms.repeat()
            self._post.report_gaps()
            # A broker may grant a subscription that its rules then leave empty; only an answer proves that it works.
            self._news.tell("probe", "answer with sig/probe")
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
            self._news.report("uplink_down", self._last_error, "warning")

    # ------------------------------------------------------------------------------------- what comes from the broker

    def received(self, connection: Connection, message: Received) -> None:
        if message.topic != self._device.status:
            self._inbox.put(connection, message)
        elif connection is self._link and self._looked is not None and self._stranger is not None:
            stranger = self._identity.stranger(message.payload)
            if stranger and not self._stranger.done():
                self._stranger.set_result(stranger)
            if not self._looked.done():
                self._looked.set_result(None)

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
            self._say("ready")

    def _ignored(self, why: str) -> None:
        self._news.report("command_ignored", why, "warning")

    # --------------------------------------------------------------------------------------- what goes to the broker

    def _say(self, state: Presence) -> None:
        status = self._announcer.status(state, self._identity.acknowledged)
        self._identity.said(status.payload)
        self._post.add(status)

    def _tell(self, row: Row) -> None:
        def acknowledged() -> None:
            self._write(self._journal.told(row.id, row.rev))

        self._post.add(self._announcer.command_state(row, acknowledged if row.final() else None))

    def _publish_batch(self, encoded: Encoded, span: Span) -> None:
        if self._link is not None:
            self._post.report_gaps()
        self._ledger.hand_out(self._announcer.batch(encoded, span))

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
