"""A cascade: how sure an answer is, how complex a picture, what may be escalated, and what becomes of a request."""

from __future__ import annotations

import io
import math
import random
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from flyball.demo import surface
from flyball.engine.calibration import threshold_for
from flyball.engine.cascade import Cascade, CascadeStats, EscalationBudget, Plan
from flyball.engine.complexity import Complexity, complexity
from flyball.engine.confidence import Measure, confidence, scores_of
from flyball.errors import DeadlineError, QueueFullError, RequestError, UnavailableError, WorkerError
from flyball.ports import Answer, InferRequest, Tensor, Timing
from flyball.testing import NO_TIME, FakeClock

MEASURES: tuple[Measure, ...] = ("max-softmax", "margin", "entropy")
measures = st.sampled_from(MEASURES)
distributions = st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3)

# -------------------------------------------------------------------------------------------------- confidence


@pytest.mark.parametrize(
    ("measure", "scores", "classes", "expected"),
    [
        ("max-softmax", [0.7, 0.2, 0.1], 3, 0.7),
        ("max-softmax", [0.7], 1000, 0.7),
        ("max-softmax", [1.0, 0.04], 6, 1 / 1.04),  # rounded up when they were quantized
        ("margin", [0.7, 0.2, 0.1], 3, 0.5),
        ("margin", [0.7, 0.2], 1000, 0.5),
        ("margin", [0.7], 1000, 0.4),  # the unseen second may hold all of the other 0.3
        ("margin", [0.3], 1000, 0.0),
        ("entropy", [0.5, 0.5], 2, 0.0),
        ("entropy", [0.5, 0.5], 4, 0.5),  # one bit of two: the other labels have nothing
        ("entropy", [0.5, 0.5, 0.0, 0.0], 4, 0.5),  # log(0)
        ("entropy", [0.25], 4, 0.0),  # the rest spread evenly over the three others
        ("entropy", [0.7], 4, 1 + (0.7 * math.log(0.7) + 0.3 * math.log(0.1)) / math.log(4)),
    ],
)
def test_confidence_by_hand(measure: Measure, scores: list[float], classes: int, expected: float) -> None:
    assert confidence(scores, measure, classes) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_certain_answer_and_an_only_class(measure: Measure) -> None:
    assert confidence([1.0, 0.0, 0.0], measure, 3) == 1.0
    assert confidence([1.0], measure, 1) == 1.0
    assert confidence([1.0], measure, 1000) == 1.0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "scores",
    [
        [],
        [0.0, 0.0, 0.0],
        [math.nan, 0.5, 0.5],
        [0.9, 0.1, math.nan],
        [math.inf, 0.0, 0.0],
        [math.inf, -math.inf, 0.0],
        [1.2, -0.2, 0.0],
        [8.5, 1.25, -3.0],  # logits
        [0.2, 0.1, 0.0],  # logits that happen to be small
        [0.9, 0.8, 0.7],  # sigmoids
        [0.5, 0.3, 0.1, 0.1],  # more scores than classes
    ],
)
def test_what_is_no_distribution_is_never_confident(measure: Measure, scores: list[float]) -> None:
    assert confidence(scores, measure, 3) == 0.0


@pytest.mark.parametrize("measure", MEASURES)
def test_dequantized_scores_are_distributions(measure: Measure) -> None:
    assert confidence([250 / 256, 1 / 256, 1 / 256, 0, 0, 0], measure, 6) > 0.9
    assert confidence([256 / 256, 3 / 256, 0, 0, 0, 0], measure, 6) > 0.9, "a little more than 1 in all"


@given(st.lists(st.floats(width=32), max_size=12), measures, st.integers(0, 12))
@example([1e308, 1e308], "entropy", 2)
def test_confidence_never_raises_and_stays_in_its_interval(scores: list[float], measure: Measure, classes: int) -> None:
    assert 0.0 <= confidence(scores, measure, classes) <= 1.0


@given(distributions, measures, st.integers(0, 12), st.integers(0, 20))
def test_confidence_of_a_distribution(weights: list[float], measure: Measure, cut: int, more: int) -> None:
    """Whatever part of it is seen: in 0..1, and max-softmax is the top."""
    scores, classes = _top(weights, cut), len(weights) + more
    found = confidence(scores, measure, classes)
    assert 0.0 <= found <= 1.0
    if measure == "max-softmax" and sum(scores) >= len(scores) / classes:
        assert found == pytest.approx(scores[0])


