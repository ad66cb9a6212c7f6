"""What is known of every rung of a ladder: its state, what opening it measured, why it failed, when to try again."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from flyball.clock import Clock
from flyball.config import Engine
from flyball.engine.canary import Sample
from flyball.engine.opened import OpenedRung
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ports import RungStatus

State = Literal["active", "standby", "closed", "failed", "no-accelerator"]

_FIRST_REST_S = 5.0  # after a rung could not be opened; doubled each time up to engine.rest_s


@dataclass(slots=True)
class _History:
    """What happened to one rung. `ends`: when its workers ended by themselves, in the crash-loop window."""

    sample: Sample = ()
    refusals: int = 0
    rests_until_s: float = 0.0
    loops_until_s: float = 0.0  # the part of it that is because of a crash loop
    ends: deque[float] = field(default_factory=deque)


class RungBook:
    def __init__(self, folder: LadderFolder, config: Engine, clock: Clock) -> None:
        self._rungs = folder.manifest.rung
        self._config = config
        self._clock = clock
        self._present = frozenset({"cpu"})
        self._entries = {
            rung.name: RungStatus(
                name=rung.name,
                state="closed",
                precision=rung.precision,
                accuracy=rung.accuracy,
                accelerator=self.kind(rung),
            )
            for rung in self._rungs
        }
        self._history = {rung.name: _History(sample=rung.canary) for rung in self._rungs}

    def limit_to(self, accelerators: Collection[str]) -> None:
        """`accelerators` are the kinds present on this machine; a rung that can use none of them is never opened."""
        self._present = frozenset(accelerators)
        for rung in self._rungs:
            usable = any(kind in accelerators for kind in rung.accelerators)
            self._entries[rung.name] = msgspec.structs.replace(
                self._entries[rung.name], accelerator=self.kind(rung) if usable else ""
            )
            if not usable:
                self._note(rung, "no-accelerator", f"none of its accelerators is present: {_listed(rung)}")

    def usable(self, rung: str) -> bool:
        return self._entries[rung].state != "no-accelerator"

    def why_not(self, rung: str) -> str:
        return self._entries[rung].error

    def kind(self, rung: Rung) -> str:
        """The accelerator that it runs on: the first of its kinds that is present."""
        return next((kind for kind in rung.accelerators if kind in self._present), "cpu")

    def leave_alone_s(self, rung: str) -> float:
        return max(0.0, self._history[rung].rests_until_s - self._clock.monotonic_s())

    def loop_rest_s(self, rung: str) -> float:
        """How long it rests because its workers ended again and again; a rung that was only refused may be tried."""
        return max(0.0, self._history[rung].loops_until_s - self._clock.monotonic_s())

    def expected(self, rung: str) -> Sample:
        """The canary's right answer: the manifest's, else this rung's first one here, else unknown."""
        return self._history[rung].sample

    def opened(self, opened: OpenedRung, state: State) -> None:
        history = self._history[opened.rung.name]
        history.sample = history.sample or opened.warmth.sample
        history.refusals = 0
        self._entries[opened.rung.name] = msgspec.structs.replace(
            self._entries[opened.rung.name],
            state=state,
            profiled_p50_s=opened.warmth.calm_p50_s,
            load_s=opened.load_s,
            rss_bytes=opened.resident_bytes,
            error="",
        )

    def closed(self, rung: Rung) -> None:
        self._note(rung, "closed", "")

    def refused(self, rung: Rung, error: str) -> None:
        """It could not be opened."""
        history = self._history[rung.name]
        rest_s = min(self._config.rest_s, _FIRST_REST_S * 2.0 ** min(history.refusals, 20))
        history.refusals += 1
        history.rests_until_s = self._clock.monotonic_s() + rest_s
        state = self._entries[rung.name].state
        # One that is open was to be opened again for the instances that it has lost: what is left of it goes on.
        self._note(rung, state if state in ("active", "standby") else "failed", error)

    def ended(self, rung: Rung, error: str, state: State = "failed") -> bool:
        """A worker of it ended by itself; `state` is what the rung is then: others of it may go on. True when that has
        become a loop: the rung then rests."""
        now_s, history = self._clock.monotonic_s(), self._history[rung.name]
        history.ends.append(now_s)
        while history.ends and now_s - history.ends[0] > self._config.crash_loop_window_s:
            history.ends.popleft()
        looping = 0 < self._config.crash_loop_limit <= len(history.ends)
        if looping:
            error = f"{error}; {len(history.ends)} ends in a row: left alone for {self._config.rest_s:.0f} s"
            history.rests_until_s = history.loops_until_s = now_s + self._config.rest_s
            history.ends.clear()
        self._note(rung, state, error)
        return looping

    def entries(self) -> tuple[RungStatus, ...]:
        return tuple(
            msgspec.structs.replace(entry, leave_alone_s=self.leave_alone_s(name))
            if self._history[name].rests_until_s
            else entry
            for name, entry in self._entries.items()
        )

    def _note(self, rung: Rung, state: State, error: str) -> None:
        self._entries[rung.name] = msgspec.structs.replace(self._entries[rung.name], state=state, error=error)


def _listed(rung: Rung) -> str:
    return ", ".join(rung.accelerators)
