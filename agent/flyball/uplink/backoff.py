"""How long to wait before the next attempt to connect.

reason code of the last failure, number of failures in a row -> seconds

Pure but for the random source. Full jitter: a broker that comes back is not met by every device in the same second.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

NOT_AUTHORIZED, TAKEN_OVER = 0x87, 0x8E
# Client id not valid, bad user name or password, not authorized, banned, bad authentication method: somebody has to
# change something, and asking every second locks accounts.
CREDENTIALS = frozenset({0x85, 0x86, NOT_AUTHORIZED, 0x8A, 0x8C})
# Server unavailable, busy, shutting down is met by plain back-off; these ask for patience: busy, quota, moved, rate.
PATIENCE = frozenset({0x89, 0x97, 0x9C, 0x9D, 0x9F})


@dataclass(frozen=True)
class Waits:
    base_s: float = 1.0
    cap_s: float = 300.0
    stable_s: float = 30.0  # connected for so long, the count of failures starts anew
    credentials_s: float = 300.0
    patience_s: float = 60.0
    taken_over_s: float = 900.0
    spread_s: float = 10.0


class Backoff:
    def __init__(self, waits: Waits = Waits(), uniform: Callable[[], float] | None = None) -> None:
        self._waits = waits
        self._uniform = uniform or random.SystemRandom().random  # devices of one image must not share a seed
        self._failures = 0

    def failed(self, code: int | None, connected_s: float = 0.0, *, credentials: bool = False) -> float:
        """Seconds to wait after a failure with this reason code, of a link that had lasted for `connected_s`;
        `credentials` says that it is about who we are, whatever the code."""
        waits = self._waits
        if connected_s >= waits.stable_s:
            self._failures = 0
        ceiling = min(waits.cap_s, waits.base_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        share = self._uniform()
        if code == TAKEN_OVER:
            return waits.taken_over_s
        if credentials or code in CREDENTIALS:
            return waits.credentials_s * (1 + share)
        if code in PATIENCE:
            return waits.patience_s + (max(waits.cap_s, waits.patience_s) - waits.patience_s) * share
        return ceiling * share

    def spread(self) -> float:
        """Seconds to wait before something that every device of a fleet may be about to do."""
        return self._waits.spread_s * self._uniform()
