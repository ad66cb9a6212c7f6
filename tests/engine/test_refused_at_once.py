"""What cannot be answered in time is refused when it comes, whoever answers and whoever set the limit."""

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, running, write_scripts
from faulty_requests import ask

from flyball.config import Engine
from flyball.engine.runner import LadderRunner
from flyball.errors import DeadlineError
from flyball.ports import InferRequest

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

SLOW = {"big": {"run": "slow", "warm": "slow"}}  # 0.3 s each, which the warm-up sees


async def fates(runner: LadderRunner, request: InferRequest, number: int) -> Counter[str]:
    """Of so many at once: answered, refused at once, or refused after they had waited."""

    async def one() -> str:
        try:
            await runner.infer(request)
        except DeadlineError as error:
            return "at once" if "are ahead" in str(error) else "waited"
        return "answered"

    return Counter(await asyncio.gather(*(one() for _ in range(number))))


async def test_by_the_named_rungs_pace(tmp_path: Path) -> None:
    async with running(write_scripts(tmp_path, {**SLOW, "small": {}}), first="small") as runner:
        await runner.infer(ask(1.0, 1.0, rung="big"))
        found = await fates(runner, ask(1.0, 1.0, rung="big", timeout_s=2.0), 16)
        assert found["waited"] == 0, found
        assert found["at once"] >= 9, found
        assert 3 <= found["answered"] <= 7, found


async def test_by_the_engines_limit_where_the_request_has_none(tmp_path: Path) -> None:
    config: Engine = msgspec.structs.replace(QUICK, request_timeout_s=2.0)
    async with running(write_scripts(tmp_path, SLOW), config) as runner:
        await runner.infer(ask(1.0, 1.0))
        found = await fates(runner, ask(1.0, 1.0), 20)
        assert found["at once"] >= 12, found
        assert found["answered"] >= 5, found
        assert found["waited"] <= 2, "those at the brim, for which it was not sure"


async def test_nothing_is_refused_that_may_be_in_time(tmp_path: Path) -> None:
    """Without a limit of its own: even where an estimate with a margin would be above the engine's."""
    config: Engine = msgspec.structs.replace(QUICK, request_timeout_s=1.6)
    async with running(write_scripts(tmp_path, SLOW), config) as runner:
        await runner.infer(ask(1.0, 1.0))
        assert await fates(runner, ask(1.0, 1.0), 4) == {"answered": 4}  # 1.2 s


async def test_a_queue_for_one_rung_keeps_nobody_from_another(tmp_path: Path) -> None:
    async with running(write_scripts(tmp_path, {**SLOW, "small": {}}), first="small") as runner:
        await runner.infer(ask(1.0, 1.0, rung="big"))
        slow = [asyncio.create_task(runner.infer(ask(1.0, 1.0, rung="big"))) for _ in range(3)]
        await asyncio.sleep(0.02)
        found = await fates(runner, ask(1.0, 1.0, rung="small", timeout_s=0.2), 6)
        assert found == {"answered": 6}
        await asyncio.gather(*slow)
