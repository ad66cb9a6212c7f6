"""Answers with a cheap rung first and with a stronger one only where the cheap one is unsure. Opt-in, per ladder.

request -> complexity -> first rung -> confidence -> answer | deadline, budget -> then rung -> answer

For `image-classification` alone. It never loses an answer that it has: a strong rung that fails or has no time leaves
the cheap one's. All but `Cascade` is pure; `threshold_for` finds the threshold from labelled answers of both rungs.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import msgspec

from flyball.clock import Clock
from flyball.errors import FlyballError
from flyball.ports import Answer, InferRequest, Tensor, Timing

Measure = Literal["max-softmax", "margin", "entropy"]
Infer = Callable[[InferRequest], Awaitable[Answer]]

# -------------------------------------------------------------------------------------------------- confidence

_SUM_TOLERANCE = 0.05  # dequantized INT8 scores of n classes are off 1 by up to n/512


def confidence(scores: Sequence[float], measure: Measure, classes: int) -> float:
    """How sure an answer is, 0..1. `scores` are the probabilities of the best k of `classes` labels.

    max-softmax is the best score, margin its lead over the second, entropy 1 - H / log(classes) (Hendrycks & Gimpel
    2017 compare the first with others). What the k leave of 1 counts as spread evenly over the other labels. Scores
    that are no probabilities (a NaN, a negative, logits: a sum that is not about 1) tell nothing: 0.0, unsure."""
    ordered = sorted(scores, reverse=True)
    k, total = len(ordered), sum(ordered)
    if not 0 < k <= classes:
        return 0.0
    lowest = 1 - _SUM_TOLERANCE if k == classes else k / classes  # the best k hold at least their even share
    if not lowest <= total <= 1 + _SUM_TOLERANCE or ordered[-1] < 0:  # a NaN is in no interval
        return 0.0
    if k == classes or total > 1:
        ordered, total = [score / total for score in ordered], 1.0
    return min(1.0, max(0.0, _MEASURES[measure](ordered, 1 - total, classes)))


def _max_softmax(ordered: Sequence[float], rest: float, classes: int) -> float:
    return ordered[0]


def _margin(ordered: Sequence[float], rest: float, classes: int) -> float:
    if len(ordered) > 1:
        return ordered[0] - ordered[1]
    return ordered[0] - min(rest, ordered[0])  # with only the best known, the rest may all be the second's


def _entropy(ordered: Sequence[float], rest: float, classes: int) -> float:
    if classes == 1:
        return 1.0
    nats = -sum(p * math.log(p) for p in ordered if p > 0)
    if rest > 0:
        nats -= rest * math.log(rest / (classes - len(ordered)))
    return 1 - nats / math.log(classes)


_MEASURES = {"max-softmax": _max_softmax, "margin": _margin, "entropy": _entropy}


def scores_of(answer: Answer) -> tuple[float, ...]:
    """The output `scores`, FP32; empty, so of no confidence, when there is none or its bytes are not FP32's."""
    for tensor in answer.outputs:
        if tensor.name == "scores" and tensor.datatype == "FP32":
            data = memoryview(tensor.data).cast("B")
            return struct.unpack(f"<{len(data) // 4}f", data) if len(data) % 4 == 0 else ()
    return ()


# -------------------------------------------------------------------------------------------------- complexity


class Complexity(NamedTuple):
    """How much there is to see in a picture. The two units do not compare, nor do files of different encoders."""

    unit: Literal["entropy-bits", "file-bits-per-pixel"]
    value: float


def complexity(image: Tensor) -> Complexity | None:
    """Of UINT8 [h, w, 3] the entropy of the green channel (nearest to luma), 0..8 bits; of an encoded image the size
    of its file per pixel. None where that says nothing or the header is not understood. Some 30 us, whatever size."""
    data = memoryview(image.data).cast("B")
    if image.datatype == "UINT8" and len(image.shape) == 3 and image.shape[2] == 3:
        height, width, _ = image.shape
        if 0 < 3 * height * width == len(data):
            return Complexity("entropy-bits", _entropy_bits(data, height * width, width))
    elif image.datatype == "BYTES" and len(data) > 4:
        pixels = _pixels(data[4:])
        if pixels:
            return Complexity("file-bits-per-pixel", 8 * (len(data) - 4) / pixels)
    return None


_SAMPLES = 1000
_C_LOG2_C = (0.0, *(count * math.log2(count) for count in range(1, _SAMPLES + 1)))


