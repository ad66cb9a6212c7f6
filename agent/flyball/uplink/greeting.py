"""One session's course: subscriptions, a look at who stands under our name, status, birth, probe.

Connection -> subscribe -> stranger? -> status init -> birth -> acknowledged -> status ready -> probe -> verified

A stranger's status under our name ends the session before anything is said. A broker may grant a subscription that
its rules then leave empty; only an answered probe proves that orders arrive, and until then the status says
"unverified". Opens no connection and waits for none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from flyball.errors import LinkError
from flyball.uplink.alarms import DUPLICATE_IDENTITY, Alarms
from flyball.uplink.announcer import Announcer
from flyball.uplink.backoff import TAKEN_OVER
from flyball.uplink.connection import Connection
from flyball.uplink.identity import Identity
from flyball.uplink.link import Timing
from flyball.uplink.membership import Membership, tell_refused
from flyball.uplink.messages import BirthFacts, Presence
from flyball.uplink.mqtt import Will
from flyball.uplink.news import News
from flyball.uplink.post import Post
from flyball.uplink.topics import Device

log = logging.getLogger(__name__)

PROBE_MAX_S = 3600.0


class Greeting:
    """`birth_facts` is called on the event loop and has to be quick; `ready` hears that a session is complete, and
    whether the broker still had what earlier ones had published. `watched` are topics of which what is retained counts,
    beside our status."""

    def __init__(
        self,
        *,
        device: Device,
        announcer: Announcer,
        post: Post,
        alarms: Alarms,
        news: News,
        birth_facts: Callable[[], BirthFacts],
        ready: Callable[[bool], None],
        timing: Timing,
        membership: Membership,
        watched: Sequence[str] = (),
    ) -> None:
        self._device = device
        self._announcer = announcer
        self._post = post
        self._alarms = alarms
        self._news = news
        self._birth_facts = birth_facts
        self._on_ready = ready
        self._timing = timing
        self._membership = membership
        self._watched = (device.status, *watched)
        self._identity = Identity()
        self._link: Connection | None = None
        self._looked: asyncio.Future[None] | None = None  # done when the status under our name was heard
        self._stranger: asyncio.Future[str] | None = None  # done when it is somebody else's
        self._timers: list[asyncio.TimerHandle] = []
        self._left = False  # whether this session has said goodbye

    def begin(self, epoch: str, session: int) -> Will:
        self._left = False
        self._announcer.begin(epoch, session)
        self._identity.begin(epoch, session)
        will = Will(topic=self._device.status, payload=self._announcer.will(), delay_s=self._timing.will_delay_s)
        self._identity.said(will.payload)
        return will

    async def hold(self, link: Connection) -> LinkError:
        """Until the connection ends; gives back why. Raises LinkError when it ends before the subscription."""
        loop = asyncio.get_running_loop()
        self._link = link
        looked, stranger = self._looked, self._stranger = loop.create_future(), loop.create_future()
        # What an earlier session said of itself is out of date.
        self._post.forget(self._device.status)
        self._post.forget(self._device.birth)
        lost = asyncio.ensure_future(link.lost())
        groups: asyncio.Future[None] | None = None
        try:
            groups = asyncio.ensure_future(self._membership.follow(link, await self._subscribe(link)))
            if self._identity.spoken:
                await asyncio.wait({looked, lost}, timeout=self._timing.look_s, return_when=asyncio.FIRST_COMPLETED)
            if not stranger.done():
                self._introduce(link)
                await asyncio.wait({stranger, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not stranger.done():
                return lost.result()
            return await self._withdraw(link, lost, stranger.result())
        finally:
            lost.cancel()
            await _over(groups)

    def end(self) -> None:
        self._link = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def heard(self, link: Connection, payload: bytes) -> None:
        """The status that stands under our name."""
        if link is self._link and self._looked is not None and self._stranger is not None:
            stranger = self._identity.stranger(payload)
            if stranger and not self._stranger.done():
                self._stranger.set_result(stranger)
            if not self._looked.done():
                self._looked.set_result(None)

    def say(self, state: Presence) -> None:
        """Nothing after the goodbye: a probe's late answer would stay retained as ready, and no will takes it back."""
        if self._left:
            return
        self._left = state == "disconnected"
        status = self._announcer.status(state, self._identity.acknowledged)
        self._identity.said(status.payload)
        self._post.add(status)

    def rebirth(self) -> None:
        self._post.add(self._announcer.birth(self._birth_facts()))

    def probed(self) -> None:
        """The answer to a probe has come."""
        if self._announcer.commands != "verified":
            self._announcer.commands = "verified"
            self.say("ready")

    async def _subscribe(self, link: Connection) -> Sequence[str]:
        """Gives back the filters for orders to groups."""
        orders, watched, possible = self._device.orders(), tuple(self._watched), link.capabilities.wildcards
        groups = self._membership.filters()
        if not possible:
            # Only what needs none can be had from such a broker: no commands, whose ids nobody knows beforehand.
            signals = (self._device.signal(name) for name in ("rebirth", "sync", "probe"))
            orders = (*(order for order in orders if "+" not in order), *signals)
            watched = tuple(filter for filter in watched if "+" not in filter)
            groups = ()
        codes = await link.subscribe((*orders, *groups), watched=watched)
        of_orders, of_groups = codes[: len(orders)], codes[len(orders) : len(orders) + len(groups)]
        of_watched = codes[len(orders) + len(groups) :]
        if any(code >= 0x80 for code in of_orders) or not possible:
            self._announcer.commands = "denied"
            why = (
                f"denied by the broker ({', '.join(map(hex, codes))})" if possible else "not possible without wildcards"
            )
            log.error("uplink: the subscription to commands is %s", why)
        elif any(code >= 0x80 for code in of_watched):
            refused = [t for t, code in zip(watched, of_watched, strict=False) if code >= 0x80]
            log.info("uplink: may not be read: %s (status: a second device of our id goes unseen)", ", ".join(refused))
        tell_refused(groups, of_groups)
        return groups

    def _introduce(self, link: Connection) -> None:
        self.say("init")
        self._post.link_up(link)
        self._post.add(self._announcer.birth(self._birth_facts(), lambda: self._ready(link)))

    def _ready(self, link: Connection) -> None:
        """The birth is acknowledged."""
        if link is not self._link:
            return
        self.say("ready")
        self._alarms.repeat()
        self._on_ready(link.session_present)
        if self._announcer.commands != "denied":
            self._probe(link, self._timing.probe_s)
        # The other one comes back after taken_over_s, as we would; only then is it known to be gone.
        self._later(2 * self._timing.waits.taken_over_s, lambda: self._alarms.clear(DUPLICATE_IDENTITY))

    def _probe(self, link: Connection, next_s: float) -> None:
        """Again and again, since the fleet's server may come later than we; ever more rarely, since it may be none."""
        if link is self._link and self._announcer.commands != "verified":
            self._news.tell("probe", "answer with sig/probe")
            self._later(next_s, lambda: self._probe(link, min(2 * next_s, PROBE_MAX_S)))

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

    def _later(self, wait_s: float, work: Callable[[], None]) -> None:
        now_s = asyncio.get_running_loop().time()
        self._timers = [t for t in self._timers if not t.cancelled() and t.when() > now_s]
        self._timers.append(asyncio.get_running_loop().call_later(wait_s, work))


async def _over(task: asyncio.Future[None] | None) -> None:
    """It has ended with the connection, or does now."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait({task})
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, LinkError):
        log.error("uplink: the orders for groups were no longer followed", exc_info=error)
