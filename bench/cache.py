"""What the answer cache saves, and what it costs: AnswerCache in front of a stand-in for a model of 5 ms.

Inputs are pictures of 150,528 bytes (224x224x3 uint8), answers 1,001 bytes (a MobileNet's scores). The stand-in sleeps,
so the figures are the cache's alone; hits and misses are timed around AnswerCache.answer, hash included. Only pictures
that are the same to the last byte can hit. The streams, each with fixed seeds:

zipf     20,000 requests, one after the other, for 1,000 pictures, independently drawn; the one of rank r comes with a
         probability proportional to 1/r (Zipf, exponent 1.0; YCSB takes 0.99; Breslau et al., INFOCOM 1999, found 0.64
         to 0.83 at web proxies). The cache holds all of them and nothing expires: every miss is a first request, so
         this is the best that any cache can do with the stream, and it grows with the stream's length.
zipf08   the same with exponent 0.8
tenth    the same stream as zipf, but the cache holds 100 of the 1,000 pictures: LRU at work
static   a camera on a static scene that repeats the same frame 99 times, bit for bit, and shows a new one every 100th
         frame: 20,000 frames. The rate is 0.99 by construction, unless the cache fails. It stands for a decoder or
         camera that repeats frames; a sensor's noise makes every frame new, and this cache then hits nothing.
crowd    the zipf stream, asked by 8 callers at once: first requests that meet are shared (not counted as hits)

hit_rate_<stream>     requests answered with a stored answer, of all
spared_rate_crowd     those and the shared ones
hit_us, hit_p99_us    a hit (zipf)
miss_added_us         what a miss takes beyond its computation: hash, task, copies, storing (zipf, p50)
hash_us               SHA-256 of a picture alone, p50: most of both

    python bench/cache.py [--quick] [--json]
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate

import uvloop
from _rig import arguments

from flyball.clock import SystemClock
from flyball.engine.cache import AnswerCache
from flyball.engine.store import ENTRY_BYTES
from flyball.ports import Answer, InferRequest, Tensor, Timing

SHAPE = (224, 224, 3)
INPUT_BYTES = 224 * 224 * 3
ANSWER_BYTES = 1001
MODEL_S = 0.005
CATALOGUE = 1_000
REQUESTS = 20_000
CALLERS = 8
SCENE_FRAMES = 100
_SCENE = random.Random(0).randbytes(INPUT_BYTES)


def zipf(exponent: float, seed: int) -> list[int]:
    """Pictures by their rank, 0 the most popular."""
    weights = list(accumulate(1 / rank**exponent for rank in range(1, CATALOGUE + 1)))
    return random.Random(seed).choices(range(CATALOGUE), cum_weights=weights, k=REQUESTS)


def static() -> list[int]:
    return [frame // SCENE_FRAMES for frame in range(REQUESTS)]


def picture(number: int) -> InferRequest:
    """All but 8 bytes are the same: the hash reads every byte anyway, and 1,000 whole ones would be 150 MB."""
    data = number.to_bytes(8, "little") + _SCENE[8:]
    return InferRequest(inputs=(Tensor("image", "UINT8", SHAPE, data),))


class Drive:
    """One stream through one cache. `pause_s` is what the model takes; 0 where only the rate matters."""

    def __init__(self, entries: int, pause_s: float) -> None:
        self.cache = AnswerCache(entries * (ENTRY_BYTES + ANSWER_BYTES), 3600.0, "1", SystemClock())
        self.pause_s = pause_s
        self.computed_s: list[float] = []
        self.hits_s: list[float] = []
        self.added_s: list[float] = []

    async def run(self, numbers: Sequence[int], callers: int = 1) -> Drive:
        stream = iter(numbers)
        await asyncio.gather(*(self._ask(stream.__next__, timed=callers == 1) for _ in range(callers)))
        self.stats = self.cache.stats()
        self.cache.close()
        return self

    async def _ask(self, next_number: Callable[[], int], timed: bool) -> None:
        while True:
            try:
                number = next_number()
            except StopIteration:
                return
            request = picture(number)
            before = len(self.computed_s)
            started_s = time.perf_counter()
            answer = await self.cache.answer(request, lambda: "only", self._compute, 10.0)
            span_s = time.perf_counter() - started_s
            if bytes(answer.outputs[0].data[:8]) != number.to_bytes(8, "little"):
                raise SystemExit(f"picture {number} was answered with another one's answer")
            if timed and len(self.computed_s) == before:
                self.hits_s.append(span_s)
            elif timed:
                self.added_s.append(span_s - self.computed_s[-1])

    async def _compute(self, request: InferRequest) -> Answer:
        started_s = time.perf_counter()
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
        scores = bytes(request.inputs[0].data[:8]).ljust(ANSWER_BYTES)
        timing = Timing(queue_s=0.0, pre_s=0.0, run_s=self.pause_s, post_s=0.0, total_s=self.pause_s)
        answer = Answer(outputs=(Tensor("scores", "UINT8", (1, ANSWER_BYTES), scores),), rung="only", timing=timing)
        self.computed_s.append(time.perf_counter() - started_s)
        return answer


def rate(drive: Drive) -> float:
    assert drive.stats.hit_rate is not None
    return drive.stats.hit_rate


def hash_us() -> float:
    spans_s = []
    for _ in range(500):
        started_s = time.perf_counter()
        hashlib.sha256(_SCENE).digest()
        spans_s.append(time.perf_counter() - started_s)
    return statistics.median(spans_s) * 1e6


async def measure(seeds: range) -> dict[str, float]:
    rates: dict[str, list[float]] = {"zipf": [], "zipf08": [], "tenth": [], "crowd": []}
    spared, hits_s, added_s = [], [], []
    for seed in seeds:
        stream = zipf(1.0, seed)
        alone = await Drive(CATALOGUE, MODEL_S).run(stream)
        if alone.stats.misses != len(set(stream)):
            raise SystemExit(f"{len(set(stream))} pictures, but {alone.stats.misses} misses")
        crowd = await Drive(CATALOGUE, MODEL_S).run(stream, CALLERS)
        rates["zipf"].append(rate(alone))
        rates["zipf08"].append(rate(await Drive(CATALOGUE, 0.0).run(zipf(0.8, seed))))
        rates["tenth"].append(rate(await Drive(CATALOGUE // 10, 0.0).run(stream)))
        rates["crowd"].append(rate(crowd))
        spared.append(crowd.stats.spared_rate or 0.0)
        hits_s += alone.hits_s
        added_s += alone.added_s
    frames = await Drive(CATALOGUE, MODEL_S).run(static())
    return {
        "hit_rate_zipf": round(statistics.median(rates["zipf"]), 4),
        "hit_rate_static": round(rate(frames), 4),
        "hit_us": round(statistics.median(hits_s) * 1e6, 1),
        "miss_added_us": round(statistics.median(added_s) * 1e6, 1),
        "hit_p99_us": round(statistics.quantiles(hits_s, n=100)[98] * 1e6, 1),
        "hash_us": round(hash_us(), 1),
        "hit_rate_zipf08": round(statistics.median(rates["zipf08"]), 4),
        "hit_rate_tenth": round(statistics.median(rates["tenth"]), 4),
        "hit_rate_crowd": round(statistics.median(rates["crowd"]), 4),
        "spared_rate_crowd": round(statistics.median(spared), 4),
        "requests": REQUESTS,
        "input_bytes": INPUT_BYTES,
    }


def main() -> int:
    options = arguments(__doc__, "each stream once, not with 5 seeds").parse_args()
    uvloop.install()
    result = asyncio.run(measure(range(1 if options.quick else 5)))
    if not options.json:
        print(f"a hit takes {result['hit_us']:.0f} us of which {result['hash_us']:.0f} us are the hash; ", end="")
        print(f"a miss takes {result['miss_added_us']:.0f} us more than without a cache")
        print(
            f"hit rates: zipf {result['hit_rate_zipf']:.1%}, with room for a tenth {result['hit_rate_tenth']:.1%}, ",
            end="",
        )
        print(f"repeated frames {result['hit_rate_static']:.1%}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