@given(distributions, measures, st.integers(0, 12), st.randoms(use_true_random=False))
def test_the_order_of_the_scores_is_irrelevant(
    weights: list[float], measure: Measure, cut: int, dice: random.Random
) -> None:
    scores = _top(weights, cut)
    shuffled = dice.sample(scores, len(scores))
    assert confidence(shuffled, measure, len(weights)) == confidence(scores, measure, len(weights))


@given(distributions, measures, st.integers(0, 12), st.integers(0, 20), st.floats(0, 1))
def test_a_higher_top_score_is_never_less_sure(
    weights: list[float], measure: Measure, cut: int, more: int, share: float
) -> None:
    """The top takes a share of every other."""
    scores, classes = _top(weights, cut), len(weights) + more
    higher = [s * (1 - share) for s in scores]
    higher[0] += share
    assert confidence(higher, measure, classes) >= confidence(scores, measure, classes) - 1e-9


def _top(weights: Sequence[float], cut: int) -> list[float]:
    """The best of a distribution, best first; all of it when `cut` is 0."""
    ordered = sorted((w / sum(weights) for w in weights), reverse=True)
    return ordered[:cut] if cut else ordered


def test_scores_come_from_their_bytes() -> None:
    expected = (0.75, 0.25)
    data = struct.pack("<2f", *expected)
    labels = Tensor("labels", "BYTES", (2,), b"\x01\0\0\0a\x01\0\0\0b")
    for held in (data, bytearray(data), memoryview(data), memoryview(data).cast("f")):
        answer = Answer(outputs=(labels, Tensor("scores", "FP32", (2,), held)), rung="r", timing=NO_TIME)
        assert scores_of(answer) == expected


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("labels", "BYTES", (1,), b"\x01\0\0\0a"),
        Tensor("scores", "FP64", (1,), struct.pack("<d", 1.0)),
        Tensor("scores", "FP32", (1,), struct.pack("<f", 1.0) + b"\0"),
        Tensor("scores", "FP32", (0,), b""),
    ],
)
def test_an_answer_without_usable_scores(tensor: Tensor) -> None:
    assert scores_of(Answer(outputs=(tensor,), rung="r", timing=NO_TIME)) == ()


# -------------------------------------------------------------------------------------------------- complexity


def _pixels(array: np.ndarray) -> Tensor:
    return Tensor("image", "UINT8", array.shape, array.tobytes())


def _file(data: bytes) -> Tensor:
    return Tensor("image", "BYTES", (1,), struct.pack("<I", len(data)) + data)


def _saved(array: np.ndarray, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, form, **options)
    return out.getvalue()


def _entropy_of_all(array: np.ndarray) -> float:
    shares = np.bincount(array[..., 1].reshape(-1), minlength=256) / array[..., 1].size
    return float(-sum(p * math.log2(p) for p in shares if p))


def test_entropy_is_of_the_green_channel() -> None:
    image = np.zeros((224, 224, 3), np.uint8)
    image[..., 0] = np.arange(224)
    image[..., 2] = np.arange(224)[:, None]
    assert complexity(_pixels(image)) == Complexity("entropy-bits", 0.0)
    image[:112, :, 1] = 255
    assert _bits(image) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("width", [1, 8, 1000, 1001, 2000])
def test_a_sample_sees_every_column(width: int) -> None:
    """A thousand pixels a row: a step of one row would see one column, and in it one value."""
    image = np.zeros((1000, width, 3), np.uint8)
    image[..., 1] = np.arange(width) % 8 * 30
    assert _bits(image) == pytest.approx(math.log2(min(8, width)), abs=0.03)


@pytest.mark.parametrize("seed", surface.CALIBRATION_SEEDS[:6])
def test_the_sample_is_near_the_whole_picture(seed: int) -> None:
    """A thousand values of a picture with some 100 levels: short of the whole by about 100 / (2 ln 2 * 1000) bits."""
    image, _ = surface.draw(seed)
    assert _entropy_of_all(image) - 0.25 < _bits(image) < _entropy_of_all(image) + 0.15


