"""Tensor elements between JSON text and the bytes of ports.Tensor, without NumPy (the daemon never loads it).

JSON text -> pack/pack_bytes -> little-endian bytes;  bytes -> plain/plain_bytes -> values that msgspec writes

JSON numbers are exact: an FP16 or FP32 is written as the double of the same value, so that reading it back as that
type gives the same bits. JSON has no NaN and no infinity: such a tensor is refused in JSON, never rounded to null,
and travels in binary. Text is packed in pieces, so that a large tensor never exists as Python objects at once.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from flyball.errors import RequestError

_PIECE = 1 << 18  # characters of JSON decoded at once: about 4 MB of Python objects at most


class _Kind(NamedTuple):
    size: int
    code: str  # of struct
    decoder: msgspec.json.Decoder[Any]
    words: str  # for messages


def _kinds() -> dict[str, _Kind]:
    truth, whole, real = (msgspec.json.Decoder(list[t]) for t in (bool, int, float))  # type: ignore[valid-type]
    kinds = {"BOOL": _Kind(1, "?", truth, "true or false")}
    for code, bits in (("b", 8), ("h", 16), ("i", 32), ("q", 64)):
        half = 1 << (bits - 1)
        kinds[f"INT{bits}"] = _Kind(bits // 8, code, whole, f"whole numbers from {-half} to {half - 1}")
        kinds[f"UINT{bits}"] = _Kind(bits // 8, code.upper(), whole, f"whole numbers from 0 to {2 * half - 1}")
    for code, bits, largest in (("e", 16, "65504"), ("f", 32, "3.4e38"), ("d", 64, "1.8e308")):
        kinds[f"FP{bits}"] = _Kind(bits // 8, code, real, f"numbers up to {largest} (NaN and infinity: use binary)")
    return kinds


_KINDS = _kinds()
ITEM_BYTES = {name: kind.size for name, kind in _KINDS.items()}  # BYTES has no fixed size
DATATYPES = (*ITEM_BYTES, "BYTES")
_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))
_INDEX = re.compile(r" - at `\$\[(\d+)\]`$")


def pack(datatype: str, shape: Sequence[int], text: bytes) -> bytes:
    """A JSON list, flat or nested like `shape`, of any datatype but BYTES. Raises RequestError."""
    kind = _KINDS[datatype]
    count = math.prod(shape)
    _check_structure(text, shape, count, kind.words)
    if count == 0:
        return b""
    flat = text.translate(None, b"[]")
    if len(flat) <= _PIECE:
        return _pack_piece(kind, b"[%b]" % flat, datatype, 0)
    packed = bytearray()
    start = 0
    while start < len(flat):
        end = flat.find(b",", start + _PIECE)
        end = len(flat) if end < 0 else end
        packed += _pack_piece(kind, b"[%b]" % flat[start:end], datatype, len(packed) // kind.size)
        start = end + 1
    return bytes(packed)


def _check_structure(text: bytes, shape: Sequence[int], count: int, words: str) -> None:
    """Brackets and commas must be those of a flat list or of exactly `shape`; `text` is known to be a JSON value."""
    if not text.startswith(b"["):
        raise RequestError(f"data: expected a list of {words}")
    for mark, found in ((b'"', "a string"), (b"{", "an object")):
        if mark in text:
            raise RequestError(f"data: expected {words}, found {found}")
    structure = text.translate(None, _ALL_BUT_STRUCTURE)
    if not count:
        shape = shape[: list(shape).index(0) + 1]  # what lies under a size of 0 is not there, however large
    # Lengths first: the structure of a shape such as [10**12] must not be spelled out.
    if len(structure) == max(count, 1) + 1 and b"[" not in structure[1:]:
        if bool(count) == bool(text[1:-1].strip()):
            return
    elif len(structure) == _structure_length(shape) and structure == _structure(shape):
        return
    flat = b"[" not in structure[1:]
    length = structure.count(b",") + bool(text[1:-1].strip())
    seen = f"found a flat list of {length}" if flat else "found nested lists of another structure (ragged?)"
    raise RequestError(f"data: expected {count} elements, in a flat list or nested like the shape; {seen}")


def _structure_length(shape: Sequence[int]) -> int:
    length = 0  # of an element
    for size in reversed(shape):
        length = 2 + size * length + max(size - 1, 0)
    return length


def _structure(shape: Sequence[int]) -> bytes:
    inner = b""
    for size in reversed(shape):
        inner = b"[%b]" % b",".join([inner] * size)
    return inner


def _pack_piece(kind: _Kind, text: bytes, datatype: str, offset: int) -> bytes:
    try:
        values = kind.decoder.decode(text)
    except msgspec.DecodeError as error:
        index = _INDEX.search(str(error))
        place = f"element {offset + int(index[1])}: " if index else ""
        raise RequestError(f"data: {place}expected {kind.words}; {_INDEX.sub('', str(error))}") from None
    try:
        return struct.pack(f"<{len(values)}{kind.code}", *values)
    except (struct.error, OverflowError):
        index_of_first = next(i for i, v in enumerate(values) if not _fits(kind, v))
        raise RequestError(
            f"data: element {offset + index_of_first}: {_short(values[index_of_first])} does not fit {datatype}, "
            f"which holds {kind.words}"
        ) from None


def _fits(kind: _Kind, value: float) -> bool:
    try:
        struct.pack("<" + kind.code, value)
    except (struct.error, OverflowError):
        return False
    return True


def pack_bytes(shape: Sequence[int], text: bytes, encoded: bool) -> bytes:
    """A JSON list of strings as BYTES elements: their UTF-8, or with `encoded` what their base64 stands for.
    Raises RequestError."""
    count = math.prod(shape)
    try:
        elements = _flatten(msgspec.json.decode(text), shape, count)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"data: not valid JSON: {error}") from None
    parts: list[bytes] = []
    for index, element in enumerate(elements):
        data = _decode_base64(index, element) if encoded else element.encode()
        parts += (struct.pack("<I", len(data)), data)
    return b"".join(parts)


def _flatten(value: Any, shape: Sequence[int], count: int) -> list[str]:
    level = value if isinstance(value, list) else [value]
    if not isinstance(value, list) or any(isinstance(v, list) for v in level):
        level = [value]
        for size in shape:
            if not all(isinstance(v, list) and len(v) == size for v in level):
                raise RequestError(f"data: expected a list of strings, flat or nested as {list(shape)}")
            level = [item for v in level for item in v]
    if len(level) != count:
        raise RequestError(f"data: expected {count} strings, found {len(level)}")
    for index, element in enumerate(level):
        if not isinstance(element, str):
            raise RequestError(f"data: element {index}: expected a string, found {_short(element)}")
    return level


def _decode_base64(index: int, element: str) -> bytes:
    try:
        return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            f"data: element {index}: expected base64, as the parameter content_type says: {error}"
        ) from None


def check_bytes(data: memoryview, count: int) -> None:
    """Whether `data` holds `count` elements, each a 4-byte length and so many bytes. Raises RequestError."""
    position, size = 0, len(data)
    for index in range(count):
        end = position + 4
        if end <= size:
            position = end + int.from_bytes(data[position:end], "little")
        if end > size or position > size:
            raise RequestError(
                f"element {index}: expected a 4-byte little-endian length and so many bytes; "
                f"the {size} bytes of the tensor end before that"
            )
    if position != size:
        raise RequestError(f"expected {count} elements of 4-byte length and data, found {size - position} more bytes")


def plain(datatype: str, data: bytes | bytearray | memoryview) -> tuple[float, ...]:
    """The elements, for JSON. Raises RequestError for what JSON cannot say: NaN and infinity."""
    kind = _KINDS[datatype]
    values: tuple[float, ...] = struct.unpack(f"<{len(data) // kind.size}{kind.code}", data)
    # One pass in C: a sum is finite unless an element is not, or (FP64 only) unless it overflows.
    if kind.code in "efd" and not math.isfinite(sum(values)):
        for index, value in enumerate(values):
            if not math.isfinite(value):
                raise RequestError(
                    f"element {index} is {value}, which JSON cannot say: ask for binary "
                    'outputs (the request parameter "binary_data_output": true)'
                )
    return values


def elements(data: bytes | bytearray | memoryview) -> list[bytes]:
    """Of a BYTES tensor whose lengths are sound."""
    found, position = [], 0
    while position < len(data):
        (size,) = struct.unpack_from("<I", data, position)
        found.append(bytes(data[position + 4 : position + 4 + size]))
        position += 4 + size
    return found


def plain_bytes(data: bytes | bytearray | memoryview) -> tuple[list[str], bool]:
    """The elements as strings, and whether they are base64, which they are when one of them is not UTF-8."""
    found = elements(data)
    try:
        return [e.decode() for e in found], False
    except UnicodeDecodeError:
        return [base64.b64encode(e).decode() for e in found], True


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of more than 4300 digits (sys.set_int_max_str_digits)
        return "a huge number"
    return text if len(text) <= 40 else f"{text[:37]}..."
