"""The simulated machine's body: the power it takes, its one zone, and the clock that falls when that is too hot.

Board + joules of a period, ambient, foreign load -> Body (power_w, temp_c, throttled, clock)

First order: the zone goes towards what it would settle at, with the board's time constant. Never decides anything.
"""

from __future__ import annotations

import math

from flyball.governor.replay.trace import Board, Step

THROTTLED_CLOCK, COOLER_C = 0.6, 5.0


class Body:
    """At the start it has idled for long. `power_w` is the mean of the last period, `temp_c` as it is at its end."""

    def __init__(self, board: Board, period_s: float, ambient_c: float) -> None:
        self._board, self._period_s = board, period_s
        self._share = 1.0 - math.exp(-period_s / board.tau_s)
        self.power_w = board.idle_w
        self.temp_c = ambient_c + board.idle_rise_c
        self.throttled = False

    @property
    def clock(self) -> float:
        """A share of the highest."""
        return THROTTLED_CLOCK if self.throttled else 1.0

    def spend(self, joules: float, step: Step) -> None:
        """One period, in which Flyball's own work took so much beyond idle."""
        board = self._board
        own_w = joules / self._period_s
        room_w = board.busy_w - board.idle_w
        others_w = room_w * min(1.0, step.contention) * self.clock
        self.power_w = board.idle_w + own_w + min(others_w, max(room_w - own_w, 0.0))
        settles_c = step.ambient_c + board.idle_rise_c + board.r_kw * (self.power_w - board.idle_w)
        self.temp_c += (settles_c - self.temp_c) * self._share
        if self.temp_c > board.throttle_c:
            self.throttled = True
        elif self.temp_c < board.throttle_c - COOLER_C:
            self.throttled = False
