"""The device's side of the fleet: keeps a link to the broker, says how it goes, takes orders.

    snapshot -> telemetry --+
    Events -> news ---------+-> writer (spool) -> drain -> post (outbox) -> mqtt.Connection -> broker
    journal <-> execution -----------------------------------^                       |
        ^------------------ orders, signals <----------------------------------------+

start() returns at once and nothing here ever makes the daemon wait: a broker that is away, refuses or talks nonsense
is tried again with back-off, logged when it goes and when it comes. One CONNECT is one session: its number is on disk
before the packet leaves. After it: subscriptions, status init, birth, and once that is acknowledged status ready. A
stranger's status under our name ends the session before any of that is said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flyball import config
from flyball.clock import Clock, boot_id, wall_is_synchronized
from flyball.errors import LinkError, StateError
from flyball.events import Events
from flyball.ports import UplinkStatus
from flyball.uplink import address
from flyball.uplink.alarms import CERTIFICATE, DUPLICATE_IDENTITY, SPOOL, SPOOL_REPLACED, Alarms
from flyball.uplink.announcer import Announcer
from flyball.uplink.aside import Aside
from flyball.uplink.backoff import TAKEN_OVER
from flyball.uplink.commands import Handler, Row
from flyball.uplink.connection import Connection
from flyball.uplink.drain import Drain
from flyball.uplink.execution import Execution
from flyball.uplink.greeting import Greeting
from flyball.uplink.homeassistant import HomeAssistant, View
from flyball.uplink.inbox import Inbox
from flyball.uplink.journal import Journal
from flyball.uplink.link import Link, Timing
from flyball.uplink.membership import Membership
from flyball.uplink.messages import BirthFacts, Encoded
from flyball.uplink.mqtt import Received, Will
from flyball.uplink.news import STREAM as EVENT_STREAM
from flyball.uplink.news import News
from flyball.uplink.post import Post
from flyball.uplink.record import Record
from flyball.uplink.spool import SpoolFile
from flyball.uplink.spooled import EVENTS, TELEMETRY
from flyball.uplink.stamp import Stamper
from flyball.uplink.stores import Stores
from flyball.uplink.telemetry import STREAM, Telemetry
from flyball.uplink.twin import Twin
from flyball.uplink.writer import Writer

log = logging.getLogger(__name__)

STREAMS = {STREAM: TELEMETRY, EVENT_STREAM: EVENTS}


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
        journal: Journal | None = None,
        twin: Twin | None = None,
        home: Callable[[], View] | None = None,
    ) -> None:
        self._settings = settings
        self._handlers = handlers
        self._events = events
        self._clock = clock
        self._timing = timing or Timing()
        self._stamper = Stamper(clock, boot_id(), synchronized)
        self._device = address.device(settings)
        by_name = {h.name: h for h in handlers}
        self._announcer = Announcer(self._device, by_name, settings.commands.allow, self._stamper)
        self._post = Post()
        self._alarms = Alarms(self._announcer, events, clock, self._post.add)
        self._journal = journal or Journal(state_dir)
        self._twin = twin
        self._writer = Writer(
            SpoolFile(state_dir, int(settings.spool_mib * 1024 * 1024), settings.batch_records),
            grant=self._journal.save_streams,
            stored=lambda trouble: self._stores.trouble(trouble, SPOOL),
            replaced=lambda why: self._alarms.raise_alarm(SPOOL_REPLACED, f"the spool was begun anew: {why}"),
            sealed=lambda batches: self._drain.sealed(batches),
            collect_s=self._timing.collect_s,
        )
        self._stores = Stores(self._journal, self._writer, self._alarms, self._stamper, STREAMS)
        self._drain = Drain(self._writer, self._post, self._device, self._stamper, settings.drain_records_s)
        self._writer.busy = self._drain.busy
        self._news = News(events, self._device, self._writer, self._stamper, clock)
        self._home: HomeAssistant | None = None
        if settings.homeassistant and home is not None:
            self._home = HomeAssistant(
                device=self._device,
                prefix=settings.homeassistant_prefix,
                period_s=settings.homeassistant_s,
                view=home,
                rungs="rung" in settings.commands.allow,
                order=lambda *order: self._execution.receive(*order),
                publish=self._post.add,
            )
        self._aside = Aside(self._device, twin, self._home)
        self._membership = Membership(self._device)
        self._greeting = Greeting(
            device=self._device,
            announcer=self._announcer,
            post=self._post,
            alarms=self._alarms,
            news=self._news,
            birth_facts=birth_facts,
            ready=self._ready,
            timing=self._timing,
            membership=self._membership,
            watched=self._aside.watched(),
        )
        self._link = Link(
            settings,
            self,
            self,
            clock=clock,
            timing=self._timing,
            synchronized=synchronized,
            judged=lambda trouble: self._stores.trouble(trouble, CERTIFICATE),
        )
        self._execution = Execution(
            handlers=by_name,
            allowed=settings.commands.allow,
            journal=self._journal,
            tell=self._tell,
            events=events,
            stamper=self._stamper,
            version=twin.version if twin is not None else lambda: None,
        )
        self._inbox = Inbox(
            device=self._device,
            execution=self._execution,
            own=self._membership.own,
            signals={"rebirth": self._greeting.rebirth, "sync": self._sync, "probe": self._greeting.probed},
            aside=self._aside.take,
            ignored=self._ignored,
            stored=self._stores.trouble,
        )
        self._telemetry = Telemetry(
            snapshot=snapshot,
            stamper=self._stamper,
            writer=self._writer,
            period_s=settings.telemetry_period_s,
            batch_records=settings.batch_records,
            batch_s=settings.batch_s,
            clock_changed=self._news.clock_changed,
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # ------------------------------------------------------------------------------------------------------ lifecycle

    async def start(self) -> None:
        """Once. Does nothing when the configuration has the uplink switched off."""
        if not self._settings.enabled or self._tasks:
            return
        for name in sorted(set(self._settings.commands.allow) - {h.name for h in self._handlers}):
            log.warning("uplink.commands.allow: %r is no command that this version knows", name)
        self._news.begin()
        self._tasks["link"] = asyncio.create_task(self._link.run(), name="uplink-link")

    async def stop(self) -> None:
        """Hands on what it can in `drain_s`, says goodbye, and leaves the rest on the disk."""
        if not self._tasks:
            return
        await self._end("link", "telemetry")
        self._telemetry.flush()
        if "inbox" in self._tasks:
            # Not cancelled in the middle of a commit: what is committed is also begun, or taken up at the next start.
            self._inbox.finish()
            await asyncio.wait({self._tasks["inbox"]}, timeout=self._timing.drain_s)
        await self._end("inbox", "work", "twin", "home")
        await self._execution.interrupt()
        self._news.end()
        await self._writer.written(self._timing.drain_s)
        await self._end("drain")
        link = self._link.connection
        if link is not None and not link.closed:
            self._post.link_up(link)  # it may have been about to
            await self._post.drain(self._timing.drain_s)
            self._greeting.say("disconnected")
            await self._post.drain(self._timing.drain_s)
            await link.close()
        await self._stores.close(self._timing.drain_s)
        self._greeting.end()
        self._aside.end()
        self._link.connection = None
        self._tasks.clear()

    def state(self) -> UplinkStatus:
        totals = self._writer.totals()
        return UplinkStatus(
            connected=self._link.connected,
            broker=self._settings.broker,
            error=self._link.error,
            since_s=self._link.since_s,
            session=self._announcer.session or None,
            commands=self._announcer.commands,
            spool_records=totals.records if totals is not None else None,
            spool_bytes=totals.bytes if totals is not None else None,
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

    # ------------------------------------------------------------------------------------------------------- the link

    async def begin(self) -> Will:
        """A session's number and everything below it. Implements link.Party."""
        try:
            opened = await self._stores.begin_session()
            will = self._greeting.begin(opened.epoch, opened.session)
            if "work" not in self._tasks:
                for text in await self._twin.recover() if self._twin is not None else ():
                    self._news.report("settings_taken_back", text, "warning")
                await self._execution.recover()
                self._go_on()
        except StateError as error:
            self._stores.trouble(str(error))
            raise
        self._stores.trouble("")
        if opened.replaced:
            self._news.report("state_store_replaced", f"the uplink's memory was begun anew: {opened.replaced}", "error")
        return will

    def _go_on(self) -> None:
        """What works whether or not there is a link, as soon as the store is open."""
        works = {
            "work": self._execution.work(),
            "inbox": self._inbox.work(),
            "drain": self._drain.run(),
            "telemetry": self._telemetry.run(),
        }
        if self._twin is not None:
            self._membership.become(self._twin.groups())
            works["twin"] = self._twin.work(self._reported, lambda: self._announcer.epoch)
        if self._home is not None:
            works["home"] = self._home.run()
        for name, work in works.items():
            self._tasks[name] = asyncio.create_task(work, name=f"uplink-{name}")

    async def hold(self, connection: Connection) -> LinkError:
        self._news.report("uplink_up", f"connected to {self._settings.broker}, session {self._announcer.session}")
        return await self._greeting.hold(connection)

    def ended(self, error: Exception, message: str, was_up: bool) -> None:
        self._greeting.end()
        self._drain.link_lost()
        self._post.link_lost()
        if was_up:
            self._news.report("uplink_down", message, "warning")
        if isinstance(error, LinkError) and error.code == TAKEN_OVER:
            self._alarms.raise_alarm(
                DUPLICATE_IDENTITY,
                f"another client connected to {self._settings.broker} as {self._device.device!r}; "
                "every device needs an id of its own (uplink.device)",
            )

    def _ready(self, remembered: bool) -> None:
        """A session is complete."""
        self._drain.link_ready()
        self._aside.announce()
        if not remembered and self._announcer.session > 1:
            # It lost our session, and then perhaps also what we had published to stay.
            self._stores.write(self._execution.repeat_finished())

    # ------------------------------------------------------------------------------------- what comes from the broker

    def received(self, connection: Connection, message: Received) -> None:
        if message.topic == self._device.status:
            self._greeting.heard(connection, message.payload)
        else:
            self._inbox.put(connection, message)

    def published(self, connection: Connection, id: int, refusal: str) -> None:
        self._post.published(connection, id, refusal)

    def _sync(self) -> None:
        """Everything that is still on its way here, now."""
        self._telemetry.flush()
        self._execution.repeat()

    def _reported(self, encoded: Encoded) -> None:
        self._post.add(self._announcer.twin(encoded))
        if self._twin is not None:
            self._membership.become(self._twin.groups())

    def _ignored(self, why: str) -> None:
        self._news.report("command_ignored", why, "warning")

    # --------------------------------------------------------------------------------------- what goes to the broker

    def _tell(self, row: Row) -> None:
        def acknowledged() -> None:
            told = self._journal.told_soon if row.state == "rejected" else self._journal.told
            self._stores.write(told(row.id, row.rev))

        self._post.add(self._announcer.command_state(row, acknowledged if row.final() else None))