def test_small_pictures_are_seen_whole() -> None:
    image = np.random.default_rng(1).integers(0, 256, (31, 32, 3), np.uint8)
    assert _bits(image) == pytest.approx(_entropy_of_all(image), abs=1e-9)
    assert _bits(image[:1, :1]) == 0.0


def test_noise_is_complex_and_a_flat_picture_is_not() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    flat = np.full((224, 224, 3), 90, np.uint8)
    assert 7.5 < _bits(noise) <= 8.0
    assert _bits(flat) == 0.0
    for form in ("PNG", "JPEG", "WEBP"):
        busy, plain = complexity(_file(_saved(noise, form))), complexity(_file(_saved(flat, form)))
        assert busy is not None
        assert plain is not None
        assert busy.value > 10 * plain.value


def _bits(image: np.ndarray) -> float:
    seen = complexity(_pixels(np.ascontiguousarray(image)))
    assert seen is not None
    assert seen.unit == "entropy-bits"
    return seen.value


FILES: dict[str, Callable[[np.ndarray], bytes]] = {
    "png": lambda a: _saved(a, "PNG"),
    "gif": lambda a: _saved(a, "GIF"),
    "jpeg": lambda a: _saved(a, "JPEG"),
    "progressive-jpeg": lambda a: _saved(a, "JPEG", progressive=True),
    "jpeg-with-profile": lambda a: _saved(a, "JPEG", icc_profile=bytes(150_000), exif=b"Exif\0\0" + bytes(2000)),
    "webp-lossy": lambda a: _saved(a, "WEBP"),
    "webp-lossless": lambda a: _saved(a, "WEBP", lossless=True),
    "webp-extended": lambda a: _saved(a, "WEBP", icc_profile=bytes(100)),
}


@pytest.mark.parametrize("size", [(37, 61), (1, 1), (300, 7), (3, 1500)])
@pytest.mark.parametrize("kind", FILES)
def test_encoded_images_by_their_headers(kind: str, size: tuple[int, int]) -> None:
    height, width = size
    data = FILES[kind](np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8))
    expected = Complexity("file-bits-per-pixel", 8 * len(data) / (width * height))
    assert complexity(_file(data)) == expected
    assert complexity(_file(data[:9])) is None, "cut off inside the header"


def test_a_jpeg_with_its_huffman_tables_before_its_frame() -> None:
    data = _saved(np.zeros((20, 30, 3), np.uint8), "JPEG")
    table = b"\xff\xc4" + struct.pack(">H", 12) + bytes(10)
    early = data[:2] + table + data[2:]
    assert complexity(_file(early)) == Complexity("file-bits-per-pixel", 8 * len(early) / 600)


def test_a_jpeg_with_fill_bytes_before_its_frame() -> None:
    data = _saved(np.zeros((20, 30, 3), np.uint8), "JPEG")
    padded = data[:2] + b"\xff" * 5 + data[2:]
    assert complexity(_file(padded)) == Complexity("file-bits-per-pixel", 8 * len(padded) / 600)
    endless = data[:2] + b"\xff" * (1 << 20)
    started_s = time.perf_counter()
    assert complexity(_file(endless)) is None
    assert time.perf_counter() - started_s < 0.1, "a million fill bytes are not walked (that takes half a second)"


def test_a_bitmap_only_when_it_is_compressed() -> None:
    """An uncompressed file's size says nothing of the picture: a threshold would take all of them or none."""
    image = np.zeros((20, 30, 3), np.uint8)
    assert complexity(_file(_saved(image, "BMP"))) is None
    for height in (20, -20):  # negative: the rows from the top
        rle = b"BM" + struct.pack("<IIIIiiHHIIiiII", 80, 0, 54, 40, 30, height, 1, 8, 1, 0, 0, 0, 0, 0) + bytes(26)
        assert complexity(_file(rle)) == Complexity("file-bits-per-pixel", 8 * 80 / 600)
        old = rle[:14] + struct.pack("<I", 12) + rle[18:]  # an OS/2 header has no field for a compression
        assert complexity(_file(old)) is None


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("image", "UINT8", (0, 4, 3), b""),
        Tensor("image", "UINT8", (2, 2, 3), bytes(11)),
        Tensor("image", "UINT8", (2, 2, 1), bytes(4)),
        Tensor("image", "UINT8", (12,), bytes(12)),
        Tensor("image", "FP32", (1, 1, 3), bytes(12)),
        Tensor("image", "BYTES", (1,), b""),
        _file(b""),
        _file(b"no image at all, but long enough for one"),
        _file(b"\x89PNG\r\n\x1a\n" + bytes(40)),  # no pixels
        _file(b"\xff\xd8" + bytes(40)),
        _file(b"RIFF\0\0\0\0WEBPxxxx" + bytes(40)),
        _file(b"BM" + bytes(60)),
    ],
)
def test_what_has_no_complexity(tensor: Tensor) -> None:
    assert complexity(tensor) is None


