"""Requests to the faulty backend's ladders, and what their answers mean."""

import asyncio
import struct
import time
from collections.abc import Callable

from flyball.engine.runner import LadderRunner
from flyball.ports import Answer, InferRequest, Tensor


def ask(*values: float, rung: str | None = None, timeout_s: float | None = None) -> InferRequest:
    data = struct.pack(f"<{len(values)}f", *values)
    return InferRequest(inputs=(Tensor("x", "FP32", (1, len(values)), data),), rung=rung, timeout_s=timeout_s)


def values(answer: Answer) -> list[float]:
    data = bytes(answer.outputs[0].data)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


async def until(reached: Callable[[], bool], limit_s: float = 5.0, tend: LadderRunner | None = None) -> None:
    end_s = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < end_s, "not reached in time"
        if tend is not None:
            tend.tend()
        await asyncio.sleep(0.02)
