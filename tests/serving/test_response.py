"""Answers in JSON and in binary."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from flyball.errors import RequestError
from flyball.ports import Answer, Interface, PublicTensor, Tensor
from flyball.serving.inference import Call, decode
from flyball.serving.response import encode
from flyball.testing import NO_TIME

PUBLIC = Interface(
    task="tensor",
    inputs=(PublicTensor(name="x", datatype="INT8", shape=(1,)),),
    outputs=(
        PublicTensor(name="y", datatype="FP32", shape=(-1,)),
        PublicTensor(name="names", datatype="BYTES", shape=(-1,)),
    ),
)


def answer(values: bytes, names: bytes = b"\1\0\0\0n") -> Answer:
    outputs = (Tensor("y", "FP32", (len(values) // 4,), values), Tensor("names", "BYTES", (1,), names))
    return Answer(outputs=outputs, rung="small", timing=NO_TIME)


def call(**more: Any) -> Call:
    """Of a request that asks `more`, made as a client's would be."""
    x = {"name": "x", "datatype": "INT8", "shape": [1], "data": [1]}
    return decode(json.dumps({"inputs": [x], **more}).encode(), None, PUBLIC)


def test_a_json_answer() -> None:
    encoded = encode(answer(struct.pack("<2f", 0.1, 2)), call(id="7"), "m", "4")
    assert encoded.header_length is None
    said = json.loads(encoded.body)
    assert (said["model_name"], said["model_version"], said["id"]) == ("m", "4", "7")
    assert said["parameters"]["rung"] == "small"
    scores, names = said["outputs"]
    assert (scores["shape"], [np.float32(v) for v in scores["data"]]) == ([2], [np.float32(0.1), 2])
    assert names == {"name": "names", "datatype": "BYTES", "shape": [1], "data": ["n"]}


def test_a_binary_answer_in_the_order_that_was_asked() -> None:
    values = struct.pack("<2f", float("nan"), 2)
    outputs = [{"name": "names", "parameters": {"binary_data": True}}, {"name": "y", "parameters": {"binary_data": 1}}]
    outputs[1]["parameters"] = {"binary_data": True}
    encoded = encode(answer(values), call(outputs=outputs), "m", "4")
    head = json.loads(encoded.body[: encoded.header_length])
    assert [o["parameters"]["binary_data_size"] for o in head["outputs"]] == [5, 8]
    assert "id" not in head
    assert encoded.body[encoded.header_length :] == b"\1\0\0\0n" + values


def test_an_output_that_is_not_utf8_goes_out_as_base64() -> None:
    said = json.loads(encode(answer(b"", b"\1\0\0\0\xff"), call(), "m", "4").body)["outputs"][1]
    assert (said["parameters"], said["data"]) == ({"content_type": "base64"}, ["/w=="])


def test_nan_is_refused_in_json_with_the_way_out() -> None:
    with pytest.raises(RequestError, match=r"output 'y': element 0 is nan.*binary_data_output"):
        encode(answer(struct.pack("<f", float("nan"))), call(), "m", "4")
