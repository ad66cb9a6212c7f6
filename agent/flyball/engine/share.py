"""An accelerator that several ladders share: whose turn it is.

may_start -> now, or later by a call to `go`;  finished -> the turn goes to the ladder that has used least

Weighted by time, not by requests: a ladder with long runs gets as many seconds as one with short ones. Processors need
none of this, the kernel shares those.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable


class Shares:
    """One Share for every kind of accelerator but the processor."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Share] = {}

    def of(self, kind: str) -> Share | None:
        return None if kind == "cpu" else self._by_kind.setdefault(kind, Share())


class Share:
    """`turns` is how many runs may be on the accelerator at once: one computing, one getting ready."""

    def __init__(self, turns: int = 2) -> None:
        self._free = turns
        self._used_s: dict[str, float] = {}
        self._waiting: dict[Hashable, tuple[str, Callable[[], None]]] = {}  # who -> ladder, go

    def may_start(self, who: Hashable, ladder: str, go: Callable[[], None]) -> bool:
        """Takes a turn for `who`, a rung of the ladder: several of one ladder may be open. False when there is none:
        `go` is then called once it is theirs."""
        if ladder not in self._used_s:
            # A newcomer begins level with the others: time in which it did not exist is no claim.
            self._used_s[ladder] = min(self._used_s.values(), default=0.0)
        if self._free and not self._waiting:
            self._free -= 1
            return True
        if self._free and who in self._waiting and who == self._next():
            del self._waiting[who]
            self._free -= 1
            return True
        others = {waiting for waiting, _ in self._waiting.values()}
        if ladder not in others:
            # One that comes back after a pause has saved nothing up either.
            least_s = min((self._used_s[other] for other in others), default=self._used_s[ladder])
            self._used_s[ladder] = max(self._used_s[ladder], least_s - 1.0)
        self._waiting[who] = ladder, go
        return False

    def finished(self, ladder: str, busy_s: float) -> None:
        self._used_s[ladder] = self._used_s.get(ladder, 0.0) + busy_s
        self._free += 1
        self._call_next()

    def leave(self, who: Hashable) -> None:
        """It has nothing to run any more."""
        if self._waiting.pop(who, None) is not None and self._free:
            self._call_next()

    def _next(self) -> Hashable:
        return min(self._waiting, key=lambda who: self._used_s[self._waiting[who][0]])

    def _call_next(self) -> None:
        if self._waiting and self._free:
            _, go = self._waiting[self._next()]
            go()
