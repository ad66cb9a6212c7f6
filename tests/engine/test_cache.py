"""The answer cache: what is the same, what is kept and how long, and who computes for whom."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.clock import SystemClock
from flyball.engine.cache import AnswerCache, CacheStats
from flyball.engine.store import ENTRY_BYTES
from flyball.errors import DeadlineError, QueueFullError, RequestError, UnavailableError, WorkerError
from flyball.ports import Answer, InferRequest, Tensor, Timing
from flyball.testing import NO_TIME, FakeClock

pytestmark = pytest.mark.anyio

PLENTY = 1 << 20


def ask(
    content: bytes | bytearray = b"picture", *, rung: str | None = None, timeout_s: float | None = None
) -> InferRequest:
    return InferRequest(inputs=(Tensor("x", "UINT8", (len(content),), content),), rung=rung, timeout_s=timeout_s)


class Model:
    """Answers with the input and its own count of computations. With `gate`, not before that is set; an exception in
    `errors` is raised in the place of the next answer."""

    def __init__(self, rung: str = "big", output_bytes: int | None = None) -> None:
        self.active: str | None = rung
        self.answers_as: str | None = None
        self.output_bytes = output_bytes
        self.gate: asyncio.Event | None = None
        self.errors: list[Exception] = []
        self.requests: list[InferRequest] = []
        self.cancelled = 0

    def rung(self) -> str | None:
        return self.active

    async def compute(self, request: InferRequest) -> Answer:
        self.requests.append(request)
        number = len(self.requests)
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.errors:
            raise self.errors.pop(0)
        data = bytes(request.inputs[0].data) + b"/%d" % number
        if self.output_bytes is not None:
            data = data[: self.output_bytes].ljust(self.output_bytes)
        output = Tensor("y", "UINT8", (len(data),), data)
        rung = self.answers_as or request.rung or self.active or ""
        return Answer(outputs=(output,), rung=rung, timing=replace(NO_TIME, run_s=0.005, total_s=0.005))


class Bench:
    """A cache before a model."""

    def __init__(self, cache: AnswerCache, model: Model, clock: FakeClock) -> None:
        self.cache = cache
        self.model = model
        self.clock = clock

    async def __call__(self, request: InferRequest, limit_s: float = 5.0) -> bytes:
        return bytes((await self.answer(request, limit_s)).outputs[0].data)

    async def answer(self, request: InferRequest, limit_s: float = 5.0) -> Answer:
        return await self.cache.answer(request, self.model.rung, self.model.compute, limit_s)

    def start(self, request: InferRequest, limit_s: float = 5.0) -> asyncio.Task[bytes]:
        return asyncio.create_task(self(request, limit_s))

    @property
    def counts(self) -> tuple[int, int, int]:
        stats = self.cache.stats()
        return stats.hits, stats.misses, stats.shared


@asynccontextmanager
async def caching(
    max_bytes: int = PLENTY, ttl_s: float = 60.0, model: Model | None = None, version: str = "1"
) -> AsyncIterator[Bench]:
    clock = FakeClock()
    bench = Bench(AnswerCache(max_bytes, ttl_s, version, clock), model or Model(), clock)
    try:
        yield bench
    finally:
        bench.cache.close()


async def turns(count: int = 5) -> None:
    """Lets the event loop do what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------------- hit and miss


async def test_the_same_request_is_computed_once() -> None:
    async with caching() as bench:
        first = await bench.answer(ask())
        second = await bench.answer(ask(bytes(bytearray(b"picture"))))
        assert second.outputs == first.outputs
        assert second.rung == "big"
        assert len(bench.model.requests) == 1
        stats = bench.cache.stats()
        size = ENTRY_BYTES + len(first.outputs[0].data)
        assert stats == CacheStats(hits=1, misses=1, shared=0, entries=1, bytes=size, evicted=0, expired=0)


