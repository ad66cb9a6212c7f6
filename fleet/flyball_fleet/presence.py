"""Whose word counts: which status and which birth are current, and when a device is stale.

epoch, session of a message; what is known of the device -> newer, same, older
state, when it was last heard, now -> the state that people are shown

Pure. `session` counts up with every CONNECT of one epoch; a new epoch (a device that was re-flashed) supersedes the old
one. A will is published by the broker long after its session ended: it counts only for the session that is current.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ALIVE = frozenset({"init", "ready", "sleeping"})
TALKING = frozenset({"init", "ready"})  # of these something must be heard now and then
STALE_AFTER_S = 180.0  # three batches of telemetry at their default of 60 s

Verdict = Literal["newer", "same", "older"]


@dataclass(frozen=True)
class Known:
    """`past` is the highest session of every superseded epoch."""

    epoch: str = ""
    session: int = 0
    past: Mapping[str, int] = field(default_factory=dict)


def judge(known: Known, epoch: str, session: int, alive: bool) -> Verdict:
    """`alive` says whether the message can only come from the device itself, connected: no will, no goodbye."""
    if not known.epoch:
        return "newer"
    if epoch == known.epoch:
        return "same" if session == known.session else "newer" if session > known.session else "older"
    if not alive:
        return "older"  # the will of an epoch that is over, or that never began here
    return "newer" if session > known.past.get(epoch, -1) else "older"


def shown_state(state: str, heard_at: float | None, now: float, stale_after_s: float = STALE_AFTER_S) -> str:
    """A retained "ready" outlives a crash of the broker: without a sign of life it is "stale"."""
    if state in TALKING and (heard_at is None or now - heard_at > stale_after_s):
        return "stale"
    return state or "unknown"