@given(st.sampled_from(sorted(FILES)), st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_a_broken_header_never_raises(kind: str, at: int, junk: bytes) -> None:
    data = FILES[kind](np.zeros((9, 9, 3), np.uint8))
    seen = complexity(_file(data[:at] + junk + data[at + len(junk) :]))
    assert seen is None or seen.value > 0


REAL = {"hot_dog.jpg": True, "parrot.jpg": True, "cat.bmp": False, "grace_hopper.bmp": False}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str, shared_data: Path) -> None:
    path = shared_data / "images" / name
    if not path.is_file():
        pytest.skip(f"the real picture is not on this machine: {path} is missing")
    data = path.read_bytes()
    with Image.open(path) as image:
        width, height = image.size
        pixels = np.asarray(image.convert("RGB"))
    expected = Complexity("file-bits-per-pixel", 8 * len(data) / (width * height)) if REAL[name] else None
    assert complexity(_file(data)) == expected
    assert abs(_bits(pixels) - _entropy_of_all(pixels)) < 0.3


def test_complexity_does_not_grow_with_the_picture() -> None:
    """Fast enough by far: about 30 us here; a picture read whole would take tens of milliseconds."""
    image = _pixels(np.random.default_rng(3).integers(0, 256, (2000, 2000, 3), np.uint8))
    spans = []
    for _ in range(50):
        started_s = time.perf_counter()
        complexity(image)
        spans.append(time.perf_counter() - started_s)
    assert min(spans) < 500e-6


# ------------------------------------------------------------------------------------------ budget, calibration


@given(
    st.floats(0, 1),
    st.integers(1, 40),
    st.lists(st.booleans(), max_size=200),
)
def test_no_window_has_more_than_its_share(share: float, window: int, wanted: list[bool]) -> None:
    """And none is refused that the windows it would lie in have room for."""
    budget, done, limit = EscalationBudget(share, window), [], math.floor(share * window + 1e-9)
    for wants in wanted:
        room = sum(done[max(0, len(done) - window + 1) :]) < limit
        assert budget.room() == room
        done.append(wants and room)
        budget.count(done[-1])
    assert all(sum(done[i : i + window]) <= limit for i in range(len(done)))


def test_a_budget_under_pressure_is_spent_exactly() -> None:
    budget, escalated = EscalationBudget(0.29, 100), 0
    for _ in range(10_000):
        room = budget.room()
        budget.count(room)
        escalated += room
    assert escalated == 2_900, "0.29 * 100 is 28.999... in floating point, and still 29"


def test_budgets_of_none_and_of_all() -> None:
    none, everything = EscalationBudget(0.0, 10), EscalationBudget(1.0, 10)
    for _ in range(30):
        assert not none.room()
        none.count(False)
        assert everything.room()
        everything.count(True)


answers = st.lists(st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.booleans(), st.booleans()), min_size=1)


@given(answers, st.sampled_from([0.0, 0.3, 5.0, 25.0, 100.0]))
def test_the_threshold_is_the_best_of_all_there_are(rows: list[tuple[float, bool, bool]], drop_points: float) -> None:
    found = threshold_for(*zip(*rows, strict=True), cheap_cost=2.0, strong_cost=14.0, drop_points=drop_points)
    strong = sum(s for _, _, s in rows) / len(rows)
    feasible = []
    for threshold in [*(c for c, _, _ in rows), 2.0]:
        accuracy, cost = _cascaded(rows, threshold)
        if accuracy >= strong - drop_points / 100 - 1e-12:
            feasible.append(cost)
    assert found.cost == pytest.approx(min(feasible))
    accuracy, cost = _cascaded(rows, found.threshold)
    assert accuracy == pytest.approx(found.accuracy)
    assert cost == pytest.approx(found.cost)
    assert found.cost == pytest.approx(2.0 + 14.0 * found.escalated)
    assert accuracy >= strong - drop_points / 100 - 1e-12


