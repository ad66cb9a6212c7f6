"""What happened, as values, and the one place they are handed round.

room -> Events.publish(event) -> every subscriber, in order, in the same thread

Subscribers are quick; one that raises is logged, and the others still hear.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is the suffix of its topic (e/<kind>) and stands in the log; `t_s` is monotonic."""

    kind: str
    t_s: float
    message: str
    ladder: str = ""
    severity: Literal["info", "warning", "error"] = "info"
    detail: dict[str, str | float | int | bool | None] = {}


class Events:
    """A synchronous list of subscribers."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        self._subscribers.append(subscriber)

    def publish(self, event: Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                # The boundary between rooms: a subscriber's fault must not reach the room that reports.
                log.exception("a subscriber failed on the event %s", event.kind)
