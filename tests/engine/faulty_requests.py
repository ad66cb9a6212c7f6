"""Requests to the faulty backend's ladders, and what their answers mean."""

import struct

from flyball.ports import Answer, InferRequest, Tensor


def ask(*values: float, rung: str | None = None, timeout_s: float | None = None) -> InferRequest:
    data = struct.pack(f"<{len(values)}f", *values)
    return InferRequest(inputs=(Tensor("x", "FP32", (1, len(values)), data),), rung=rung, timeout_s=timeout_s)


def values(answer: Answer) -> list[float]:
    data = bytes(answer.outputs[0].data)
    return list(struct.unpack(f"<{len(data) // 4}f", data))
