import asyncio
import time

import pytest

from flyball.engine.deadlines import Deadlines
from flyball.errors import DeadlineError

pytestmark = pytest.mark.anyio


async def test_each_runs_out_at_its_own_time_whatever_the_order_they_came_in() -> None:
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    now_s = time.monotonic()
    ended: list[tuple[str, float]] = []
    futures = {}
    for name, limit_s in (("late", 0.2), ("soon", 0.05), ("middle", 0.12), ("past", -1.0)):
        future: asyncio.Future[None] = loop.create_future()
        future.add_done_callback(lambda _, name=name: ended.append((name, time.monotonic() - now_s)))
        deadlines.add(future, now_s + limit_s, limit_s)
        futures[name] = future
    found = await asyncio.gather(*futures.values(), return_exceptions=True)
    assert [name for name, _ in ended] == ["past", "soon", "middle", "late"]
    for name, after_s in ended[1:]:
        limit_s = {"late": 0.2, "soon": 0.05, "middle": 0.12}[name]
        assert after_s >= limit_s - 0.002, "never early but for the loop's millisecond"
    assert all(isinstance(error, DeadlineError) for error in found)
    assert "no answer within 0.05 s" in str(found[1])
    assert not deadlines._due
    assert deadlines._timer is None


async def test_what_came_to_its_end_is_left_alone_and_the_timer_ends_with_the_last() -> None:
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[int] = loop.create_future()
    waiting: asyncio.Future[int] = loop.create_future()
    deadlines.add(answered, time.monotonic() + 0.02, 0.02)
    deadlines.add(waiting, time.monotonic() + 5.0, 5.0)
    answered.set_result(1)
    deadlines.discard(answered)
    deadlines.discard(answered)
    await asyncio.sleep(0.05)
    assert answered.result() == 1
    assert not waiting.done()
    assert deadlines._timer is not None, "set for the one that is left"
    deadlines.discard(waiting)
    deadlines.close()


async def test_one_that_was_answered_but_not_yet_discarded_keeps_its_answer() -> None:
    deadlines = Deadlines()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    deadlines.add(future, time.monotonic() + 0.01, 0.01)
    future.set_result(1)
    await asyncio.sleep(0.03)
    assert future.result() == 1
