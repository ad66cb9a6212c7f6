"""The queue for slots: fair, bounded, and no slot is ever lost."""

import asyncio

import pytest

from flyball.engine.queue import SlotQueue
from flyball.errors import DeadlineError, QueueFullError


@pytest.mark.anyio
async def test_first_come_first_served() -> None:
    queue = SlotQueue(1, limit=3)
    assert await queue.take(1) == 0
    order: list[int] = []

    async def wait(number: int) -> None:
        slot = await queue.take(1)
        order.append(number)
        queue.give(slot)

    waiting = [asyncio.create_task(wait(n)) for n in range(3)]
    await asyncio.sleep(0)
    assert queue.pending() == 4
    with pytest.raises(QueueFullError, match="queue_limit"):
        await queue.take(1)
    queue.give(0)
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
    assert queue.pending() == 0


@pytest.mark.anyio
async def test_waiting_ends_at_the_deadline() -> None:
    queue = SlotQueue(1, limit=3)
    await queue.take(1)
    with pytest.raises(DeadlineError):
        await queue.take(0.01)
    queue.give(0)
    assert await queue.take(0.01) == 0


@pytest.mark.anyio
async def test_a_slot_handed_to_one_who_has_just_left_is_not_lost() -> None:
    queue = SlotQueue(1, limit=3)
    slot = await queue.take(1)
    task = asyncio.create_task(queue.take(1))
    await asyncio.sleep(0)
    queue.give(slot)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await queue.take(0.1) == slot