def _cascaded(rows: list[tuple[float, bool, bool]], threshold: float) -> tuple[float, float]:
    right = [strong if sure < threshold else cheap for sure, cheap, strong in rows]
    escalated = sum(sure < threshold for sure, _, _ in rows)
    return sum(right) / len(rows), 2.0 + 14.0 * escalated / len(rows)


def test_a_threshold_by_hand() -> None:
    sure, cheap = [0.9, 0.2, 0.5, 0.7], [True, False, False, True]
    strong = [True, True, True, True]
    assert threshold_for(sure, cheap, strong, 1.0, 10.0, 0.0) == (0.7, 0.5, 1.0, 6.0)
    assert threshold_for(sure, cheap, strong, 1.0, 10.0, 25.0) == (0.5, 0.25, 0.75, 3.5)
    assert threshold_for(sure, cheap, strong, 1.0, 10.0, 50.0).escalated == 0.0


def test_a_threshold_that_escalates_everything() -> None:
    """Sure and wrong everywhere: even an answer of confidence 1 is below the threshold."""
    found = threshold_for([1.0, 1.0], [False, False], [True, True], 1.0, 10.0, 0.0)
    assert found.threshold > 1.0
    assert (found.escalated, found.accuracy, found.cost) == (1.0, 1.0, 11.0)


def test_a_threshold_of_nothing() -> None:
    with pytest.raises(ValueError, match="found none"):
        threshold_for([], [], [], 1.0, 10.0, 0.0)
    with pytest.raises(ValueError, match="argument"):
        threshold_for([0.5], [True], [True, False], 1.0, 10.0, 0.0)


# ----------------------------------------------------------------------------------------------------- cascade

PICTURE = InferRequest(inputs=(_pixels(np.zeros((8, 8, 3), np.uint8)),))
BUSY = InferRequest(inputs=(_pixels(np.random.default_rng(4).integers(0, 256, (64, 64, 3), np.uint8)),))
PLAN = Plan(first="small", then="large", threshold=0.8, share=1.0)
SURE, UNSURE = (0.9, 0.1), (0.6, 0.4)
RUN_S = {"small": 0.01, "large": 0.1}


class Rungs:
    """An `infer` of two rungs that take RUN_S and as much again in the queue; an error of `failing` is raised."""

    def __init__(self, scores: tuple[float, ...] = UNSURE) -> None:
        self.clock = FakeClock()
        self.scores = scores
        self.failing: dict[str, Exception] = {}
        self.asked: list[InferRequest] = []

    async def infer(self, request: InferRequest) -> Answer:
        self.asked.append(request)
        rung = request.rung or "active"
        run_s = RUN_S.get(rung, 1.0)
        self.clock.advance(2 * run_s)
        if rung in self.failing:
            raise self.failing[rung]
        data = struct.pack(f"<{len(self.scores)}f", *self.scores)
        timing = Timing(queue_s=run_s, pre_s=run_s / 4, run_s=run_s / 2, post_s=run_s / 4, total_s=2 * run_s)
        return Answer(outputs=(Tensor("scores", "FP32", (len(self.scores),), data),), rung=rung, timing=timing)

    def cascade(self, plan: Plan = PLAN, predicted_s: float | None = 0.2, limit_s: float = math.inf) -> Cascade:
        predictions = {plan.then: predicted_s}
        return Cascade(plan, 2, predictions.__getitem__, self.clock, limit_s)

    def rungs_asked(self) -> list[str | None]:
        return [request.rung for request in self.asked]


def _stats(**counts: int) -> CascadeStats:
    zero = dict.fromkeys(CascadeStats.__struct_fields__, 0)
    return CascadeStats(**{**zero, **counts})


@pytest.mark.anyio
async def test_a_sure_answer_stays() -> None:
    rungs = Rungs(SURE)
    cascade = rungs.cascade()
    answer = await cascade.answer(PICTURE, rungs.infer)
    assert (answer.rung, rungs.rungs_asked()) == ("small", ["small"])
    assert answer.timing.total_s == 0.02
    assert rungs.asked[0].timeout_s is None
    assert rungs.asked[0].inputs is PICTURE.inputs
    assert cascade.stats() == _stats(requests=1)


