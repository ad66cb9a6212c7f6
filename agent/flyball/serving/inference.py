"""One inference request, from the bytes of an HTTP body to ports values.

body -> decode (JSON header, then tensors in place) -> Call

Open Inference Protocol v2 with the binary tensor extension. Binary tensors stay views into the one body buffer: no
tensor byte is copied here. Everything is checked against the ladder's interface; nothing is guessed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from flyball.errors import RequestError
from flyball.ports import InferRequest, Interface, PublicTensor, Tensor
from flyball.serving.tensors import ITEM_BYTES, check_bytes, pack, pack_bytes

_ABSENT = msgspec.Raw()
_LARGEST_SIZE = (1 << 31) - 1
_LONGEST_US = 10**12  # eleven days
_SHARED_MEMORY = "shared memory is not supported: send `data`, or binary data after the JSON"


class _TensorParameters(msgspec.Struct):
    binary_data_size: int | None = None
    content_type: str | None = None
    shared_memory_region: str | None = None


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _TensorParameters | None = None
    data: msgspec.Raw = _ABSENT


class _OutputParameters(msgspec.Struct):
    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class _WantedOutput(msgspec.Struct):
    name: str
    parameters: _OutputParameters | None = None


class _RequestParameters(msgspec.Struct):
    rung: str | None = None
    timeout: int | None = None
    priority: int | None = None
    binary_data_output: bool | None = None
    sequence_id: int | str | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_WantedOutput] | None = None
    id: str | None = None
    parameters: _RequestParameters | None = None


_decoder = msgspec.json.Decoder(_Request)


@dataclass(frozen=True, slots=True)
class Call:
    """A decoded request. `outputs` pairs each wanted output's name with whether it goes out in binary."""

    request: InferRequest
    id: str | None
    outputs: tuple[tuple[str, bool], ...]


def decode(body: bytes | bytearray, header_length: int | None, interface: Interface) -> Call:
    """`header_length` is the header Inference-Header-Content-Length: None when it is absent (all of the body is
    JSON), 0 when the body is one raw tensor. The result holds views into `body`. Raises RequestError."""
    if header_length == 0:
        request = InferRequest(inputs=(_raw_input(memoryview(body), interface),))
        return Call(request, None, tuple((o.name, True) for o in interface.outputs))
    view = memoryview(body)
    end = len(view) if header_length is None else header_length
    if end > len(view):
        raise RequestError(f"Inference-Header-Content-Length is {end}, but the body has only {len(view)} bytes")
    wire = _parse(view[:end])
    inputs = _inputs(wire.inputs, view[end:], header_length is not None, interface)
    parameters = wire.parameters or _RequestParameters()
    if parameters.sequence_id not in (None, 0, ""):
        raise RequestError("parameters.sequence_id: ladders keep no state between requests; leave it out")
    timeout_us = parameters.timeout
    if timeout_us is not None and not 0 <= timeout_us <= _LONGEST_US:
        raise RequestError(
            f"parameters.timeout: expected 0 (for none) to {_LONGEST_US} microseconds, found {timeout_us!s:.30}"
        )
    timeout_s = timeout_us / 1e6 if timeout_us else None
    if parameters.priority is not None and not 0 <= parameters.priority <= _LARGEST_SIZE:
        raise RequestError(
            f"parameters.priority: expected 1 (the highest) or more, 0 for none, found {parameters.priority!s:.30}"
        )
    priority = parameters.priority or None
    return Call(
        InferRequest(inputs=inputs, rung=parameters.rung, timeout_s=timeout_s, priority=priority),
        wire.id,
        _outputs(wire.outputs, bool(parameters.binary_data_output), interface),
    )


