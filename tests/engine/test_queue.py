"""The queue for slots: by priority, then by deadline, bounded, and no slot is ever lost."""

import asyncio

import pytest

from flyball.engine.queue import DEFAULT_PRIORITY, SlotQueue, Urgency
from flyball.errors import DeadlineError, QueueFullError

pytestmark = pytest.mark.anyio


def urgency(seconds: float = 1.0, priority: int = DEFAULT_PRIORITY) -> Urgency:
    return Urgency(priority, asyncio.get_running_loop().time() + seconds)


async def order_of(queue: SlotQueue, urgencies: list[Urgency]) -> list[int]:
    """In which order those who wait are served, once the only slot comes free."""
    slot = await queue.take(urgency())
    served: list[int] = []

    async def wait(number: int, how: Urgency) -> None:
        mine = await queue.take(how)
        served.append(number)
        queue.give(mine)

    waiting = [asyncio.create_task(wait(n, u)) for n, u in enumerate(urgencies)]
    await asyncio.sleep(0)
    queue.give(slot)
    await asyncio.gather(*waiting)
    return served


async def test_equals_are_served_first_come_first_served() -> None:
    same = urgency()
    assert await order_of(SlotQueue(1, limit=5), [same] * 5) == [0, 1, 2, 3, 4]


async def test_the_earlier_deadline_goes_first() -> None:
    assert await order_of(SlotQueue(1, limit=3), [urgency(3), urgency(1), urgency(2)]) == [1, 2, 0]


async def test_priority_goes_before_deadline() -> None:
    assert await order_of(SlotQueue(1, limit=3), [urgency(1), urgency(9, priority=1), urgency(5, priority=2)]) == [
        1,
        2,
        0,
    ]


async def test_a_full_queue_refuses_and_says_what_to_do() -> None:
    queue = SlotQueue(1, limit=1)
    await queue.take(urgency())
    waiting = asyncio.create_task(queue.take(urgency()))
    await asyncio.sleep(0)
    assert queue.pending() == 2
    with pytest.raises(QueueFullError, match="queue_limit"):
        await queue.take(urgency(0.5))
    waiting.cancel()


async def test_a_full_queue_gives_up_its_last_for_a_higher_priority() -> None:
    queue = SlotQueue(1, limit=1)
    slot = await queue.take(urgency())
    ordinary = asyncio.create_task(queue.take(urgency()))
    await asyncio.sleep(0)
    urgent = asyncio.create_task(queue.take(urgency(priority=1)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await ordinary
    queue.give(slot)
    assert await urgent == slot


async def test_waiting_ends_at_the_deadline() -> None:
    queue = SlotQueue(1, limit=3)
    slot = await queue.take(urgency())
    with pytest.raises(DeadlineError):
        await queue.take(urgency(0.01))
    assert queue.pending() == 1
    queue.give(slot)
    assert await queue.take(urgency(0.01)) == slot


async def test_a_slot_handed_to_one_who_has_just_left_is_not_lost() -> None:
    queue = SlotQueue(1, limit=3)
    slot = await queue.take(urgency())
    task = asyncio.create_task(queue.take(urgency()))
    await asyncio.sleep(0)
    queue.give(slot)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await queue.take(urgency(0.1)) == slot


async def test_one_who_leaves_while_waiting_is_no_longer_counted() -> None:
    queue = SlotQueue(1, limit=1)
    await queue.take(urgency())
    task = asyncio.create_task(queue.take(urgency()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert queue.pending() == 1


async def test_ahead_counts_those_that_are_more_urgent_and_wait_for_the_same_rung() -> None:
    queue = SlotQueue(1, limit=5)
    assert queue.ahead_of(urgency(2.0), "a") == 0
    await queue.take(urgency())
    waiting = [
        asyncio.create_task(queue.take(urgency(s), rung))
        for s, rung in ((1.0, "a"), (3.0, "a"), (1.0, "b"), (1.5, "a"))
    ]
    await asyncio.sleep(0)
    assert queue.ahead_of(urgency(2.0), "a") == 2
    assert queue.ahead_of(urgency(2.0), "b") == 1
    assert queue.ahead_of(urgency(2.0), "c") == 0
    assert queue.ahead_of(urgency(2.0, priority=1), "a") == 0
    for task in waiting:
        task.cancel()
