"""How fast a rung answers now, for who has to say whether a request can make its deadline.

answers as they come -> moving averages -> own_s (one request alone), service_s (the next one, while others wait),
least_s (what those ahead cannot take less than)

Never looks at a clock: the caller brings the time.
"""

from __future__ import annotations

import math

_WEIGHT = 0.2  # of the newest answer: about the last ten count
_TRIAL = 30  # a rung that is left aside for its pace is tried again after so many times what it takes
_TRIAL_LEAST_S = 1.0


class Pace:
    """Of one open rung; `prior_s` is what its warm-up measured, `together` how many requests it can run at once."""

    def __init__(self, prior_s: float, together: int = 1) -> None:
        self.own_s = self._prior_s = prior_s
        self._run_s: float | None = None  # in the session, which runs for one request or batch at a time
        self._together = together
        self._heard_s = 0.0  # the last answer, or trial
        self._between_s: float | None = None  # answers, while there was work all the time
        self._last_s: float | None = None  # when the last answer came, if others were left waiting then

    @property
    def service_s(self) -> float:
        """With lanes, instances and batches one request takes less than its own time; never more."""
        return self.own_s if self._between_s is None else min(self._between_s, self.own_s)

    def answered(self, now_s: float, own_s: float, run_s: float, left: int) -> None:
        """`own_s`: pre + run + post of this answer; `left`: requests that are still with the ladder."""
        self.own_s += _WEIGHT * (own_s - self.own_s)
        least_s = self._run_s
        # Down at once, up slowly: one long run must not have others refused.
        self._run_s = run_s if least_s is None or run_s < least_s else least_s + _WEIGHT * (run_s - least_s)
        self._heard_s = now_s
        if self._last_s is not None:
            between_s = now_s - self._last_s
            before_s = between_s if self._between_s is None else self._between_s
            self._between_s = before_s + _WEIGHT * (between_s - before_s)
        self._last_s = now_s if left else None

    def done_s(self, ahead: int) -> float:
        """Until a request with so many before it is answered. Those that run together take one run, however long they
        took to come."""
        wait_s = ahead * self.service_s
        if self._together > 1:
            wait_s = min(wait_s, math.ceil(ahead / self._together) * self.own_s)
        return wait_s + self.own_s

    def least_s(self, ahead: int) -> float:
        """The same, when all goes as well as it can; 0 before the first answer."""
        return 0.0 if self._run_s is None else (ahead / self._together + 1) * self._run_s

    def try_again(self, now_s: float, limit_s: float) -> bool:
        """Whether a rung that has become too slow for the limit should be given a request nonetheless, because nothing
        was heard of it for long: an estimate that no answer corrects would stand for ever. At most once in that time,
        and never one that its warm-up found too slow."""
        if self._prior_s > limit_s or now_s - self._heard_s < max(_TRIAL_LEAST_S, _TRIAL * self.own_s):
            return False
        self._heard_s = now_s
        return True
