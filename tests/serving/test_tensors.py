"""Tensor elements in JSON and back, bit for bit."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from flyball.errors import RequestError
from flyball.serving.tensors import DATATYPES, ITEM_BYTES, check_bytes, elements, pack, pack_bytes, plain, plain_bytes

NUMPY = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip


def of(datatype: str) -> np.dtype[Any]:
    return np.dtype(NUMPY[datatype]).newbyteorder("<")


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, NDArray[Any]]:
    datatype = draw(st.sampled_from(sorted(NUMPY)))
    kind = of(datatype)
    finite: dict[str, Any] = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else {}
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    return datatype, draw(hnp.arrays(kind, shape, elements=hnp.from_dtype(kind, **finite)))


def test_every_datatype_of_the_protocol_is_known() -> None:
    assert set(DATATYPES) == {*NUMPY, "BYTES"}
    assert {name: of(name).itemsize for name in NUMPY} == ITEM_BYTES


@given(arrays(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_json_and_back_gives_the_same_bits(given_array: tuple[str, NDArray[Any]], nested: bool) -> None:
    datatype, array = given_array
    text = msgspec.json.encode(array.tolist() if nested else plain(datatype, array.tobytes()))
    assert pack(datatype, array.shape, text) == array.tobytes()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_an_fp32_is_written_as_the_double_of_the_same_value(value: float) -> None:
    (written,) = json.loads(msgspec.json.encode(plain("FP32", struct.pack("<f", value))))
    assert struct.pack("<f", written) == struct.pack("<f", value)
    assert written == value


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_bytes_and_back(given_elements: list[bytes]) -> None:
    data = b"".join(struct.pack("<I", len(e)) + e for e in given_elements)
    check_bytes(memoryview(data), len(given_elements))
    assert elements(data) == given_elements
    strings, encoded = plain_bytes(data)
    assert pack_bytes((len(given_elements),), msgspec.json.encode(strings), encoded) == data


def test_text_of_many_pieces_is_packed_as_one() -> None:
    array = np.arange(300_000, dtype="<f8").reshape(3, 100, 1000) / 7  # 5 MB of text: some twenty pieces
    assert pack("FP64", array.shape, json.dumps(array.tolist()).encode()) == array.tobytes()


def test_blanks_and_line_ends_do_not_matter() -> None:
    assert pack("INT8", (2, 2), b"[ [ 1 , -2 ]\n,\t[3,4 ] ]") == bytes([1, 254, 3, 4])


@pytest.mark.parametrize("text", ["[]", "[[],[]]", "[ ]"])
def test_a_tensor_without_elements(text: str) -> None:
    shape = (2, 0, 10**12) if "[[" in text else (0, 10**12)
    assert pack("FP32", shape, text.encode()) == b""


def test_a_scalar_is_a_list_of_one() -> None:
    assert pack("UINT8", (), b"[7]") == b"\x07"


@pytest.mark.parametrize(
    ("datatype", "shape", "text", "says"),
    [
        ("UINT8", (2,), "[1,256]", "element 1: 256 does not fit UINT8"),
        ("UINT8", (1,), "[-1]", "0 to 255"),
        ("INT64", (1,), "[9223372036854775808]", "does not fit INT64"),
        ("UINT64", (1,), "[" + "9" * 4000 + "]", "does not fit UINT64"),
        ("UINT64", (1,), "[" + "9" * 5000 + "]", "element 0"),
        ("INT32", (2,), "[1,2.5]", "element 1: expected whole numbers"),
        ("INT32", (1,), "[1e3]", "expected whole numbers"),
        ("INT32", (1,), "[true]", "expected whole numbers"),
        ("INT32", (1,), "[null]", "expected whole numbers"),
        ("BOOL", (1,), "[1]", "expected true or false"),
        ("FP16", (1,), "[65520]", "does not fit FP16"),
        ("FP32", (1,), "[3.5e38]", "does not fit FP32"),
        ("FP64", (1,), "[1e309]", "out of range"),
        ("FP32", (1,), '["1"]', "found a string"),
        ("FP32", (1,), "[{}]", "found an object"),
        ("FP32", (1,), "5", "expected a list"),
        ("FP32", (1,), '"5"', "expected a list"),
        ("FP32", (2, 2), "[[1,2],[3]]", "ragged"),
        ("FP32", (2, 2), "[[1,2,3],[4]]", "ragged"),
        ("FP32", (2, 2), "[[1,2],3,4]", "ragged"),
        ("FP32", (2, 2), "[[[1],[2]],[[3],[4]]]", "expected 4 elements"),
        ("FP32", (3, 2), "[[1,2,3],[4,5,6]]", "expected 6 elements"),
        ("FP32", (2,), "[1]", "found a flat list of 1"),
        ("FP32", (2,), "[]", "found a flat list of 0"),
        ("FP32", (0,), "[1]", "found a flat list of 1"),
        ("FP32", (10**15,), "[1]", "expected 1000000000000000 elements"),
        ("FP32", (10**9, 10**9), "[[1]]", "expected 1000000000000000000 elements"),
    ],
)
def test_refused_numbers(datatype: str, shape: tuple[int, ...], text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        pack(datatype, shape, text.encode())


def test_the_index_of_a_bad_element_counts_from_the_start_of_the_tensor() -> None:
    values: list[object] = [0] * 400_000
    values[399_999] = 300
    with pytest.raises(RequestError, match="element 399999: 300 does not fit"):
        pack("UINT8", (400_000,), json.dumps(values).encode())
    values[399_998] = 1.5
    with pytest.raises(RequestError, match="element 399998: expected whole"):
        pack("UINT8", (400_000,), json.dumps(values).encode())


@pytest.mark.parametrize(
    ("shape", "text", "encoded", "says"),
    [
        ((1,), '["a b"]', True, "expected base64"),
        ((1,), '["YQ"]', True, "expected base64"),
        ((1,), '["é"]', True, "expected base64"),
        ((1,), "[1]", False, "element 0: expected a string, found 1"),
        ((2,), '["a"]', False, "expected 2 strings, found 1"),
        ((2, 2), '[["a","b"],["c"]]', False, "nested as"),
        ((2, 2), '[["a","b"],"c","d"]', False, "nested as"),
        ((1,), '"a"', False, "expected a list of strings"),
        ((1,), '["\\ud800"]', False, "not valid JSON"),
    ],
)
def test_refused_strings(shape: tuple[int, ...], text: str, encoded: bool, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        pack_bytes(shape, text.encode(), encoded)


def test_strings_flat_or_nested_and_base64() -> None:
    flat = pack_bytes((2, 1), b'["a","\xc3\xa9"]', False)
    assert flat == b"\1\0\0\0a\2\0\0\0\xc3\xa9"
    assert pack_bytes((2, 1), b'[["a"],["\xc3\xa9"]]', False) == flat
    text = json.dumps([base64.b64encode(b"\xff\xd8").decode()]).encode()
    assert pack_bytes((1,), text, True) == b"\2\0\0\0\xff\xd8"


@pytest.mark.parametrize(
    ("data", "count", "says"),
    [
        (b"", 1, "element 0"),
        (b"\5\0\0\0abc", 1, "element 0"),
        (b"\1\0\0\0a\1\0", 2, "element 1"),
        (b"\xff\xff\xff\xff", 1, "element 0"),
        (b"\1\0\0\0aXY", 1, "found 2 more bytes"),
    ],
)
def test_refused_bytes(data: bytes, count: int, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        check_bytes(memoryview(data), count)


@pytest.mark.parametrize(("datatype", "code"), [("FP16", "e"), ("FP32", "f"), ("FP64", "d")])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_refused(datatype: str, code: str, value: float) -> None:
    with pytest.raises(RequestError, match=r"element 1 is .*binary"):
        plain(datatype, struct.pack(f"<2{code}", 1.0, value))


def test_finite_values_whose_sum_overflows_are_no_infinity() -> None:
    assert plain("FP64", struct.pack("<2d", 1.7e308, 1.7e308)) == (1.7e308, 1.7e308)