def _parse(text: memoryview) -> _Request:
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise RequestError(f"the request's JSON does not fit the protocol: {error}") from None
    except msgspec.DecodeError as error:
        raise RequestError(
            f"the request is not valid JSON: {error} (NaN and infinity are not JSON: send them as binary tensors)"
        ) from None
    except UnicodeDecodeError as error:
        raise RequestError(f"the request's JSON is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise RequestError("the request's JSON is nested too deeply") from None


# ---------------------------------------------------------------------------------------------------------- inputs


def _inputs(wires: Sequence[_Input], tail: memoryview, has_tail: bool, interface: Interface) -> tuple[Tensor, ...]:
    public = {t.name: t for t in interface.inputs}
    tensors: dict[str, Tensor] = {}
    position = 0
    for wire in wires:
        known = public.get(wire.name)
        if known is None:
            raise RequestError(f"input {wire.name!r:.80} is unknown; this ladder takes {_names(interface.inputs)}")
        if wire.name in tensors:
            raise RequestError(f"input {wire.name!r} stands twice")
        try:
            count = _check_shape(known, wire)
            size = wire.parameters.binary_data_size if wire.parameters is not None else None
            if size is None:
                data: bytes | memoryview = _from_json(wire)
            else:
                data = _from_tail(wire, count, size, tail, position, has_tail)
                position += size
        except RequestError as error:
            raise RequestError(f"input {wire.name!r}: {error}") from None
        tensors[wire.name] = Tensor(wire.name, wire.datatype, tuple(wire.shape), data)
    for name in public:
        if name not in tensors:
            raise RequestError(f"input {name!r} is missing; this ladder takes {_names(interface.inputs)}")
    if position != len(tail):
        raise RequestError(
            f"{len(tail)} bytes follow the JSON, but the inputs' binary_data_size add up to {position}; "
            "is Inference-Header-Content-Length the length of the JSON?"
        )
    return tuple(tensors.values())


def _check_shape(public: PublicTensor, wire: _Input) -> int:
    """The number of elements. Raises RequestError when neither form of the tensor has this datatype and shape."""
    shape = wire.shape
    if any(size > _LARGEST_SIZE for size in shape):
        raise RequestError(f"expected sizes up to {_LARGEST_SIZE}, found one of {max(shape)!s:.30}")
    for datatype, sizes in _forms(public):
        if (
            wire.datatype == datatype
            and len(shape) == len(sizes)
            and all(found == size if size >= 0 else found >= 0 for found, size in zip(shape, sizes, strict=True))
        ):
            return math.prod(shape)
    expected = " or ".join(f"{datatype} {list(sizes)}" for datatype, sizes in _forms(public))
    free = " (-1 stands for any size)" if "-1" in expected else ""
    shown = f"{shape}" if len(shape) <= 16 else f"of rank {len(shape)}"
    raise RequestError(f"expected {expected}{free}, found {wire.datatype:.40} {shown}")


def _forms(public: PublicTensor) -> tuple[tuple[str, tuple[int, ...]], ...]:
    main = (public.datatype, public.shape)
    return (main,) if public.alternative is None else (main, public.alternative)


def _from_json(wire: _Input) -> bytes:
    parameters = wire.parameters
    if parameters is not None and parameters.shared_memory_region is not None:
        raise RequestError(_SHARED_MEMORY)
    if wire.data is _ABSENT:
        raise RequestError("`data` is missing, and so is the parameter binary_data_size")
    text = bytes(wire.data)
    if wire.datatype != "BYTES":
        return pack(wire.datatype, wire.shape, text)
    content_type = (parameters.content_type if parameters is not None else None) or ""
    return pack_bytes(wire.shape, text, content_type == "base64" or content_type.startswith("image/"))


def _from_tail(wire: _Input, count: int, size: int, tail: memoryview, position: int, has_tail: bool) -> memoryview:
    if not has_tail:
        raise RequestError("binary_data_size needs the header Inference-Header-Content-Length (the JSON's length)")
    if wire.data is not _ABSENT:
        raise RequestError("has both `data` and binary_data_size; send one of them")
    if size < 0:
        raise RequestError(f"binary_data_size: expected a number of bytes, found {size}")
    if size > len(tail) - position:
        raise RequestError(f"binary_data_size is {size}, but only {len(tail) - position} bytes are left in the body")
    data = tail[position : position + size]
    if wire.datatype == "BYTES":
        check_bytes(data, count)
    elif size != count * ITEM_BYTES[wire.datatype]:
        raise RequestError(
            f"{wire.datatype} {wire.shape} is {count * ITEM_BYTES[wire.datatype]} bytes; binary_data_size is {size}"
        )
    return data


def _raw_input(body: memoryview, interface: Interface) -> Tensor:
    """The whole body as the only input: the elements of a numeric tensor, or the one element of a BYTES [1]."""
    if len(interface.inputs) != 1:
        raise RequestError(
            "Inference-Header-Content-Length 0 means a body that is one raw tensor; "
            f"this ladder takes {_names(interface.inputs)}: send a JSON header"
        )
    public = interface.inputs[0]
    for datatype, shape in _forms(public):
        if datatype == "BYTES":
            if math.prod(shape) in (1, -1):
                element = b"".join((struct.pack("<I", len(body)), body))
                return Tensor(public.name, "BYTES", (1,) * len(shape), element)
        elif shape.count(-1) <= 1:
            return Tensor(public.name, datatype, _raw_shape(public.name, datatype, shape, len(body)), body)
    raise RequestError(
        f"input {public.name!r}: {public.datatype} {list(public.shape)} has several free sizes, which a raw body "
        "does not tell: send a JSON header"
    )


def _raw_shape(name: str, datatype: str, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    row = ITEM_BYTES[datatype] * math.prod(s for s in shape if s >= 0)
    free = -1 in shape
    if (row == 0 or size % row) if free else size != row:
        wanted = f"a multiple of {row}" if free else str(row)
        raise RequestError(f"input {name!r}: {datatype} {list(shape)} takes a body of {wanted} bytes, found {size}")
    return tuple(size // row if s < 0 else s for s in shape)


# --------------------------------------------------------------------------------------------------------- outputs


def _outputs(
    wanted: Sequence[_WantedOutput] | None, binary: bool, interface: Interface
) -> tuple[tuple[str, bool], ...]:
    known = {t.name for t in interface.outputs}
    if not wanted:
        return tuple((t.name, binary) for t in interface.outputs)
    chosen: dict[str, bool] = {}
    for output in wanted:
        if output.name not in known:
            raise RequestError(f"output {output.name!r:.80} is unknown; this ladder gives {_names(interface.outputs)}")
        if output.name in chosen:
            raise RequestError(f"output {output.name!r} stands twice")
        chosen[output.name] = binary
        if output.parameters is not None:
            if output.parameters.classification:
                raise RequestError(f"output {output.name!r}: the parameter classification is not supported")
            if output.parameters.shared_memory_region is not None:
                raise RequestError(f"output {output.name!r}: {_SHARED_MEMORY}")
            if output.parameters.binary_data is not None:
                chosen[output.name] = output.parameters.binary_data
    return tuple(chosen.items())


def _names(tensors: Sequence[PublicTensor]) -> str:
    return ", ".join(t.name for t in tensors)