x = Tensor("x", "UINT8", (2, 3), b"abcdef")
y = Tensor("y", "UINT8", (1,), b"g")
DIFFERENT = {
    "one": InferRequest(inputs=(x,)),
    "content": InferRequest(inputs=(replace(x, data=b"abcdeF"),)),
    "datatype": InferRequest(inputs=(replace(x, datatype="INT8"),)),
    "shape": InferRequest(inputs=(replace(x, shape=(3, 2)),)),
    "rank": InferRequest(inputs=(replace(x, shape=(6,)),)),
    "name": InferRequest(inputs=(replace(x, name="X"),)),
    "no input": InferRequest(inputs=()),
    "rung": InferRequest(inputs=(x,), rung="small"),
    "another input": InferRequest(inputs=(x, y)),
    "names changed over": InferRequest(inputs=(replace(x, name="y"), replace(y, name="x"))),
    "a name like the rest of the header": InferRequest(
        inputs=(replace(x, name="x', 'UINT8', (2, 3), 6), ('y"), replace(y, data=b"g"))
    ),
}


@pytest.mark.parametrize("change", [name for name in DIFFERENT if name != "one"])
async def test_whatever_differs_is_another_request(change: str) -> None:
    async def compute(request: InferRequest) -> Answer:
        computed.append(request)
        return Answer(outputs=(), rung=request.rung or "big", timing=NO_TIME)

    computed: list[InferRequest] = []
    async with caching() as bench:
        for request in (DIFFERENT["one"], DIFFERENT[change]) * 2:
            await bench.cache.answer(request, bench.model.rung, compute, 5.0)
        assert bench.counts == (2, 2, 0)
        assert [r.inputs for r in computed] == [DIFFERENT["one"].inputs, DIFFERENT[change].inputs]


async def test_where_one_input_ends_and_the_next_begins_matters() -> None:
    async with caching() as bench:
        for first, second in ((b"abc", b"d"), (b"ab", b"cd")) * 2:
            inputs = (Tensor("x", "BYTES", (1,), first), Tensor("y", "BYTES", (1,), second))
            assert (await bench(InferRequest(inputs=inputs))).startswith(first + b"/")
        assert bench.counts == (2, 2, 0)


async def test_the_order_of_inputs_the_timeout_and_the_kind_of_buffer_mean_nothing() -> None:
    async with caching() as bench:
        await bench(InferRequest(inputs=(x, y)))
        await bench(InferRequest(inputs=(y, x), timeout_s=1.0, priority=1))
        floats = memoryview(bytearray(x.data)).cast("B", (2, 3))
        await bench(InferRequest(inputs=(replace(x, data=floats), replace(y, data=bytearray(b"g")))))
        assert bench.counts == (2, 1, 0)


async def test_an_answer_belongs_to_the_rung_that_is_active() -> None:
    async with caching() as bench:
        assert await bench(ask()) == b"picture/1"
        bench.model.active = "small"
        assert await bench(ask()) == b"picture/2"
        bench.model.active = "big"
        assert await bench(ask()) == b"picture/1"
        assert await bench(ask(rung="small")) == b"picture/2", "the rung's answer, however it was asked for"


async def test_versions_do_not_share_a_key() -> None:
    keys = []
    for version in ("1", "2"):
        async with caching(version=version) as bench:
            await bench(ask())
            (key,) = bench.cache._store._used
            keys.append(key)
    assert keys[0] != keys[1]


async def test_nan_is_bytes_like_any_other() -> None:
    quiet, other = struct.pack("<f", math.nan), struct.pack("<I", 0x7FC00001)
    zero, minus_zero = struct.pack("<f", 0.0), struct.pack("<f", -0.0)
    async with caching() as bench:
        for data in (quiet, other, zero, minus_zero) * 2:
            assert (await bench(ask(data))).startswith(data)
        assert bench.counts == (4, 4, 0)


async def test_without_an_active_rung_it_only_computes() -> None:
    async with caching() as bench:
        bench.model.active = None
        assert [await bench(ask(), 0.5) for _ in range(2)] == [b"picture/1", b"picture/2"]
        assert bench.counts == (0, 2, 0)
        assert bench.cache.stats().entries == 0
        assert [r.timeout_s for r in bench.model.requests] == [None, None], "who set no limit is given none"


async def test_a_large_input_is_hashed_too() -> None:
    large = bytes(2 << 20)
    async with caching(model=Model(output_bytes=8)) as bench:
        for content in (large, large[:-1] + b"\1", large):
            await bench(ask(content))
        assert bench.counts == (1, 2, 0)


