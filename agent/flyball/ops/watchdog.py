"""Pets systemd's watchdog as long as every loop of the daemon makes progress.

loops -> Heartbeats.beat(name) -> check(now) -> WATCHDOG=1, or silence and one line in the log

An error that was handled is progress; a hung worker, a full disk or an unreachable broker is no reason to be restarted,
so nothing of that kind beats here.
"""

from __future__ import annotations

import asyncio
import logging

from flyball.clock import Clock
from flyball.ops.notify import Notifier

log = logging.getLogger(__name__)


class Heartbeats:
    """When each loop was last seen. `beat` may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limits_s: dict[str, float] = {}
        self._seen_s: dict[str, float] = {}

    def register(self, name: str, limit_s: float) -> None:
        """From now on `name` has to beat at least every `limit_s` seconds."""
        self._seen_s[name] = self._clock.monotonic_s()
        self._limits_s[name] = limit_s

    def beat(self, name: str) -> None:
        if name not in self._limits_s:
            known = ", ".join(self._limits_s) or "none"
            raise KeyError(f"the heartbeat {name!r} beats, but was not registered (registered: {known})")
        self._seen_s[name] = self._clock.monotonic_s()

    def check(self, now_s: float) -> list[str]:
        """The names of those that have not beaten for longer than their limit."""
        return sorted(name for name, limit_s in self._limits_s.items() if now_s - self._seen_s[name] > limit_s)

    def stuck(self) -> list[str]:
        return self.check(self._clock.monotonic_s())


class Watchdog:
    """Tells the service manager three times per period; that this runs at all is the event loop's own heartbeat."""

    def __init__(self, notifier: Notifier, heartbeats: Heartbeats) -> None:
        self._notifier = notifier
        self._heartbeats = heartbeats
        self._stuck: list[str] = []

    async def run(self) -> None:
        """Returns at once where no watchdog is asked for."""
        if self._notifier.watchdog_s is None:
            return
        while True:
            self.look()
            await asyncio.sleep(self._notifier.watchdog_s / 3)

    def look(self) -> bool:
        """Whether all is well; the service manager is told only then."""
        stuck = self._heartbeats.stuck()
        if stuck != self._stuck:
            if stuck:
                log.error("no progress in: %s; the service manager is not told that all is well", ", ".join(stuck))
            else:
                log.warning("there is progress in %s again", ", ".join(self._stuck))
            self._stuck = stuck
        if not stuck:
            self._notifier.watchdog()
        return not stuck
