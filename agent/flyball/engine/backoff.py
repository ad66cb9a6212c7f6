"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from flyball.clock import Clock

_STABLE_S = 60.0  # without a failure for so long, the next one counts as the first


class Backoff:
    """Nothing for the first failure in a while, then `base_s`, doubling up to `limit_s`."""

    def __init__(self, base_s: float, limit_s: float, clock: Clock) -> None:
        self._base_s = base_s
        self._limit_s = limit_s
        self._clock = clock
        self._failures = 0
        self._last_s = 0.0

    def next_s(self) -> float:
        """Counts a failure, now."""
        now_s = self._clock.monotonic_s()
        if now_s - self._last_s > _STABLE_S:
            self._failures = 0
        self._last_s = now_s
        self._failures += 1
        if self._failures == 1:
            return 0.0
        return min(self._base_s * 2.0 ** min(self._failures - 2, 20), self._limit_s)
