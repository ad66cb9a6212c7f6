"""What a cascade costs and what it loses: r112-fp32 first, r224-fp32 where it is unsure, against r224-fp32 alone.

The ladder of examples/defects on generated pictures. Every picture goes through both rungs one after the other, each a
session with one thread between the kernels that its manifest names (pre, artifact, post); two processes share the
pictures. A threshold for each measure of confidence is found on validation seeds; the measure that is cheapest there
is then judged, with the daemon's own Cascade, on held-out seeds. Costs are mean times per picture of the same run, the
cascade's with what judging costs the daemon.

    python bench/cascade.py [--quick] [--json] [--first RUNG] [--drop-points POINTS]
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import struct
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _rig import arguments

from flyball.clock import SystemClock
from flyball.demo import surface
from flyball.engine.calibration import threshold_for
from flyball.engine.cascade import Cascade, Plan
from flyball.engine.complexity import complexity
from flyball.engine.confidence import Measure, confidence, scores_of
from flyball.ladder.manifest import load
from flyball.ladder.steps import Layout, Normalize, Resize, Softmax
from flyball.ports import Answer, InferRequest, Tensor, Timing
from flyball_backends.onnx import OnnxBackend, OnnxOptions
from flyball_kernels.layout import to_layout
from flyball_kernels.normalize import normalize
from flyball_kernels.resize import resize
from flyball_kernels.softmax import softmax
from flyball_kernels.top_k import top_k

LADDER = Path(__file__).resolve().parents[1] / "examples/defects/ladder"
STRONG = "r224-fp32"
MEASURES: tuple[Measure, ...] = ("max-softmax", "margin", "entropy")
CLASSES = len(surface.CLASSES)
_LABELS = [struct.pack("<I", len(name)) + name.encode() for name in surface.CLASSES]
CHUNK = 100  # pictures a process takes at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One picture's answers of both rungs, and what complexity saw in it."""

    label: int
    cheap: Answer
    strong: Answer
    bits: float
    complexity_s: float


class OpenRung:
    """One rung with one thread and the kernels of its manifest, in this process."""

    def __init__(self, name: str) -> None:
        folder = load(LADDER)
        rung = folder.rung(name)
        if rung is None:
            raise SystemExit(f"{LADDER} has no rung {name!r}; it has {[r.name for r in folder.manifest.rung]}")
        self.name = name
        self._session = OnnxBackend().open(folder.artifact(rung), OnnxOptions(threads=1))
        (self._input,) = self._session.signature.inputs
        match (*rung.pre, *rung.post):
            case (Resize() as first, Normalize() as second, Layout() as third, Softmax()):
                self._resize, self._normalize, self._layout = first, second, third
            case _:
                raise SystemExit(
                    f"{name}: expected resize, normalize, layout and softmax; this script knows no other steps"
                )

    def answer(self, image: Tensor) -> Answer:
        began_s = time.perf_counter()
        pixels = np.frombuffer(image.data, np.uint8).reshape(image.shape)
        pixels = resize(pixels, self._resize.height, self._resize.width, self._resize.method)
        given = to_layout(normalize(pixels, self._normalize.mean, self._normalize.std), self._layout.order)
        ready_s = time.perf_counter()
        (logits,) = self._session.run({self._input.name: given}).values()
        ran_s = time.perf_counter()
        best, scores = top_k(softmax(logits).reshape(-1), CLASSES)
        labels = b"".join(_LABELS[i] for i in best)
        outputs = (
            Tensor("scores", "FP32", scores.shape, scores.astype("<f4").tobytes()),
            Tensor("labels", "BYTES", scores.shape, labels),
        )
        done_s = time.perf_counter()
        timing = Timing(
            queue_s=0.0, pre_s=ready_s - began_s, run_s=ran_s - ready_s, post_s=done_s - ran_s, total_s=done_s - began_s
        )
        return Answer(outputs=outputs, rung=self.name, timing=timing)


_rungs: list[OpenRung] = []  # of this process: the initializer opens them once


def _open(first: str) -> None:
    _rungs[:] = [OpenRung(first), OpenRung(STRONG)]
    canary = Tensor("image", "UINT8", (8, 8, 3), bytes(192))
    for rung in _rungs * 3:  # warm
        rung.answer(canary)


def _show(seeds: range) -> list[Shown]:
    return [_show_one(seed) for seed in seeds]


def _show_one(seed: int) -> Shown:
    picture, label = surface.draw(seed)
    image = Tensor("image", "UINT8", picture.shape, picture.tobytes())
    began_s = time.perf_counter()
    seen = complexity(image)
    complexity_s = time.perf_counter() - began_s
    assert seen is not None
    cheap, strong = (rung.answer(image) for rung in _rungs)
    return Shown(label=label, cheap=cheap, strong=strong, bits=seen.value, complexity_s=complexity_s)


def show(seeds: Sequence[range], first: str) -> list[list[Shown]]:
    """Every picture of each range, in order. They are drawn on the way: nothing is kept on disk."""
    chunks = [some[at : at + CHUNK] for some in seeds for at in range(0, len(some), CHUNK)]
    # Not multiprocessing.Pool: it starts a worker whose initializer fails again and again.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=_open, initargs=(first,)) as pool:
        every = (shown for part in pool.map(_show, chunks) for shown in part)
        return [[next(every) for _ in some] for some in seeds]


