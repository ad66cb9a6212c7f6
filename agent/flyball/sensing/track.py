"""One sensor's record: is it here, does it answer, when is it asked again.

begin(now) / finish(now, outcome) / check(now) -> Change | None; health(now) -> SensorHealth

Everything that decides a sensor's state lives here. Pure: takes times and outcomes, logs and publishes nothing.

            read ok                       read failed, or hardware gone,
   (new) ------------> fine ---------------or no answer for stale_after_s ----> lost
     | unavailable      ^  | some readings missing                               |
     v                  |  v                                                     |
   absent --read ok--> fine/partly <------- 3 such reads in a row ---------------+

What gets worse counts at once; what gets better counts after three reads in a row, so that a sensor that comes and
goes is told of once. `health` always says how the last read went.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flyball.ports import SensorHealth

RECOVERED_AFTER = 3  # reads in a row
RETRY_ABSENT_S = 60.0
RETRY_FAILED_MAX_S = 60.0
QUICK_RETRIES = 3  # failures in a row before the wait starts to double

_FINE, _PARTLY, _LOST = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one read went. "ok" with a reason: some of its readings are missing."""

    state: Literal["ok", "failed", "unavailable"]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A transition worth telling: a sensor was "lost" or "found", or "partly" fails, or is "whole" again."""

    kind: Literal["lost", "found", "partly", "whole"]
    state: str
    reason: str = ""


class Track:
    def __init__(self, sensor: str, *, period_s: float, stale_after_s: float) -> None:
        self.sensor = sensor
        self._period_s = period_s
        self._stale_after_s = stale_after_s
        self._outcome: Outcome | None = None
        self._level = _FINE
        self._better = 0  # reads in a row that were better than the level
        self._failed_in_a_row = 0
        self._present = False  # some read was ok
        self._begun_s: float | None = None  # of the read under way
        self._first_s: float | None = None
        self._ok_s: float | None = None  # start of the last read that was ok
        self._cost_s: float | None = None
        self._reads = 0
        self._failures = 0

    def begin(self, now_s: float) -> None:
        self._begun_s = now_s
        if self._first_s is None:
            self._first_s = now_s

    def finish(self, now_s: float, outcome: Outcome) -> Change | None:
        begun_s = now_s if self._begun_s is None else self._begun_s
        before, self._outcome = self._outcome, outcome
        self._begun_s = None
        self._cost_s = now_s - begun_s
        self._reads += 1
        failed = outcome.state == "failed"
        self._failures += failed or (outcome.state == "ok" and outcome.reason != "")
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        if outcome.state == "ok":
            self._ok_s = begun_s
            newly_here = before is not None and before.state == "unavailable" and self._level == _FINE
            self._present = True
            if newly_here:
                self._level = _PARTLY if outcome.reason else _FINE
                return Change(kind="found", state="ok", reason=outcome.reason)
        elif outcome.state == "unavailable" and not self._present:
            return None  # it never was here: nothing is lost
        return self._move(self._level_of(now_s), now_s)

    def check(self, now_s: float) -> Change | None:
        """To be called now and then: a read that hangs tells nothing by itself."""
        if self._level != _LOST and self._state(now_s)[0] == "stale":
            return self._move(_LOST, now_s)
        return None

    def health(self, now_s: float) -> SensorHealth:
        state, reason = self._state(now_s)
        return SensorHealth(
            sensor=self.sensor,
            state=state,
            reason=reason,
            cost_s=self._cost_s,
            reads=self._reads,
            failures=self._failures,
        )

    def wait_s(self) -> float:
        """How long to leave the sensor alone after the read that has just finished; 0: until the next period."""
        if self._outcome is not None and self._outcome.state == "unavailable":
            return RETRY_ABSENT_S
        doubled = self._failed_in_a_row - QUICK_RETRIES
        if doubled <= 0:
            return 0.0
        return min(self._period_s * 2.0 ** min(doubled, 16), max(RETRY_FAILED_MAX_S, self._period_s))

    def _state(self, now_s: float) -> tuple[Literal["ok", "unavailable", "failed", "stale"], str]:
        if self._begun_s is not None and now_s - self._begun_s > self._stale_after_s:
            return "stale", f"the read under way has not come back for {now_s - self._begun_s:.1f} s"
        if self._outcome is None:
            return "unavailable", "not read yet"
        if self._outcome.state == "ok" and self._ok_s is not None and now_s - self._ok_s > self._stale_after_s:
            return "stale", f"the last reading is {now_s - self._ok_s:.1f} s old"
        return self._outcome.state, self._outcome.reason

    def _level_of(self, now_s: float) -> int:
        state, reason = self._state(now_s)
        if state != "ok":
            return _LOST
        return _PARTLY if reason else _FINE

    def _move(self, level: int, now_s: float) -> Change | None:
        before = self._level
        if level >= before:
            self._better = 0
        else:
            self._better += 1
            if self._better < RECOVERED_AFTER:
                return None
            self._better = 0
        if level == before:
            return None
        self._level = level
        state, reason = self._state(now_s)
        if level == _LOST:
            return Change(kind="lost", state=state, reason=reason)
        if before == _LOST:
            return Change(kind="found", state=state, reason=reason)
        return Change(kind="partly" if level == _PARTLY else "whole", state=state, reason=reason)