@pytest.mark.anyio
async def test_an_answer_exactly_at_the_threshold_stays() -> None:
    rungs = Rungs((0.75, 0.25))
    at, above = (msgspec.structs.replace(PLAN, threshold=t) for t in (0.75, math.nextafter(0.75, 1)))
    assert (await rungs.cascade(at).answer(PICTURE, rungs.infer)).rung == "small"
    assert (await rungs.cascade(above).answer(PICTURE, rungs.infer)).rung == "large"


@pytest.mark.anyio
@pytest.mark.parametrize("scores", [UNSURE, (), (math.nan, 0.5), (12.0, 3.0)])
async def test_an_unsure_answer_is_escalated_and_both_runs_are_timed(scores: tuple[float, ...]) -> None:
    rungs = Rungs(scores)
    cascade = rungs.cascade()
    answer = await cascade.answer(PICTURE, rungs.infer)
    assert (answer.rung, rungs.rungs_asked()) == ("large", ["small", "large"])
    assert answer.timing.run_s == pytest.approx(0.055)
    assert answer.timing.pre_s == pytest.approx(0.0275)
    assert answer.timing.post_s == pytest.approx(0.0275)
    assert answer.timing.queue_s == pytest.approx(0.11)
    assert answer.timing.total_s == pytest.approx(0.22)
    assert cascade.stats() == _stats(requests=1, escalated=1)


@pytest.mark.anyio
async def test_every_measure_judges() -> None:
    rungs = Rungs((0.7, 0.3))  # max-softmax 0.7, margin 0.4, entropy 0.12
    for measure, threshold, expected in [
        ("max-softmax", 0.69, "small"), ("max-softmax", 0.71, "large"), ("margin", 0.39, "small"),
        ("margin", 0.41, "large"), ("entropy", 0.11, "small"), ("entropy", 0.13, "large"),
    ]:  # fmt: skip
        plan = msgspec.structs.replace(PLAN, measure=measure, threshold=threshold)
        assert (await rungs.cascade(plan).answer(PICTURE, rungs.infer)).rung == expected


@pytest.mark.anyio
async def test_a_request_for_one_rung_bypasses() -> None:
    rungs = Rungs()
    cascade = rungs.cascade()
    request = InferRequest(inputs=PICTURE.inputs, rung="other", timeout_s=9.0)
    assert (await cascade.answer(request, rungs.infer)).rung == "other"
    assert rungs.asked == [request]
    assert cascade.stats() == _stats()


@pytest.mark.anyio
async def test_the_strong_rung_has_what_is_left_of_the_time() -> None:
    rungs = Rungs()
    request = InferRequest(inputs=PICTURE.inputs, timeout_s=1.0)
    assert (await rungs.cascade().answer(request, rungs.infer)).rung == "large"
    assert [r.timeout_s for r in rungs.asked] == [pytest.approx(1.0), pytest.approx(0.98)]


@pytest.mark.anyio
@pytest.mark.parametrize(("request_s", "limit_s"), [(None, 0.5), (9.0, 0.5), (0.5, 9.0)])
async def test_both_runs_share_one_limit(request_s: float | None, limit_s: float) -> None:
    rungs = Rungs()
    request = InferRequest(inputs=PICTURE.inputs, timeout_s=request_s)
    await rungs.cascade(limit_s=limit_s).answer(request, rungs.infer)
    assert [r.timeout_s for r in rungs.asked] == [pytest.approx(0.5), pytest.approx(0.48)]


@pytest.mark.anyio
async def test_without_time_for_the_strong_rung_the_cheap_answer_stays() -> None:
    rungs = Rungs()
    cascade = rungs.cascade(predicted_s=0.2)
    for timeout_s, expected in ((0.21, "small"), (0.23, "large")):  # the cheap one takes 0.02
        request = InferRequest(inputs=PICTURE.inputs, timeout_s=timeout_s)
        assert (await cascade.answer(request, rungs.infer)).rung == expected
    assert cascade.stats() == _stats(requests=2, kept_by_deadline=1, escalated=1)