def right(answer: Answer, label: int) -> bool:
    best = bytes(answer.outputs[1].data)
    (size,) = struct.unpack_from("<I", best)
    return surface.CLASSES[label] == best[4 : 4 + size].decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one measure, on held-out pictures. `calibrated` is the cost that the validation pictures promised."""

    measure: Measure
    threshold: float
    calibrated: float
    escalated: float
    accuracy: float
    drop_points: float
    drop_error: float  # standard error of the drop, in points, paired
    cost_s: float
    judging_s: float


def judge(measure: Measure, known: Sequence[Shown], held: Sequence[Shown], allowed_drop: float, first: str) -> Figures:
    found = threshold_for(
        [confidence(scores_of(shown.cheap), measure, CLASSES) for shown in known],
        [right(shown.cheap, shown.label) for shown in known],
        [right(shown.strong, shown.label) for shown in known],
        statistics.mean(busy_s(shown.cheap) for shown in known),
        statistics.mean(busy_s(shown.strong) for shown in known),
        allowed_drop,
    )
    plan = Plan(first=first, then=STRONG, measure=measure, threshold=found.threshold, share=1.0)
    answers, escalated, judging_s = asyncio.run(replay(plan, held))
    lost = [
        100.0 * (right(shown.strong, shown.label) - right(answer, shown.label))
        for shown, answer in zip(held, answers, strict=True)
    ]
    return Figures(
        measure=measure,
        threshold=found.threshold,
        calibrated=found.cost,
        escalated=escalated / len(held),
        accuracy=statistics.mean(right(answer, shown.label) for shown, answer in zip(held, answers, strict=True)),
        drop_points=statistics.mean(lost),
        drop_error=statistics.stdev(lost) / len(lost) ** 0.5,
        cost_s=statistics.mean(busy_s(answer) for answer in answers) + judging_s,
        judging_s=judging_s,
    )


async def replay(plan: Plan, held: Sequence[Shown]) -> tuple[list[Answer], int, float]:
    """The daemon's Cascade on the answers that both rungs gave; and what it costs itself, per request."""
    cascade = Cascade(plan, CLASSES, lambda rung: None, SystemClock())
    answers = []
    began_s = time.perf_counter()
    for shown in held:

        async def infer(request: InferRequest, shown: Shown = shown) -> Answer:
            return shown.cheap if request.rung == plan.first else shown.strong

        answers.append(await cascade.answer(InferRequest(inputs=()), infer))
    return answers, cascade.stats().escalated, (time.perf_counter() - began_s) / len(held)


def busy_s(answer: Answer) -> float:
    return answer.timing.pre_s + answer.timing.run_s + answer.timing.post_s


def ranking(values: Sequence[float], hard: Sequence[bool]) -> float:
    """How often a hard picture has the higher value of a pair (the area under the ROC curve): 0.5 is chance."""
    array, mask = np.array(values), np.array(hard)
    if mask.all() or not mask.any():
        return 0.5
    pairs = np.subtract.outer(array[mask], array[~mask])
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def main() -> int:
    parser = arguments(__doc__, "1,000 validation and 1,000 held-out pictures")
    parser.add_argument("--first", default="r112-fp32", metavar="RUNG", help="the cheap rung")
    parser.add_argument("--drop-points", type=float, default=0.0, help="what the threshold may lose on validation")
    options = parser.parse_args()
    OpenRung(options.first)  # a name that the ladder does not have is said here, not by two processes
    counts = (1_000, 1_000) if options.quick else (4_000, 10_000)
    seeds = (surface.VALIDATION_SEEDS[: counts[0]], surface.HELD_OUT_SEEDS[: counts[1]])
    known, held = show(seeds, options.first)
    figures = [judge(measure, known, held, options.drop_points, options.first) for measure in MEASURES]
    best = min(figures, key=lambda f: f.calibrated)  # chosen on validation, like its threshold
    top_s = statistics.mean(busy_s(shown.strong) for shown in held)
    cheap_s = statistics.mean(busy_s(shown.cheap) for shown in held)
    cheap_right = [right(shown.cheap, shown.label) for shown in held]
    result = {
        "accuracy_drop_points": round(best.drop_points, 3),
        "drop_standard_error": round(best.drop_error, 3),
        "cost_ratio": round(best.cost_s / top_s, 4),
        "escalated_share": round(best.escalated, 4),
        "accuracy_top_pct": round(100 * statistics.mean(right(shown.strong, shown.label) for shown in held), 2),
        "accuracy_cascade_pct": round(100 * best.accuracy, 2),
        "accuracy_cheap_pct": round(100 * statistics.mean(cheap_right), 2),
        "threshold": round(best.threshold, 5),
        "measure": best.measure,
        "top_ms": round(top_s * 1e3, 3),
        "cheap_ms": round(cheap_s * 1e3, 3),
        "cascade_ms": round(best.cost_s * 1e3, 3),
        "judging_us": round(best.judging_s * 1e6, 1),
        "complexity_us": round(statistics.median(shown.complexity_s for shown in held) * 1e6, 1),
        "complexity_auc": round(ranking([shown.bits for shown in held], [not r for r in cheap_right]), 3),
        "pictures": len(held),
    }
    if not options.json:
        print(table(figures, top_s, options.first))
        print(f"a picture on which {options.first} is wrong is the more complex one of a pair in "
              f"{result['complexity_auc']:.1%} of cases (chance: 50 %)")  # fmt: skip
    print(json.dumps(result))
    return 0


def table(figures: Sequence[Figures], top_s: float, first: str) -> str:
    lines = [
        f"{first} first, then {STRONG}, against {STRONG} alone",
        "measure      threshold  escalated %  accuracy %  drop, points (error)  cost ratio",
    ]
    lines += [
        f"{f.measure:<12} {f.threshold:9.5f}  {100 * f.escalated:11.2f}  {100 * f.accuracy:10.2f}  "
        f"{f.drop_points:+12.3f} ({f.drop_error:.3f})  {f.cost_s / top_s:10.3f}"
        for f in figures
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