async def test_the_timing_is_the_requests_own() -> None:
    async def compute(request: InferRequest) -> Answer:
        bench.clock.advance(0.25)
        await asyncio.sleep(0)
        timing = Timing(queue_s=0.05, pre_s=0.05, run_s=0.1, post_s=0.05, total_s=0.25)
        return replace(await bench.model.compute(request), timing=timing)

    def slow() -> str:
        bench.clock.advance(0.5)
        return "big"

    async with caching() as bench:
        alone = await bench.cache.answer(ask(), slow, compute, 5.0)
        assert alone.timing.run_s == 0.1
        assert alone.timing.total_s >= 0.75
        spans = (alone.timing.queue_s, alone.timing.pre_s, alone.timing.run_s, alone.timing.post_s)
        assert sum(spans) == pytest.approx(alone.timing.total_s), "what came before the computation is waiting"
        hit = await bench.cache.answer(ask(), slow, compute, 5.0)
        assert hit.timing == Timing(queue_s=0.0, pre_s=0.0, run_s=0.0, post_s=0.0, total_s=0.5)
        first, second = await asyncio.gather(
            *(bench.cache.answer(ask(b"other"), bench.model.rung, compute, 5.0) for _ in range(2))
        )
        assert first.timing.run_s == 0.1
        assert second.timing == Timing(queue_s=0.25, pre_s=0.0, run_s=0.0, post_s=0.0, total_s=0.25)


# ------------------------------------------------------------------------------------------------------ what is kept


async def test_an_expired_answer_is_never_returned() -> None:
    async with caching(ttl_s=10.0) as bench:
        await bench(ask())
        bench.clock.advance(9.99)
        assert await bench(ask()) == b"picture/1"
        bench.clock.advance(0.01)  # a hit does not prolong it
        assert await bench(ask()) == b"picture/2"
        assert (bench.cache.stats().expired, bench.cache.stats().entries) == (1, 1)
        bench.clock.advance(9.99)
        assert await bench(ask()) == b"picture/2"


async def test_expired_answers_leave_in_the_background() -> None:
    cache, model = AnswerCache(PLENTY, 0.05, "1", SystemClock()), Model()
    assert cache._timer is None, "nothing cached, no timer"
    for content in (b"a", b"b"):
        await cache.answer(ask(content), model.rung, model.compute, 5.0)
    assert cache._timer is not None
    assert cache.stats().entries == 2
    await asyncio.sleep(0.5)
    assert (cache.stats().entries, cache.stats().bytes, cache.stats().expired) == (0, 0, 2)
    assert cache._timer is None
    cache.close()


async def test_the_timer_follows_the_entry_that_expires_first() -> None:
    async with caching(ttl_s=0.2) as bench:
        await bench(ask(b"a"))
        timer = bench.cache._timer
        bench.clock.advance(0.15)
        await bench(ask(b"b"))
        await bench(ask(b"a"))
        assert timer is not None
        assert bench.cache._timer is timer, "one timer, whatever is stored and used meanwhile"
        bench.clock.advance(0.1)  # a has expired, b not yet
        await asyncio.sleep(0.6)
        assert bench.cache.stats().entries == 1
        assert bench.cache._timer not in (None, timer)
        assert await bench(ask(b"b")) == b"b/2"
        bench.clock.advance(0.1)
        await bench(ask(b"b"))
        assert bench.cache.stats().expired == 2


async def test_the_least_recently_used_make_room() -> None:
    three = 3 * (ENTRY_BYTES + 600)
    # A quarter of the bound is what one answer may have, so four of these fit and not three.
    async with caching(max_bytes=three + ENTRY_BYTES + 600, model=Model(output_bytes=600)) as bench:
        for content in (b"a", b"b", b"c", b"d", b"a", b"e"):
            await bench(ask(content))
        stats = bench.cache.stats()
        assert (stats.entries, stats.bytes, stats.evicted) == (4, three + ENTRY_BYTES + 600, 1)
        before = len(bench.model.requests)
        for content in (b"a", b"c", b"d", b"e"):
            await bench(ask(content))
        assert len(bench.model.requests) == before, "b was the one to go: a had been used since"
        await bench(ask(b"b"))
        assert len(bench.model.requests) == before + 1


