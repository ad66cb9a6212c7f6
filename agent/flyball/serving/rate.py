"""How many requests one client may send: a token bucket for each.

client's address -> its bucket -> a token, or QueueFullError with how long to wait

Buckets of clients that have been quiet until theirs was full again are forgotten; at most _CLIENTS are kept.
"""

from __future__ import annotations

from collections import OrderedDict

from flyball.clock import Clock
from flyball.errors import QueueFullError

_CLIENTS = 4096


class RateLimit:
    """`per_s` lasting, `burst` at once."""

    def __init__(self, per_s: float, burst: int, clock: Clock) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens, when that was so

    def take(self, client: str) -> None:
        """Raises QueueFullError."""
        now_s = self._clock.monotonic_s()
        tokens, then_s = self._buckets.pop(client, (float(self._burst), now_s))
        tokens = min(float(self._burst), tokens + (now_s - then_s) * self._per_s)
        self._buckets[client] = (max(0.0, tokens - 1) if tokens >= 1 else tokens, now_s)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            wait_s = (1 - tokens) / self._per_s
            raise QueueFullError(
                f"more than {self._per_s:g} requests a second from {client} (serving.rate_per_s): "
                f"retry in {wait_s:.2g} s"
            )
