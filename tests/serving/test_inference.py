"""Inference requests and answers: binary, JSON, raw, and everything that is wrong with one."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import IMAGE

from flyball.errors import RequestError
from flyball.ports import Interface, PublicTensor, Tensor
from flyball.serving.inference import Call, decode

PAIR = Interface(
    task="tensor",
    inputs=(
        PublicTensor(name="a", datatype="FP32", shape=(2, -1)),
        PublicTensor(name="b", datatype="INT16", shape=(2,)),
    ),
    outputs=(
        PublicTensor(name="y", datatype="FP32", shape=(-1,)),
        PublicTensor(name="names", datatype="BYTES", shape=(-1,)),
    ),
)
A = struct.pack("<4f", 0.1, -2.5, 3e38, 4)
B = struct.pack("<2h", -1, 300)


def wire(name: str, datatype: str, shape: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def binary(name: str, datatype: str, shape: list[Any], size: Any) -> dict[str, Any]:
    return wire(name, datatype, shape, parameters={"binary_data_size": size})


GOOD_A, GOOD_B = binary("a", "FP32", [2, 2], 16), binary("b", "INT16", [2], 4)


def request(inputs: list[Any], tail: bytes = b"", interface: Interface = PAIR, **more: Any) -> Call:
    head = json.dumps({"inputs": inputs, **more}).encode()
    return decode(head + tail, len(head) if tail or more.pop("with_header", False) else None, interface)


def test_binary_tensors_in_any_order_are_views_into_the_body() -> None:
    head = json.dumps({"inputs": [GOOD_B, GOOD_A]}).encode()
    body = bytearray(head + B + A)
    tensors = {t.name: t for t in decode(body, len(head), PAIR).request.inputs}
    assert bytes(tensors["a"].data) == A
    assert bytes(tensors["b"].data) == B
    assert isinstance(tensors["a"].data, memoryview)
    assert tensors["a"].data.obj is body


def test_json_and_binary_requests_give_the_same_bytes() -> None:
    json_call = request(
        [
            wire("a", "FP32", [2, 2], data=[[0.1, -2.5], [3e38, 4]]),
            wire("b", "INT16", [2], data=[-1, 300]),
        ]
    )
    binary_call = request([GOOD_A, GOOD_B], A + B)
    for one, other in zip(json_call.request.inputs, binary_call.request.inputs, strict=True):
        assert (one.name, one.datatype, one.shape, bytes(one.data)) == (
            other.name,
            other.datatype,
            other.shape,
            bytes(other.data),
        )


def test_json_beside_binary() -> None:
    call = request([wire("b", "INT16", [2], data=[-1, 300]), GOOD_A], A)
    assert [bytes(t.data) for t in call.request.inputs] == [B, A]


def test_parameters() -> None:
    parameters = {"rung": "small", "timeout": 1500, "unknown": {"left": "alone"}}
    call = request([GOOD_A, GOOD_B], A + B, id="q1", parameters=parameters)
    assert (call.id, call.request.rung, call.request.timeout_s) == ("q1", "small", 0.0015)
    assert call.outputs == (("y", False), ("names", False))
    assert request([GOOD_A, GOOD_B], A + B, parameters={"timeout": 0}).request.timeout_s is None
    assert request([GOOD_A, GOOD_B], A + B, parameters={"priority": 1}).request.priority == 1
    assert request([GOOD_A, GOOD_B], A + B, parameters={"priority": 0}).request.priority is None


def test_outputs_are_chosen_one_by_one() -> None:
    outputs = [{"name": "names"}, {"name": "y", "parameters": {"binary_data": False}}]
    call = request([GOOD_A, GOOD_B], A + B, outputs=outputs, parameters={"binary_data_output": True})
    assert call.outputs == (("names", True), ("y", False))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([GOOD_A], "input 'b' is missing"),
        ([GOOD_A, GOOD_B, binary("c", "FP32", [1], 4)], "input 'c' is unknown"),
        ([GOOD_A, GOOD_A], "input 'a' stands twice"),
        ([binary("a", "FP64", [2, 2], 16), GOOD_B], r"expected FP32 \[2, -1\].*found FP64 \[2, 2\]"),
        ([binary("a", "FP32", [4], 16), GOOD_B], r"found FP32 \[4\]"),
        ([binary("a", "FP32", [3, 2], 16), GOOD_B], r"found FP32 \[3, 2\]"),
        ([binary("a", "FP32", [2, -2], 16), GOOD_B], r"found FP32 \[2, -2\]"),
        ([binary("a", "FP32", [2, -1], 16), GOOD_B], r"found FP32 \[2, -1\]"),
        ([binary("a", "FP32", [2] * 10_000, 16), GOOD_B], "of rank 10000"),
        ([binary("a", "FP32", [2, 3], 16), GOOD_B], "is 24 bytes; binary_data_size is 16"),
        ([binary("a", "FP32", [2, 2**62], 16), GOOD_B], "expected sizes up to 2147483647"),
        ([binary("a", "FP32", [2, 2**30], 16), GOOD_B], "binary_data_size is 16"),
        ([binary("a", "FP32", [2, 2], -16), GOOD_B], "expected a number of bytes, found -16"),
        ([binary("a", "FP32", [2, 2], 10**30), GOOD_B], "only 20 bytes are left"),
        ([binary("a", "FP32", [2, 2], 17), GOOD_B], "binary_data_size is 17"),
        ([binary("a", "FP32", [2, 1], 8), GOOD_B], "20 bytes follow the JSON.* add up to 12"),
        ([binary("a", "FP32", [2, 2], "16"), GOOD_B], r"Expected `int \| null`, got `str`.*inputs"),
        ([{**GOOD_A, "data": [1]}, GOOD_B], "both `data` and binary_data_size"),
        ([wire("a", "FP32", [2, 2]), GOOD_B], "`data` is missing"),
        ([wire("a", "FP32", [2, 2], parameters={"shared_memory_region": "r"}), GOOD_B], "shared memory"),
        ([wire("a", "FP32", [2, 2], data=[1, 2, 3]), GOOD_B], "input 'a': data: expected 4 elements"),
        ([wire("a", "FP32", [2.5, 2], data=[1]), GOOD_B], "Expected `int`"),
        ([wire("a", "FP32", [10**40, 2], data=[1]), GOOD_B], "expected sizes up to 2147483647, found one of 1000"),
        (["a"], "Expected `object`"),
        ("a", "Expected `array`"),
    ],
)
def test_refused_inputs(inputs: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        request(inputs, A + B)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"outputs": [{"name": "z"}]}, "output 'z' is unknown; this ladder gives y, names"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "output 'y' stands twice"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "classification"),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
        ({"parameters": {"timeout": -1}}, "timeout"),
        ({"parameters": {"timeout": 10**400}}, "timeout"),
        ({"parameters": {"priority": 10**400}}, "priority"),
        ({"parameters": {"priority": -1}}, "priority"),
        ({"parameters": {"timeout": "soon"}}, "timeout"),
        ({"parameters": {"sequence_id": 4}}, "no state"),
        ({"parameters": {"rung": 3}}, "rung"),
        ({"id": 3}, "Expected `str"),
    ],
)
def test_refused_wishes(more: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        request([GOOD_A, GOOD_B], A + B, **more)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not valid JSON"),
        (b"{}", "missing required field `inputs`"),
        (b"[1]", "Expected `object`"),
        (b'{"inputs":[' + b"[" * 10_000_000, "nested too deeply|does not fit|not valid JSON"),
        (b'{"inputs":[{"name":"a","datatype":"FP32","shape":[2,2],"data":' + b"[" * 10_000_000, "nested too deeply"),
        (b'{"inputs":[{"name":"a\xff","datatype":"FP32","shape":[2,2]}]}', "not UTF-8"),
        (b'{"inputs":[{"name":"a","datatype":"FP32","shape":[2,2],"data":[NaN,1,1,1]}]}', "NaN and infinity"),
        (b'{"inputs":[{"name":"a","datatype":"FP32","shape":[2,' + b"9" * 5000 + b"]}]}", "out of range"),
        (b'{"inputs":[]} {}', "not valid JSON"),
    ],
)
def test_refused_json(text: bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        decode(text, None, PAIR)


def test_of_a_key_that_stands_twice_the_last_one_counts() -> None:
    text = b'{"inputs":[{"name":"image","name":"image","datatype":"BYTES","shape":[9],"shape":[1],"data":["x"]}]}'
    assert decode(text, None, IMAGE).request.inputs[0].shape == (1,)


def test_the_header_cannot_reach_beyond_the_body() -> None:
    with pytest.raises(RequestError, match="is 3, but the body has only 2"):
        decode(b"{}", 3, PAIR)


def test_binary_sizes_need_the_header() -> None:
    head = json.dumps({"inputs": [GOOD_A, GOOD_B]}).encode()
    with pytest.raises(RequestError, match="needs the header"):
        decode(head, None, PAIR)


def test_bytes_after_pure_json_are_refused() -> None:
    with pytest.raises(RequestError, match="4 bytes follow the JSON"):
        request([wire("image", "BYTES", [1], data=["x"])], b"1234", IMAGE)


# ------------------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("content_type", ["base64", "image/jpeg"])
def test_an_encoded_image_in_json(content_type: str) -> None:
    text = base64.b64encode(b"\xff\xd8jpeg").decode()
    image = wire("image", "BYTES", [1], data=[text], parameters={"content_type": content_type})
    assert bytes(request([image], interface=IMAGE).request.inputs[0].data) == b"\6\0\0\0\xff\xd8jpeg"


def test_an_encoded_image_in_binary() -> None:
    data = b"\6\0\0\0\xff\xd8jpeg"
    call = request([binary("image", "BYTES", [1], len(data))], data, IMAGE)
    assert (call.request.inputs[0].datatype, bytes(call.request.inputs[0].data)) == ("BYTES", data)


def test_an_image_whose_length_lies_is_refused() -> None:
    with pytest.raises(RequestError, match="input 'image': element 0: expected a 4-byte"):
        request([binary("image", "BYTES", [1], 6)], b"\7\0\0\0ab", IMAGE)


def test_a_raw_body_is_an_encoded_image() -> None:
    call = decode(b"\xff\xd8jpeg", 0, IMAGE)
    assert call.request.inputs == (Tensor("image", "BYTES", (1,), b"\6\0\0\0\xff\xd8jpeg"),)
    assert call.outputs == (("scores", True), ("labels", True))


def one(datatype: str, *shape: int) -> Interface:
    tensor = PublicTensor(name="x", datatype=datatype, shape=shape)
    return Interface(task="tensor", inputs=(tensor,), outputs=(tensor,))


def test_a_raw_body_is_a_tensor_with_one_free_size() -> None:
    (tensor,) = decode(bytes(24), 0, one("FP32", 2, -1)).request.inputs
    assert (tensor.datatype, tensor.shape, bytes(tensor.data)) == ("FP32", (2, 3), bytes(24))


@pytest.mark.parametrize(
    ("interface", "body", "says"),
    [
        (PAIR, b"", "this ladder takes a, b"),
        (one("FP32", -1, -1), bytes(8), "several free sizes"),
        (one("FP32", 2, -1), bytes(9), "a multiple of 8 bytes, found 9"),
        (one("FP32", 2, 3), bytes(8), "24 bytes, found 8"),
        (one("FP32", 0, -1), bytes(8), "found 8"),
    ],
)
def test_refused_raw_bodies(interface: Interface, body: bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        decode(body, 0, interface)


@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(0, 320)))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_it_is_decoded_or_refused(body: bytes, header_length: int | None) -> None:
    for interface in (PAIR, IMAGE):
        try:
            decode(body, header_length, interface)
        except RequestError as error:
            assert str(error)  # noqa: PT017 (either outcome is good; any other exception fails the test)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["inputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size"]), inner),
    max_leaves=8,
))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_whatever_stands_in_a_known_key_it_is_decoded_or_refused(value: Any) -> None:
    tensor = {**wire("b", "INT16", [2], data=[1, 2]), "data": value, "parameters": {}}
    for inputs in ([GOOD_A, tensor], [{**GOOD_A, "shape": value}], [{**GOOD_A, "parameters": value}], value):
        try:
            request(inputs, A)
        except RequestError as error:
            assert str(error)  # noqa: PT017 (as above)