@pytest.mark.parametrize(("missing", "entries"), [(0, 5), (1, 4)])
async def test_the_bound_is_kept_to_the_byte(missing: int, entries: int) -> None:
    async with caching(max_bytes=5 * (ENTRY_BYTES + 100) - missing, model=Model(output_bytes=100)) as bench:
        for content in (b"a", b"b", b"c", b"d", b"e"):
            await bench(ask(content))
        assert bench.cache.stats().entries == entries


async def test_an_expired_entry_makes_room_before_a_live_one() -> None:
    async with caching(max_bytes=4 * (ENTRY_BYTES + 100), ttl_s=10.0, model=Model(output_bytes=100)) as bench:
        await bench(ask(b"a"))
        bench.clock.advance(5.0)
        for content in (b"b", b"c", b"d", b"a"):
            await bench(ask(content))
        bench.clock.advance(5.0)  # a was used last, and is the only one to have expired
        await bench(ask(b"e"))
        stats = bench.cache.stats()
        assert (stats.entries, stats.evicted, stats.expired) == (4, 0, 1)
        assert (await bench(ask(b"b"))).startswith(b"b/2")


@pytest.mark.parametrize(("too_large", "entries"), [(0, 1), (1, 0)])
async def test_an_answer_larger_than_a_quarter_is_not_stored(too_large: int, entries: int) -> None:
    room = 4 * (ENTRY_BYTES + 100)
    async with caching(max_bytes=room, model=Model(output_bytes=100 + too_large)) as bench:
        assert len(await bench(ask())) == 100 + too_large
        assert bench.cache.stats().entries == entries


async def test_without_any_room_it_still_computes_once() -> None:
    async with caching(max_bytes=0) as bench:
        assert await asyncio.gather(*(bench(ask()) for _ in range(2))) == [b"picture/1"] * 2
        assert await bench(ask()) == b"picture/2"
        assert bench.counts == (0, 2, 1)


async def test_what_is_stored_is_no_view_of_a_buffer() -> None:
    buffer = bytearray(b"....answer....")

    async def compute(request: InferRequest) -> Answer:
        view = memoryview(buffer)[4:10]
        return Answer(outputs=(Tensor("y", "UINT8", (6,), view),), rung="big", timing=NO_TIME)

    async with caching() as bench:
        first = await bench.cache.answer(ask(), bench.model.rung, compute, 5.0)
        buffer[:] = b"overwritten..."
        again = await bench.cache.answer(ask(), bench.model.rung, compute, 5.0)
        assert (bytes(first.outputs[0].data), bytes(again.outputs[0].data)) == (b"answer", b"answer")
        assert bench.counts == (1, 1, 0)


async def test_a_caller_that_left_may_use_its_buffer_again() -> None:
    buffer = bytearray(b"before")
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        first, second = bench.start(ask(buffer)), bench.start(ask(b"before"))
        await turns()
        first.cancel()
        await turns()
        buffer[:] = b"after."
        bench.model.gate.set()
        assert await second == b"before/1"


async def test_clear_forgets_what_is_stored_and_what_is_under_way() -> None:
    async with caching() as bench:
        await bench(ask(b"stored"))
        bench.model.gate = asyncio.Event()
        doubtful = bench.start(ask())
        await turns()
        bench.cache.clear()
        assert (bench.cache.stats().entries, bench.cache.stats().bytes) == (0, 0)
        assert bench.cache._timer is None
        later = bench.start(ask())
        await turns()
        assert len(bench.model.requests) == 3, "nobody joins what was begun before"
        bench.model.gate.set()
        assert (await doubtful, await later) == (b"picture/2", b"picture/3")
        assert await bench(ask()) == b"picture/3"
        assert await bench(ask(b"stored")) == b"stored/4"


async def test_what_was_under_way_at_a_clear_is_not_stored() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        doubtful = bench.start(ask())
        await turns()
        bench.cache.clear()
        bench.model.gate.set()
        assert await doubtful == b"picture/1"
        assert bench.cache.stats().entries == 0


# ---------------------------------------------------------------------------------------------------- single flight