@pytest.mark.anyio
async def test_a_strong_rung_of_unknown_latency_is_tried_while_there_is_time() -> None:
    rungs = Rungs()
    cascade = rungs.cascade(predicted_s=None)
    for timeout_s, expected in ((0.03, "large"), (0.02, "small")):
        request = InferRequest(inputs=PICTURE.inputs, timeout_s=timeout_s)
        assert (await cascade.answer(request, rungs.infer)).rung == expected
    assert cascade.stats() == _stats(requests=2, escalated=1, kept_by_deadline=1)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [WorkerError("died"), DeadlineError("late"), UnavailableError("no room")])
async def test_a_strong_rung_that_fails_leaves_the_cheap_answer(error: Exception) -> None:
    rungs = Rungs()
    rungs.failing["large"] = error
    cascade = rungs.cascade()
    answer = await cascade.answer(PICTURE, rungs.infer)
    assert (answer.rung, rungs.rungs_asked()) == ("small", ["small", "large"])
    assert answer.timing.run_s == pytest.approx(0.005)
    assert answer.timing.total_s == pytest.approx(0.22), "the time that the failure took is not hidden"
    assert answer.timing.queue_s == pytest.approx(0.21)
    assert cascade.stats() == _stats(requests=1, escalated=1, strong_failed=1)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [WorkerError("tried again in 9 s"), UnavailableError("no room")])
async def test_without_the_cheap_rung_the_active_one_answers(error: Exception) -> None:
    rungs = Rungs()
    rungs.failing["small"] = error
    cascade = rungs.cascade()
    answer = await cascade.answer(PICTURE, rungs.infer)
    assert (answer.rung, rungs.rungs_asked()) == ("active", ["small", None])
    assert cascade.stats() == _stats(requests=1, cheap_failed=1)


@pytest.mark.anyio
async def test_a_full_queue_is_not_asked_a_second_time() -> None:
    rungs = Rungs()
    rungs.failing["small"] = QueueFullError("full")
    with pytest.raises(QueueFullError):
        await rungs.cascade().answer(PICTURE, rungs.infer)
    assert rungs.rungs_asked() == ["small"]


@pytest.mark.anyio
async def test_a_bug_is_not_taken_for_a_failed_rung() -> None:
    rungs = Rungs()
    rungs.failing["large"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await rungs.cascade().answer(PICTURE, rungs.infer)


@pytest.mark.anyio
@pytest.mark.parametrize("start_above", [(), (Complexity("entropy-bits", 2.0),)])
async def test_a_cheap_rung_that_fails_is_the_callers_to_see(start_above: tuple[Complexity, ...]) -> None:
    """A broken picture fails on both rungs: no failure of the strong one."""
    rungs = Rungs()
    rungs.failing = {"small": RequestError("no image"), "large": RequestError("no image")}
    cascade = rungs.cascade(msgspec.structs.replace(PLAN, start_above=start_above))
    with pytest.raises(RequestError, match="no image"):
        await cascade.answer(BUSY, rungs.infer)
    assert rungs.rungs_asked()[-1] == "small"
    assert cascade.stats().strong_failed == 0


@pytest.mark.anyio
async def test_the_budget_bounds_what_is_escalated() -> None:
    rungs = Rungs()
    cascade = rungs.cascade(msgspec.structs.replace(PLAN, share=0.2, window=10))
    got = [(await cascade.answer(PICTURE, rungs.infer)).rung for _ in range(30)]
    assert got == (["large"] * 2 + ["small"] * 8) * 3
    assert cascade.stats() == _stats(requests=30, escalated=6, kept_by_budget=24)


@pytest.mark.anyio
async def test_sure_answers_make_room_in_the_budget() -> None:
    rungs = Rungs()
    cascade = rungs.cascade(msgspec.structs.replace(PLAN, share=0.5, window=4))
    got = []
    for scores in (UNSURE, UNSURE, UNSURE, SURE, UNSURE, UNSURE):
        rungs.scores = scores
        got.append((await cascade.answer(PICTURE, rungs.infer)).rung)
    assert got == ["large", "large", "small", "small", "large", "large"]


@pytest.mark.anyio
async def test_complex_pictures_start_at_the_strong_rung() -> None:
    rungs = Rungs(SURE)
    cascade = rungs.cascade(msgspec.structs.replace(PLAN, start_above=(Complexity("entropy-bits", 7.0),)))
    answer = await cascade.answer(BUSY, rungs.infer)
    assert answer.rung == "large"
    assert (await cascade.answer(PICTURE, rungs.infer)).rung == "small"
    assert rungs.rungs_asked() == ["large", "small"]
    assert answer.timing.total_s == 0.2
    assert cascade.stats() == _stats(requests=2, started_strong=1)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "start_above",
    [Complexity("entropy-bits", 8.0), complexity(BUSY.inputs[0]), Complexity("file-bits-per-pixel", 0.1), None],
    ids=["below", "equal", "another unit", "off"],
)
async def test_what_does_not_start_at_the_strong_rung(start_above: Complexity | None) -> None:
    rungs = Rungs(SURE)
    cascade = rungs.cascade(msgspec.structs.replace(PLAN, start_above=() if start_above is None else (start_above,)))
    assert (await cascade.answer(BUSY, rungs.infer)).rung == "small"


