"""How fast a rung answers now, for who has to say whether a request can make its deadline.

answers as they come -> moving averages -> own_s (one request alone), service_s (the next one, while others wait)
"""

from __future__ import annotations

_WEIGHT = 0.2  # of the newest answer: about the last ten count


class Pace:
    """Of one open rung; `prior_s` is what its warm-up measured."""

    def __init__(self, prior_s: float) -> None:
        self.own_s = prior_s
        self._between_s: float | None = None  # answers, while there was work all the time
        self._last_s: float | None = None  # when the last answer came, if others were left waiting then

    @property
    def service_s(self) -> float:
        """With lanes, instances and batches one request takes less than its own time; never more."""
        return self.own_s if self._between_s is None else min(self._between_s, self.own_s)

    def answered(self, now_s: float, own_s: float, left: int) -> None:
        """`own_s`: pre + run + post of this answer; `left`: requests that are still with the ladder."""
        self.own_s += _WEIGHT * (own_s - self.own_s)
        if self._last_s is not None:
            between_s = now_s - self._last_s
            before_s = between_s if self._between_s is None else self._between_s
            self._between_s = before_s + _WEIGHT * (between_s - before_s)
        self._last_s = now_s if left else None

    def done_s(self, ahead: int) -> float:
        """Until a request with so many before it is answered."""
        return ahead * self.service_s + self.own_s