async def test_identical_requests_in_flight_are_computed_once() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        same = [bench.start(ask()) for _ in range(8)]
        other = bench.start(ask(b"other"))
        await turns()
        assert len(bench.model.requests) == 2
        bench.model.gate.set()
        assert await asyncio.gather(*same) == [b"picture/1"] * 8
        assert await other == b"other/2"
        assert bench.counts == (0, 2, 7)
        assert await bench(ask()) == b"picture/1"
        stats = bench.cache.stats()
        assert (stats.hit_rate, stats.spared_rate) == (0.1, 0.8)


async def test_no_requests_have_no_rate() -> None:
    async with caching() as bench:
        assert bench.cache.stats().hit_rate is None
        assert bench.cache.stats().spared_rate is None


async def test_the_first_caller_leaves_and_the_others_get_the_answer() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        first, second, third = (bench.start(ask()) for _ in range(3))
        await turns()
        first.cancel()
        await turns()
        assert first.cancelled()
        bench.model.gate.set()
        assert [await second, await third] == [b"picture/1"] * 2
        assert bench.model.cancelled == 0
        assert bench.counts == (0, 1, 2)


async def test_when_all_have_left_the_computation_ends() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        callers = [bench.start(ask()) for _ in range(3)]
        await turns()
        for caller in callers[:2]:
            caller.cancel()
        await turns()
        assert bench.model.cancelled == 0
        callers[2].cancel()
        await turns()
        assert bench.model.cancelled == 1
        bench.model.gate.set()
        assert await bench(ask()) == b"picture/2", "nobody joins one that was cancelled"
        assert bench.counts == (0, 4, 0)


async def test_one_who_comes_while_a_left_computation_still_ends_starts_another() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        caller = bench.start(ask())
        await turns()
        caller.cancel()
        late = bench.start(ask())
        await turns()
        bench.model.gate.set()
        assert await late == b"picture/2"


async def test_every_waiter_has_its_own_limit() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        patient, hasty = bench.start(ask(), 5.0), bench.start(ask(), 0.05)
        started_s = time.monotonic()
        with pytest.raises(DeadlineError, match=r"no answer within 0\.05 s"):
            await hasty
        assert 0.03 < time.monotonic() - started_s < 2
        bench.model.gate.set()
        assert await patient == b"picture/1"
        assert bench.counts == (0, 2, 0)


async def test_a_computation_that_ignores_its_limit_is_left() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        started_s = time.monotonic()
        with pytest.raises(DeadlineError):
            await bench(ask(), 0.02)
        assert time.monotonic() - started_s < 1
        await turns()
        assert bench.model.cancelled == 1


async def test_a_computation_that_keeps_its_limit_says_itself_why_it_is_late() -> None:
    async def compute(request: InferRequest) -> Answer:
        await asyncio.sleep(request.timeout_s or 0)
        raise DeadlineError("three requests are ahead")

    async with caching() as bench:
        with pytest.raises(DeadlineError, match="three requests are ahead"):
            await bench.cache.answer(ask(timeout_s=9.0), bench.model.rung, compute, 0.05)


async def test_the_computation_carries_the_limit_of_the_one_who_starts_it() -> None:
    async with caching() as bench:
        await bench(ask(timeout_s=9.0), 0.5)
        assert bench.model.requests[0].timeout_s == 0.5
        assert bench.model.requests[0].inputs == ask().inputs


@pytest.mark.parametrize("error", [DeadlineError("too little time"), QueueFullError("no place")])
async def test_a_failure_for_want_of_time_is_only_the_starters(error: Exception) -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        bench.model.errors = [error]
        callers = [bench.start(ask(timeout_s=9.0), limit_s) for limit_s in (0.5, 2.0, 4.0, 3.0)]
        await turns()
        bench.model.gate.set()
        with pytest.raises(type(error)) as raised:
            await callers[0]
        assert raised.value is error
        assert await asyncio.gather(*callers[1:]) == [b"picture/2"] * 3
        assert [r.timeout_s for r in bench.model.requests] == [0.5, 4.0], "the one with the most time starts the next"
        assert bench.counts == (0, 2, 2)


async def test_a_failure_that_more_time_would_not_have_changed_is_everyones() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        bench.model.errors = [QueueFullError("no place"), QueueFullError("still none")]
        callers = [bench.start(ask(), limit_s) for limit_s in (1.0, 1.0, 0.5)]
        await turns()
        bench.model.gate.set()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert [str(e) for e in found] == ["no place"] * 3
        assert len(bench.model.requests) == 1


