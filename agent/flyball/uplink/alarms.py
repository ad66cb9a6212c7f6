"""What is wrong now, as retained messages that last until it is right again.

raise_alarm(name) -> kept and published -> every new session publishes them again -> clear(name): an empty payload

Each is also an event, once, when it begins. The first session clears what an earlier run of the daemon left behind.
"""

from __future__ import annotations

from collections.abc import Callable

from flyball.clock import Clock
from flyball.events import Event, Events
from flyball.uplink.announcer import Announcer
from flyball.uplink.outbox import Publication

DUPLICATE_IDENTITY = "duplicate_identity"  # another client connects under our id
CERTIFICATE = "certificate"  # ours is not of this device, or ends soon
STATE_STORE = "state_store"  # state.db cannot be written
SPOOL = "spool"  # spool.db cannot be written; records wait in memory
SPOOL_REPLACED = "spool_replaced"  # it was damaged, kept aside, and begun anew; lasts until the daemon starts again
NAMES = (CERTIFICATE, DUPLICATE_IDENTITY, STATE_STORE, SPOOL, SPOOL_REPLACED)


class Alarms:
    def __init__(
        self, announcer: Announcer, events: Events, clock: Clock, publish: Callable[[Publication], None]
    ) -> None:
        self._announcer = announcer
        self._events = events
        self._clock = clock
        self._publish = publish
        self._active: dict[str, str] = {}
        self._unknown = set(NAMES)  # what the broker may still hold of them

    def raise_alarm(self, name: str, message: str) -> None:
        if name in self._active:
            return
        self._unknown.discard(name)
        self._active[name] = message
        self._events.publish(Event(kind=name, t_s=self._clock.monotonic_s(), severity="error", message=message))
        self._publish(self._announcer.alarm(name, message))

    def clear(self, name: str) -> None:
        if self._active.pop(name, None) is not None:
            self._publish(self._announcer.clear_alarm(name))

    def repeat(self) -> None:
        for name, message in self._active.items():
            self._publish(self._announcer.alarm(name, message))
        for name in sorted(self._unknown):
            self._publish(self._announcer.clear_alarm(name))
        self._unknown.clear()