def _entropy_bits(data: memoryview, pixels: int, width: int) -> float:
    """Of at most _SAMPLES green values. A step that shares a factor with the width would see a few columns only."""
    step = -(-pixels // _SAMPLES)
    while math.gcd(step, width) > 1:
        step += 1
    sample = bytes(data[1 :: 3 * step])
    counts = Counter(sample).values()
    return math.log2(len(sample)) - sum(map(_C_LOG2_C.__getitem__, counts)) / len(sample)


def _pixels(data: memoryview) -> int:
    """Width times height by the header of a compressed image; 0 when it is none of those known or cut off."""
    head = bytes(data[:16])
    try:
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack_from(">II", data, 16)
        elif head[:6] in (b"GIF87a", b"GIF89a"):
            width, height = struct.unpack_from("<HH", data, 6)
        elif head[:2] == b"\xff\xd8":
            width, height = _jpeg_size(data)
        elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            width, height = _webp_size(data, head[12:16])
        elif head[:2] == b"BM":
            width, height = _bmp_size(data)
        else:
            return 0
    except struct.error:
        return 0
    return int(width * height)


def _jpeg_size(data: memoryview) -> tuple[int, int]:
    """From the frame header (ITU-T T.81, B.2.2), which Exif and colour profiles may stand before."""
    at = 2
    for _ in range(100):  # segments and fill bytes; a hostile file could hold millions
        marker, code, length = struct.unpack_from(">BBH", data, at)
        if marker != 0xFF:
            break
        if code == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):  # SOFn, not DHT, JPG, DAC
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + length
    return 0, 0


def _webp_size(data: memoryview, chunk: bytes) -> tuple[int, int]:
    """RFC 9649, 2.5 to 2.7: lossy, lossless, extended."""
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
    return 0, 0


def _bmp_size(data: memoryview) -> tuple[int, int]:
    """Of run-length encoded ones (BI_RLE8, BI_RLE4): the size of an uncompressed file tells nothing of the picture."""
    header_size, width, height, _, _, compression = struct.unpack_from("<IiiHHI", data, 14)
    return (width, abs(height)) if header_size >= 40 and compression in (1, 2) and width > 0 else (0, 0)


# ------------------------------------------------------------------------------------------ budget, calibration


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


class Calibration(NamedTuple):
    """What a threshold did on the answers it was found on; `accuracy` and `escalated` are shares, cost as given."""

    threshold: float
    escalated: float
    accuracy: float
    cost: float


def threshold_for(
    confidences: Sequence[float],
    cheap_right: Sequence[bool],
    strong_right: Sequence[bool],
    cheap_cost: float,
    strong_cost: float,
    drop_points: float,
) -> Calibration:
    """The cheapest threshold whose accuracy is at least the strong rung's less `drop_points` percent points.

    There always is one: escalating everything. A `cost` above `strong_cost` says that this cascade is not worth it.
    Raises ValueError for sequences that are empty or of different lengths."""
    ordered = sorted(zip(confidences, cheap_right, strong_right, strict=True))
    n = len(ordered)
    if not n:
        raise ValueError("calibration needs labelled answers of both rungs, found none")
    right = sum(map(bool, cheap_right))
    enough = sum(map(bool, strong_right)) - n * drop_points / 100 - 1e-9
    escalated = 0  # those below the threshold, so equal confidences go together
    for index, (_, cheap, strong) in enumerate(ordered):
        if right >= enough and (index == 0 or ordered[index - 1][0] < ordered[index][0]):
            break
        right += bool(strong) - bool(cheap)
        escalated = index + 1
    threshold = ordered[escalated][0] if escalated < n else math.nextafter(ordered[-1][0], math.inf)
    return Calibration(threshold, escalated / n, right / n, cheap_cost + strong_cost * escalated / n)


# ----------------------------------------------------------------------------------------------------- cascade


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
    start_above: Complexity | None = None

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
    `kept_by_*` were unsure and stayed; `started_strong` went there at once. `strong_failed` is of both kinds."""

    requests: int
    escalated: int
    kept_by_budget: int
    kept_by_deadline: int
    strong_failed: int
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
        """Raises what the cheap rung's `infer` raises; a request that names a rung is passed on untouched."""
        if request.rung is not None:
            return await infer(request)
        self._counts["requests"] += 1
        began_s = self._clock.monotonic_s()
        deadline_s = began_s + min(self._limit_s, math.inf if request.timeout_s is None else request.timeout_s)
        if self._starts_strong(request, deadline_s):
            return await self._from_the_top(request, infer, began_s, deadline_s)
        cheap = await infer(self._aimed(request, self._plan.first, deadline_s))
        if not self._escalates(cheap, deadline_s):
            return cheap
        try:
            strong = await infer(self._aimed(request, self._plan.then, deadline_s))
        except FlyballError:  # the runner has counted it by its reason
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
        if above is None or not self._budget.room() or not self._fits(deadline_s):
            return False
        seen = next((complexity(tensor) for tensor in request.inputs if tensor.name == "image"), None)
        if seen is None or seen.unit != above.unit or seen.value <= above.value:
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

    def _aimed(self, request: InferRequest, rung: str, deadline_s: float) -> InferRequest:
        """At one rung, with what is left of the time."""
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