async def test_a_second_failure_ends_it() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        bench.model.errors = [DeadlineError("1"), DeadlineError("2")]
        callers = [bench.start(ask(), limit_s) for limit_s in (0.5, 2.0, 3.0)]
        await turns()
        bench.model.gate.set()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert [str(e) for e in found] == ["1", "2", "2"]
        assert len(bench.model.requests) == 2


async def test_whose_time_is_over_starts_nothing() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        bench.model.errors = [DeadlineError("too little time")]
        first, second = bench.start(ask(), 0.5), bench.start(ask(), 2.0)
        await turns()
        bench.clock.advance(3.0)
        bench.model.gate.set()
        with pytest.raises(DeadlineError):
            await second
        with pytest.raises(DeadlineError):
            await first
        assert len(bench.model.requests) == 1


@pytest.mark.parametrize("error", [WorkerError("died"), RequestError("bad"), UnavailableError("none"), OSError(5, "x")])
async def test_every_other_error_goes_to_all(error: Exception) -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        bench.model.errors = [error]
        callers = [bench.start(ask(), limit_s) for limit_s in (0.5, 2.0, 3.0)]
        await turns()
        bench.model.gate.set()
        assert await asyncio.gather(*callers, return_exceptions=True) == [error] * 3
        assert bench.counts == (0, 3, 0)
        assert await bench(ask()) == b"picture/2", "an error is not stored"


async def test_a_request_that_names_its_rung_flies_alone() -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        free, pinned = bench.start(ask()), bench.start(ask(rung="big"))
        await turns()
        bench.model.active = "small"  # the free one is answered by whatever is active in the end
        bench.model.gate.set()
        assert (await free, await pinned) == (b"picture/1", b"picture/2")
        assert [r.rung for r in bench.model.requests] == [None, "big"]


async def test_two_flights_that_end_with_the_same_answer_store_it_once() -> None:
    async with caching() as bench:
        first, _ = await asyncio.gather(bench(ask()), bench(ask(rung="big")))
        stats = bench.cache.stats()
        assert (stats.misses, stats.entries, stats.bytes) == (2, 1, ENTRY_BYTES + len(first))
        assert (stats.evicted, stats.expired) == (0, 0)


# -------------------------------------------------------------------------------------------- switches in the middle


@pytest.mark.parametrize("then", ["small", None])
async def test_an_answer_across_a_switch_is_not_stored(then: str | None) -> None:
    async with caching() as bench:
        bench.model.gate = asyncio.Event()
        bench.model.answers_as = "big"
        caller = bench.start(ask())
        await turns()
        bench.model.active = then
        bench.model.gate.set()
        assert await caller == b"picture/1"
        assert bench.cache.stats().entries == 0


async def test_an_answer_of_another_rung_is_not_stored() -> None:
    async with caching() as bench:
        bench.model.answers_as = "small"
        assert (await bench.answer(ask())).rung == "small"
        assert bench.cache.stats().entries == 0
        bench.model.answers_as = None
        assert (await bench.answer(ask())).rung == "big"
        assert bench.cache.stats().entries == 1


# ---------------------------------------------------------------------------------------------------------- its end


async def test_close_ends_timer_flights_and_waiting() -> None:
    async with caching() as bench:
        await bench(ask(b"stored"))
        bench.model.gate = asyncio.Event()
        callers = [bench.start(ask()) for _ in range(2)]
        await turns()
        bench.cache.clear()  # one that nobody can join any more is ended too
        callers.append(bench.start(ask()))
        await turns()
        timer = bench.cache._timer
        bench.cache.close()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(e) for e in found] == [UnavailableError] * 3
        assert bench.model.cancelled == 2
        assert timer is None
        assert bench.cache._timer is None
        assert bench.cache.stats().entries == 0
        with pytest.raises(UnavailableError, match="closed"):
            await bench(ask())


async def test_close_ends_the_timer() -> None:
    async with caching() as bench:
        await bench(ask())
        timer = bench.cache._timer
        assert timer is not None
        bench.cache.close()
        assert timer.cancelled()
        assert bench.cache._timer is None


