"""`flyball infer`: files in, answers out, through the running daemon."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.text import Text

from flyball.cli.terminal import (
    ConfigOption,
    JsonOption,
    SocketOption,
    client,
    milliseconds,
    out,
    print_json,
    print_table,
)
from flyball.client import Client
from flyball.errors import RequestError
from flyball.measure.accuracy import encoded_image
from flyball.ports import Interface, Tensor

_NUMPY = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
_DATATYPE = {v: k for k, v in _NUMPY.items()}
_MOST_BYTES = 64 << 20  # of one file: the daemon holds no more in all its requests together (daemon.py)


class FileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    rung: str
    total_s: float | None
    outputs: dict[str, Any]


def infer(
    ladder: Annotated[str, typer.Argument(help="A ladder in service.")],
    files: Annotated[list[str], typer.Argument(help="Pictures; for a tensor ladder FILE.npy or TENSOR=FILE.npy.")],
    rung: Annotated[str, typer.Option(help="Ask this rung, whichever is active.")] = "",
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Answer files: pictures for a classification ladder, .npy arrays for a tensor ladder.

    Example: flyball infer imagenet cat.jpg parrot.jpg
    """
    connection = client(socket, config)
    interface = connection.interface(ladder)
    answers = [_ask(connection, ladder, name, tensors, rung) for name, tensors in _requests(interface, files)]
    if as_json:
        print_json(answers)
        return
    for answer in answers:
        columns, rows = _rows(answer)
        head = Text.assemble((answer.file, "bold"), f"  {answer.rung}, {milliseconds(answer.total_s)} ms")
        out.print(head, soft_wrap=True)
        print_table(columns, rows)


def _requests(interface: Interface, files: list[str]) -> list[tuple[str, tuple[Tensor, ...]]]:
    """For pictures one request a file; for tensors one request of all files."""
    if interface.task == "image-classification":
        return [(name, (encoded_image(_read(name)),)) for name in files]
    names = [t.name for t in interface.inputs]
    tensors = []
    for position, argument in enumerate(files):
        name, _, path = argument.rpartition("=")
        if not name:
            if position >= len(names):
                raise RequestError(f"{len(files)} files for {len(names)} inputs ({', '.join(names)})")
            name = names[position]
        tensors.append(_tensor(name, Path(path)))
    return [(", ".join(files), tuple(tensors))]


def _read(name: str | Path) -> bytes:
    """Never more than can be sent, whatever the path leads to (/dev/zero has no end)."""
    try:
        with open(name, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise RequestError(f"{name!r}: not a file name: {error}") from None
    if len(data) > _MOST_BYTES:
        raise RequestError(f"{name}: expected at most {_MOST_BYTES >> 20} MiB, which is what the daemon takes")
    return data


def _tensor(name: str, path: Path) -> Tensor:
    data = _read(path)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy's parser of a header raises whatever ast, tokenize and the allocation raise
        raise RequestError(f"{path}: expected a .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.name not in _DATATYPE:
        raise RequestError(f"{path}: expected one array of numbers (numpy.save)")
    return Tensor(name, _DATATYPE[array.dtype.name], array.shape, np.ascontiguousarray(array).tobytes())


def _ask(connection: Client, ladder: str, file: str, tensors: tuple[Tensor, ...], rung: str) -> FileAnswer:
    answer = connection.infer(ladder, tensors, rung=rung or None)
    return FileAnswer(
        file=file,
        rung=answer.rung,
        total_s=answer.timing.total_s if answer.timing else None,
        outputs={t.name: _plain(t) for t in answer.outputs},
    )


def _plain(tensor: Tensor) -> Any:
    """Nested lists; a 32-bit float is written as the double of the same value, so that nothing is lost."""
    data = bytes(tensor.data)
    if tensor.datatype == "BYTES":
        texts = []
        while data:
            (size,) = struct.unpack_from("<I", data)
            texts.append(data[4 : 4 + size].decode("utf-8", "replace"))
            data = data[4 + size :]
        return texts
    return np.frombuffer(data, _NUMPY[tensor.datatype]).reshape(tensor.shape).tolist()


def _rows(answer: FileAnswer) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    if set(answer.outputs) == {"scores", "labels"}:
        pairs = zip(answer.outputs["scores"], answer.outputs["labels"], strict=True)
        return (">score", "label"), [(f"{score:.4f}", label) for score, label in pairs]
    return ("tensor", "values"), [(name, _short(value)) for name, value in answer.outputs.items()]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
