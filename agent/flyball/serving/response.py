"""One inference answer, from ports values to the bytes of an HTTP body.

Answer + what its Call asked for -> encode -> JSON, then the binary tensors -> Encoded

Open Inference Protocol v2 with the binary tensor extension; the counterpart of inference.py. Never rounds a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flyball.errors import RequestError
from flyball.ports import Answer, Tensor
from flyball.serving.inference import Call
from flyball.serving.tensors import plain, plain_bytes


class _OutputHead(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Mapping[str, int | str] | None = None
    data: Sequence[float] | Sequence[str] | None = None


class _AnswerParameters(msgspec.Struct):
    rung: str
    queue_ns: int
    pre_ns: int
    run_ns: int
    post_ns: int
    total_ns: int


class _AnswerHead(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    parameters: _AnswerParameters
    outputs: list[_OutputHead]
    id: str | None = None


_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A response body; `header_length` is the length of its JSON when binary tensors follow, else None."""

    body: bytes
    header_length: int | None


def encode(answer: Answer, call: Call, model: str, version: str) -> Encoded:
    """Raises RequestError when an output cannot be said in JSON and was not asked for in binary."""
    given = {t.name: t for t in answer.outputs}
    heads: list[_OutputHead] = []
    tail: list[bytes | bytearray | memoryview] = [b""]
    for name, binary in call.outputs:
        tensor = given[name]
        if binary:
            heads.append(
                _OutputHead(name, tensor.datatype, tensor.shape, {"binary_data_size": len(memoryview(tensor.data))})
            )
            tail.append(tensor.data)
        else:
            heads.append(_json_output(tensor))
    timing = answer.timing
    head = _encoder.encode(
        _AnswerHead(
            model_name=model,
            model_version=version,
            parameters=_AnswerParameters(
                answer.rung,
                int(timing.queue_s * 1e9),
                int(timing.pre_s * 1e9),
                int(timing.run_s * 1e9),
                int(timing.post_s * 1e9),
                int(timing.total_s * 1e9),
            ),
            outputs=heads,
            id=call.id,
        )
    )
    if len(tail) == 1:
        return Encoded(head, None)
    tail[0] = head
    return Encoded(b"".join(tail), len(head))


def _json_output(tensor: Tensor) -> _OutputHead:
    try:
        if tensor.datatype != "BYTES":
            return _OutputHead(tensor.name, tensor.datatype, tensor.shape, None, plain(tensor.datatype, tensor.data))
        strings, encoded = plain_bytes(tensor.data)
    except RequestError as error:
        raise RequestError(f"output {tensor.name!r}: {error}") from None
    parameters = {"content_type": "base64"} if encoded else None
    return _OutputHead(tensor.name, tensor.datatype, tensor.shape, parameters, strings)