@pytest.mark.parametrize(("max_bytes", "ttl_s"), [(-1, 1.0), (1, 0.0), (1, -1.0), (1, math.inf), (1, math.nan)])
async def test_senseless_limits_are_refused(max_bytes: int, ttl_s: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        AnswerCache(max_bytes, ttl_s, "1", FakeClock())


# ------------------------------------------------------------------------------------------------------- any history


class Plain:
    """What the cache should do with one request after the other, said in the shortest way."""

    def __init__(self, room: int, ttl_s: float) -> None:
        self.room = room
        self.ttl_s = ttl_s
        self.kept: OrderedDict[tuple[int, str], tuple[float, int]] = OrderedDict()
        self.hits = self.stored = self.evicted = self.expired = 0

    def ask(self, content: int, rung: str, output_bytes: int, now_s: float) -> bool:
        for key in [key for key, (until_s, _) in self.kept.items() if until_s <= now_s]:
            del self.kept[key]
            self.expired += 1
        if (content, rung) in self.kept:
            self.kept.move_to_end((content, rung))
            self.hits += 1
            return True
        size = ENTRY_BYTES + output_bytes
        if size <= self.room / 4:
            while sum(s for _, s in self.kept.values()) + size > self.room:
                self.kept.popitem(last=False)
                self.evicted += 1
            self.kept[content, rung] = (now_s + self.ttl_s, size)
            self.stored += 1
        return False


@given(
    room=st.integers(0, 12 * ENTRY_BYTES),
    steps=st.lists(
        st.tuples(
            st.integers(0, 8),
            st.sampled_from(["big", "small"]),
            st.integers(0, 2 * ENTRY_BYTES),
            st.sampled_from([0.0, 0.0, 1.0, 4.0, 30.0]),
        ),
        max_size=60,
    ),
)
def test_any_history(room: int, steps: list[tuple[int, str, int, float]]) -> None:
    async def drive() -> None:
        plain = Plain(room, 10.0)
        async with caching(room, 10.0) as bench:
            for content, rung, output_bytes, later_s in steps:
                bench.clock.advance(later_s)
                bench.model.active, bench.model.output_bytes = rung, output_bytes
                computed = len(bench.model.requests)
                await bench(ask(b"%d" % content))
                hit = plain.ask(content, rung, output_bytes, bench.clock.monotonic_s())
                assert (len(bench.model.requests) == computed) is hit
                stats = bench.cache.stats()
                assert stats.bytes <= room
            stats = bench.cache.stats()
            assert stats.hits + stats.misses == len(steps)
            assert (stats.hits, stats.shared) == (plain.hits, 0)
            assert stats.entries + stats.evicted + stats.expired == plain.stored
            assert stats.evicted == plain.evicted

    asyncio.run(drive())


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["answer", "error", "deadline", "leave"]), st.booleans()),
        max_size=25,
    )
)
def test_any_crowd(callers: list[tuple[int, str, bool]]) -> None:
    """Whatever becomes of those who ask at once: each is counted once, and nothing is left running."""

    async def compute(request: InferRequest) -> Answer:
        await asyncio.sleep(0)
        fate = fates.pop()
        if fate == "error":
            raise WorkerError("died")
        if fate == "deadline":
            raise DeadlineError("late")
        await asyncio.sleep(0)
        return await Model().compute(request)

    async def drive() -> None:
        async with caching(4 * (ENTRY_BYTES + 10)) as bench:
            tasks = []
            for number, (content, fate, pause) in enumerate(callers):
                call = bench.cache.answer(ask(b"%d" % content), bench.model.rung, compute, 5.0 + number)
                tasks.append(asyncio.create_task(call))
                await turns(3 if pause else 1)
                if fate == "leave":
                    tasks[-1].cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            answered = sum(isinstance(f, Answer) for f in found)
            stats = bench.cache.stats()
            assert stats.hits + stats.misses + stats.shared == len(callers)
            assert stats.hits + stats.shared <= answered
            assert stats.bytes <= 4 * (ENTRY_BYTES + 10)
            assert all(isinstance(f, Answer | WorkerError | DeadlineError | asyncio.CancelledError) for f in found), (
                found
            )
            await turns()
            assert not bench.cache._running
            assert not bench.cache._flights

    fates = [fate for _, fate, _ in callers] * 3
    asyncio.run(drive())
