"""The cascade and the answer cache inside a runner, on the example ladder with its real models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flyball.clock import SystemClock
from flyball.config import Cache, Cascade, Engine, LadderSettings
from flyball.demo import surface
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.events import Events
from flyball.ladder.manifest import load
from flyball.ports import Answer, InferRequest, Tensor

pytestmark = pytest.mark.anyio

LADDER = Path(__file__).resolve().parents[2] / "examples/defects/ladder"
STRONG, WEAK = "r224-fp32", "r56-fp32"


def picture(seed: int, timeout_s: float | None = None) -> InferRequest:
    image, _ = surface.draw(seed)
    return InferRequest(inputs=(Tensor("image", "UINT8", image.shape, image.tobytes()),), timeout_s=timeout_s)


@asynccontextmanager
async def defects(settings: LadderSettings) -> AsyncIterator[LadderRunner]:
    runner = LadderRunner(load(LADDER), Engine(threads=1), Standby(1 << 30), Events(), SystemClock(), settings)
    runner.limit_to({"cpu"})
    await runner.start()
    await runner.settled()
    try:
        yield runner
    finally:
        await runner.close()


def cascade(threshold: float, **more: float) -> LadderSettings:
    return LadderSettings(cascade=Cascade(first=WEAK, then=STRONG, threshold=threshold, **more))


def seeds(count: int) -> range:
    return surface.DEMO_SEEDS[:count]


async def test_a_sure_answer_stays_with_the_cheap_rung_and_an_unsure_one_goes_on() -> None:
    async with defects(cascade(0.9)) as runner:
        answers: list[Answer] = [await runner.infer(picture(seed)) for seed in seeds(60)]
        counts = runner.totals().cascade
        assert {a.rung for a in answers} == {STRONG, WEAK}
        assert counts["requests"] == 60
        assert counts["escalated"] == sum(a.rung == STRONG for a in answers) > 0
        totals = runner.totals()
        assert totals.success == 60, "a request counts once, however many rungs it asked"
        assert sum(totals.answers_by_rung.values()) == 60 + counts["escalated"]


async def test_the_cascade_never_goes_above_the_rung_that_the_governor_allows() -> None:
    async with defects(cascade(1.0)) as runner:
        assert (await runner.infer(picture(seeds(1)[0]))).rung == STRONG
        await runner.switch("r80-fp32", "test")
        assert {(await runner.infer(picture(seed))).rung for seed in seeds(10)} == {WEAK}
        assert runner.totals().cascade["kept_by_deadline"] == 10


async def test_a_request_that_names_its_rung_passes_the_cascade_by() -> None:
    async with defects(cascade(0.0)) as runner:
        request = picture(seeds(1)[0])
        assert (await runner.infer(InferRequest(inputs=request.inputs, rung=STRONG))).rung == STRONG
        assert runner.totals().cascade["requests"] == 0


async def test_a_cascade_over_a_rung_that_the_ladder_does_not_have_is_left_aside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = LadderSettings(cascade=Cascade(first="nothing", then=STRONG, threshold=0.5))
    async with defects(settings) as runner:
        assert (await runner.infer(picture(seeds(1)[0]))).rung == STRONG
        assert runner.totals().cascade == {}
    assert "no rung 'nothing'" in caplog.text


async def test_the_same_picture_is_computed_once_until_the_rung_changes() -> None:
    async with defects(LadderSettings(cache=Cache(max_mib=1))) as runner:
        request = picture(seeds(1)[0])
        first, second = await runner.infer(request), await runner.infer(request)
        assert [bytes(t.data) for t in first.outputs] == [bytes(t.data) for t in second.outputs]
        assert second.timing.run_s == 0
        assert runner.totals().executions == 1
        await runner.switch(WEAK, "test")
        assert (await runner.infer(request)).rung == WEAK
        assert runner.totals().executions == 2
        assert runner.totals().cache["hits"] == 1
        assert runner.totals().success == 3, "an answer from the cache is an answer"
