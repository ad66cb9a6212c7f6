"""Keeps a connection to the broker: one session after the other, for as long as the daemon runs.

Party.begin -> Connection.open -> Party.hold until it ends -> why -> Backoff -> again

Decides how long to wait, what a broker is spared that it has refused before, and when new certificates or passwords
are taken up. The boundary of the uplink: nothing that goes wrong in a session ends this loop, and nothing here makes
the daemon wait. Knows no topic and says nothing to the broker itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from flyball import config
from flyball.clock import Clock
from flyball.errors import CredentialError, FlyballError, LinkError
from flyball.uplink import address
from flyball.uplink.backoff import CREDENTIALS, TAKEN_OVER, Backoff, Waits
from flyball.uplink.capabilities import PACKET_TOO_LARGE, Capabilities
from flyball.uplink.connection import Connection, Listener
from flyball.uplink.mqtt import Will
from flyball.uplink.tls import Watch
from flyball.uplink.writer import COLLECT_S

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Timing:
    will_delay_s: int = 25  # a reconnect within it leaves no "lost" behind
    connect_timeout_s: float = 10.0
    drain_s: float = 2.0  # at the end, for what still waits, and again for the last status
    look_s: float = 1.0  # after a reconnect, for the status that is retained under our name
    probe_s: float = 60.0  # until a probe without an answer is repeated, doubled up to an hour
    watch_s: float = 60.0  # between two looks at the files of certificates and passwords
    collect_s: float = COLLECT_S  # what a kill loses of telemetry
    waits: Waits = field(default_factory=Waits)


class Party(Protocol):
    """Who speaks through the link."""

    async def begin(self) -> Will:
        """A new session: its number is on the disk when this returns. Raises StateError."""
        ...

    async def hold(self, connection: Connection) -> LinkError:
        """Speaks until the connection ends, and says why it did. Raises LinkError."""
        ...

    def ended(self, error: Exception, message: str, was_up: bool) -> None: ...


class Link:
    """`judged` hears again and again what is wrong with the device's own certificate, or ""."""

    def __init__(
        self,
        settings: config.Uplink,
        party: Party,
        listener: Listener,
        *,
        clock: Clock,
        timing: Timing,
        synchronized: Callable[[], bool],
        judged: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._party = party
        self._listener = listener
        self._clock = clock
        self._timing = timing
        self._synchronized = synchronized
        self._judged = judged
        self._backoff = Backoff(timing.waits)
        self._watch = Watch(address.watched_files(settings))
        self._spared = Capabilities()  # what brokers at this address have refused
        self._told: tuple[str, ...] = ()
        self.connection: Connection | None = None
        self.error = ""  # why there is no connection
        self.since_s: float | None = None  # when there began, or ceased, to be one

    @property
    def connected(self) -> bool:
        return self.connection is not None and not self.connection.closed

    async def run(self) -> None:
        """For ever; cancelled by the daemon's end, which leaves the connection open for the last words."""
        self.since_s = self._clock.monotonic_s()
        while True:
            lasted_s = 0.0
            error: Exception
            try:
                began_s = self._clock.monotonic_s()
                error = await self._session()
                if self.connection is not None:
                    lasted_s = self._clock.monotonic_s() - (self.since_s or began_s)
            except Exception as caught:
                error = caught
            self._went_down(error)
            code = error.code if isinstance(error, LinkError) else None
            credentials = isinstance(error, CredentialError) or code in CREDENTIALS
            await self._rest(self._backoff.failed(code, lasted_s, credentials=credentials), code)

    async def _session(self) -> LinkError:
        will = await self._party.begin()
        self._watch.seen()  # what is read from now on is the newest
        self._judge()
        settings = address.broker(self._settings, self._timing.connect_timeout_s, ignore_dates=not self._synchronized())
        connection = await Connection.open(settings, will, self._listener, self._spared)
        self._came_up(connection)
        watching = asyncio.ensure_future(self._look_after(connection))
        try:
            return await self._party.hold(connection)
        except Exception:
            connection.abort("given up")
            raise
        finally:
            watching.cancel()

    def _judge(self) -> None:
        now_s = self._clock.wall_s() if self._synchronized() else None
        self._judged(address.certificate_trouble(self._settings, now_s))

    def _came_up(self, connection: Connection) -> None:
        self.connection = connection
        self.since_s = self._clock.monotonic_s()
        self.error = ""
        log.info("uplink: connected to %s", self._settings.broker)
        missing = connection.capabilities.missing()
        if missing and missing != self._told:
            log.warning("uplink: %s does without: %s", self._settings.broker, "; ".join(missing))
        self._told = missing

    def _went_down(self, error: Exception) -> None:
        was_up, connection, self.connection = self.error == "", self.connection, None
        known = isinstance(error, FlyballError)
        self.error = str(error) if known else f"{type(error).__name__}: {error}"
        code = error.code if isinstance(error, LinkError) else None
        largest = connection.largest_unacknowledged if connection is not None and code == PACKET_TOO_LARGE else None
        self._spared = self._spared.after(code, largest)
        if was_up:
            self.since_s = self._clock.monotonic_s()
            log.warning("uplink: %s; trying again with back-off", self.error, exc_info=None if known else error)
        self._party.ended(error, self.error, was_up)

    async def _rest(self, wait_s: float, code: int | None) -> None:
        """Waits, but not with a certificate or a password that somebody has replaced meanwhile."""
        end_s = self._clock.monotonic_s() + wait_s
        while (left_s := end_s - self._clock.monotonic_s()) > 0:
            await asyncio.sleep(min(left_s, self._timing.watch_s))
            if self._watch.changed() and code != TAKEN_OVER:
                log.info("uplink: a file of the uplink's credentials has changed; trying with it")
                await asyncio.sleep(self._backoff.spread())
                return

    async def _look_after(self, connection: Connection) -> None:
        """Ends the connection when a new certificate, key or CA can be used: the broker then sees the new one. It is
        not a DISCONNECT, so that the will is not published, and nobody hears of it if we are back in its delay."""
        while True:
            await asyncio.sleep(self._timing.watch_s)
            self._judge()
            if self._watch.changed():
                problem = address.credentials_problem(self._settings)
                if not problem:
                    await asyncio.sleep(self._backoff.spread())  # a whole fleet may have been given theirs at once
                    connection.abort("the files of the uplink's certificates have changed; connecting anew with them")
                    return
                log.error("uplink: the new files of its certificates cannot be used, the old ones stay: %s", problem)
                self._watch.seen()
