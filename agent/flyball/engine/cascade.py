"""Answers with a cheap rung first and with a stronger one only where the cheap one is unsure. Opt-in, per ladder.

request -> complexity -> first rung -> confidence -> answer | deadline, budget -> then rung -> answer

For `image-classification` alone. It never loses an answer that it has: a strong rung that fails or has no time leaves
the cheap one's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from flyball.clock import Clock
from flyball.engine.complexity import Complexity, complexity
from flyball.engine.confidence import Measure, confidence, scores_of
from flyball.errors import FlyballError, QueueFullError, UnavailableError, WorkerError
from flyball.ports import Answer, InferRequest, Timing

Infer = Callable[[InferRequest], Awaitable[Answer]]


class EscalationBudget:
    """Of any `window` requests in a row at most int(share * window) are escalated. O(1), decided by the order alone.

    A burst may spend it all at once; the first `window` requests have as much as any later ones."""

    def __init__(self, share: float, window: int) -> None:
        self._limit = _escalations(share, window)
        self._ring = bytearray(window)  # of the last `window` requests: escalated or not
        self._at = 0
        self._spent = 0

    def room(self) -> bool:
        """Whether the next request may be escalated: what it pushes out of the window is free again."""
        return self._spent - self._ring[self._at] < self._limit

    def count(self, escalated: bool) -> None:
        """Exactly once per request."""
        self._spent += escalated - self._ring[self._at]
        self._ring[self._at] = escalated
        self._at = (self._at + 1) % len(self._ring)


def _escalations(share: float, window: int) -> int:
    return int(share * window + 1e-9)  # 0.29 * 100 is 28.999...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How one ladder cascades. An answer of `first` less sure than `threshold` is asked again of `then`, as far as
    `share` of the last `window` requests allows. With `start_above`, pictures more complex than that, in the same
    unit, go to `then` at once; they count against the share too."""

    first: str
    then: str
    measure: Measure = "max-softmax"
    threshold: float
    share: float
    window: int = 1000
    start_above: tuple[Complexity, ...] = ()

    def __post_init__(self) -> None:
        if not (self.first and self.then) or self.first == self.then:
            raise ValueError(f"first, then: expected two rungs, found {self.first!r} and {self.then!r}")
        if not self.threshold >= 0:
            raise ValueError(f"threshold: expected at least 0, found {self.threshold}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: expected 0 to 1, found {self.share}")
        if self.window < 1 or (self.share > 0 and _escalations(self.share, self.window) == 0):
            raise ValueError(f"window: {self.window} requests leave no escalation at a share of {self.share}")