@pytest.mark.anyio
async def test_each_kind_of_picture_has_its_own_limit() -> None:
    rungs = Rungs(SURE)
    limits = (Complexity("entropy-bits", 8.0), Complexity("file-bits-per-pixel", 0.1))
    cascade = rungs.cascade(msgspec.structs.replace(PLAN, start_above=limits))
    out = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(out, "PNG")
    data = struct.pack("<I", out.tell()) + out.getvalue()
    encoded = InferRequest(inputs=(Tensor("image", "BYTES", (1,), data),))
    assert (await cascade.answer(BUSY, rungs.infer)).rung == "small", "raw, and its entropy is below 8 bits"
    assert (await cascade.answer(encoded, rungs.infer)).rung == "large"


@pytest.mark.anyio
async def test_starting_strong_needs_budget_and_time() -> None:
    rungs = Rungs(SURE)
    plan = msgspec.structs.replace(PLAN, start_above=(Complexity("entropy-bits", 7.0),), share=0.25, window=4)
    cascade = rungs.cascade(plan)
    hurried = InferRequest(inputs=BUSY.inputs, timeout_s=0.1)
    got = [(await cascade.answer(request, rungs.infer)).rung for request in (hurried, *[BUSY] * 6)]
    assert got == ["small", "large", "small", "small", "small", "large", "small"]
    assert cascade.stats() == _stats(requests=7, started_strong=2), "sure answers: nothing was kept back"
    rungs.scores = UNSURE
    assert (await cascade.answer(BUSY, rungs.infer)).rung == "small"
    assert cascade.stats() == _stats(requests=8, started_strong=2, kept_by_budget=1)


@pytest.mark.anyio
async def test_a_start_at_the_strong_rung_that_fails_is_answered_by_the_cheap_one() -> None:
    rungs = Rungs()
    rungs.failing["large"] = WorkerError("died")
    cascade = rungs.cascade(msgspec.structs.replace(PLAN, start_above=(Complexity("entropy-bits", 7.0),)))
    answer = await cascade.answer(InferRequest(inputs=BUSY.inputs, timeout_s=1.0), rungs.infer)
    assert (answer.rung, rungs.rungs_asked()) == ("small", ["large", "small"])
    assert answer.timing.total_s == pytest.approx(0.22)
    assert rungs.asked[1].timeout_s == pytest.approx(0.8)
    assert cascade.stats() == _stats(requests=1, started_strong=1, strong_failed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"then": "small"}, "two rungs"),
        ({"first": ""}, "two rungs"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"share": 1.01}, "share"),
        ({"share": -0.01}, "share"),
        ({"window": 0, "share": 0.0}, "window"),
        ({"share": 0.01, "window": 99}, "no escalation"),
    ],
)
def test_plans_that_cannot_work(change: dict[str, object], message: str) -> None:
    fields = msgspec.structs.asdict(PLAN) | change
    with pytest.raises(ValueError, match=message):
        Plan(**fields)
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({k: v for k, v in fields.items() if v is not None}, Plan)


def test_plans_at_the_edge() -> None:
    assert msgspec.structs.replace(PLAN, share=0.01, window=100).window == 100
    assert msgspec.structs.replace(PLAN, share=0.0, window=1).share == 0.0
    toml = {"first": "a", "then": "b", "threshold": 0.5, "share": 0.1, "start_above": [["entropy-bits", 7.0]]}
    assert msgspec.convert(toml, Plan).start_above == (Complexity("entropy-bits", 7.0),)