class CascadeStats(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative, of requests that named no rung. `escalated` were sent on to the strong rung, failed or not;
    `kept_by_*` were unsure and stayed; `started_strong` went there at once. `strong_failed` is of both kinds.
    `cheap_failed` were answered by the active rung, because the cheap one could not be opened or had ended."""

    requests: int
    escalated: int
    kept_by_budget: int
    kept_by_deadline: int
    strong_failed: int
    cheap_failed: int
    started_strong: int


_NO_TIME = Timing(queue_s=0.0, pre_s=0.0, run_s=0.0, post_s=0.0, total_s=0.0)


class Cascade:
    """One ladder's. `classes` is how many labels it has; `predicted_s` how long a rung's answer will take, None while
    that is unknown (then it is tried); `limit_s` the most that both runs may take together (engine.request_timeout_s),
    for a request that sets no limit or a longer one."""

    def __init__(
        self,
        plan: Plan,
        classes: int,
        predicted_s: Callable[[str], float | None],
        clock: Clock,
        limit_s: float = math.inf,
    ) -> None:
        self._plan = plan
        self._classes = classes
        self._predicted_s = predicted_s
        self._clock = clock
        self._limit_s = limit_s
        self._budget = EscalationBudget(plan.share, plan.window)
        self._counts: Counter[str] = Counter()

    async def answer(self, request: InferRequest, infer: Infer) -> Answer:
        """Raises what `infer` raises of the cheap rung, or of the active one where that is not to be had; a request
        that names a rung is passed on untouched."""
        if request.rung is not None:
            return await infer(request)
        self._counts["requests"] += 1
        began_s = self._clock.monotonic_s()
        deadline_s = began_s + min(self._limit_s, math.inf if request.timeout_s is None else request.timeout_s)
        if self._starts_strong(request, deadline_s):
            return await self._from_the_top(request, infer, began_s, deadline_s)
        try:
            cheap = await infer(self._aimed(request, self._plan.first, deadline_s))
        except QueueFullError:
            raise
        except (WorkerError, UnavailableError):  # the cheap rung is not to be had: the one that answers now is
            self._counts["cheap_failed"] += 1
            return self._timed(await infer(self._aimed(request, None, deadline_s)), began_s)
        if not self._escalates(cheap, deadline_s):
            return cheap
        try:
            strong = await infer(self._aimed(request, self._plan.then, deadline_s))
        except FlyballError:
            self._counts["strong_failed"] += 1
            return self._timed(cheap, began_s)
        return self._timed(strong, began_s, cheap.timing)

    def stats(self) -> CascadeStats:
        return CascadeStats(**{name: self._counts[name] for name in CascadeStats.__struct_fields__})

    async def _from_the_top(self, request: InferRequest, infer: Infer, began_s: float, deadline_s: float) -> Answer:
        try:
            return await infer(self._aimed(request, self._plan.then, deadline_s))
        except FlyballError:
            cheap = await infer(self._aimed(request, self._plan.first, deadline_s))
            self._counts["strong_failed"] += 1  # not before: the caller's mistakes fail on the cheap rung too
            return self._timed(cheap, began_s)

    def _starts_strong(self, request: InferRequest, deadline_s: float) -> bool:
        """And counts it when it does; otherwise the request is counted when its cheap answer is judged."""
        above = self._plan.start_above
        if not above or not self._budget.room() or not self._fits(deadline_s):
            return False
        seen = next((complexity(tensor) for tensor in request.inputs if tensor.name == "image"), None)
        if seen is None or not any(seen.unit == limit.unit and seen.value > limit.value for limit in above):
            return False
        self._counts["started_strong"] += 1
        self._budget.count(True)
        return True

    def _escalates(self, cheap: Answer, deadline_s: float) -> bool:
        """The judgement, counted by its reason. No await between asking the budget and telling it."""
        escalates = False
        if confidence(scores_of(cheap), self._plan.measure, self._classes) >= self._plan.threshold:
            pass
        elif not self._fits(deadline_s):
            self._counts["kept_by_deadline"] += 1
        elif not self._budget.room():
            self._counts["kept_by_budget"] += 1
        else:
            self._counts["escalated"] += 1
            escalates = True
        self._budget.count(escalates)
        return escalates

    def _fits(self, deadline_s: float) -> bool:
        return self._clock.monotonic_s() + (self._predicted_s(self._plan.then) or 0.0) < deadline_s

    def _aimed(self, request: InferRequest, rung: str | None, deadline_s: float) -> InferRequest:
        """At one rung (None: at whichever answers), with what is left of the time."""
        left_s = max(0.0, deadline_s - self._clock.monotonic_s())
        return replace(request, rung=rung, timeout_s=None if left_s == math.inf else left_s)

    def _timed(self, answer: Answer, began_s: float, before: Timing = _NO_TIME) -> Answer:
        """With the work of both runs and all the time since the request came; what is neither run's was waiting."""
        own = answer.timing
        pre_s, run_s, post_s = own.pre_s + before.pre_s, own.run_s + before.run_s, own.post_s + before.post_s
        total_s = self._clock.monotonic_s() - began_s
        queue_s = max(0.0, total_s - pre_s - run_s - post_s)
        timing = Timing(queue_s=queue_s, pre_s=pre_s, run_s=run_s, post_s=post_s, total_s=total_s)
        return replace(answer, timing=timing)
