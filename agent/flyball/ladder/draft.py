"""A first manifest for somebody's own models, written from the models' signatures.

models (path, backend, signature) -> steps for each -> TOML text

What a signature cannot say (how pixels were normalised in training) is filled with the usual value and marked with a
comment. Pure: opening the models and copying the files is the caller's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from flyball.errors import LadderError
from flyball.ladder.steps import (
    Cast,
    Dequantize,
    Layout,
    Normalize,
    PostStep,
    PreStep,
    Quantize,
    Rename,
    Resize,
    Softmax,
)

Normalization = Literal["minus1-to-1", "0-to-1", "imagenet", "none"]
NORMALIZATIONS: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "minus1-to-1": ((127.5,) * 3, (127.5,) * 3),
    "0-to-1": ((0.0,) * 3, (255.0,) * 3),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "none": ((0.0,) * 3, (1.0,) * 3),
}
_DATATYPE = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip


class TensorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of an artifact as a worker reported it (backends' TensorSpec on the wire)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model file. `probabilities`: its output looked like probabilities in a trial run."""

    rung: str
    backend: str
    artifact: str
    sha256: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    accelerators: tuple[str, ...] = ("cpu",)
    probabilities: bool | None = None
    accuracy: float | None = None


class DraftRequest(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    task: Literal["tensor", "image-classification"]
    models: tuple[ModelFacts, ...]
    labels: str = ""
    label_count: int = 0
    normalization: Normalization = "minus1-to-1"
    accuracy_source: str = ""


class _Steps(msgspec.Struct, frozen=True, kw_only=True):
    pre: tuple[PreStep, ...]
    post: tuple[PostStep, ...]
    note: str = ""


def guess_task(model: ModelFacts, has_labels: bool) -> Literal["tensor", "image-classification"]:
    """Pictures in and one list of scores out, with labels to go with them; else plain tensors."""
    pictures = len(model.inputs) == 1 and _image_layout(model.inputs[0]) is not None
    return "image-classification" if has_labels and pictures and len(model.outputs) == 1 else "tensor"


def backend_for(file_name: str) -> tuple[str, tuple[str, ...]]:
    """The backend and the accelerators for a model file, by its name. Raises LadderError."""
    if file_name.endswith("_edgetpu.tflite"):
        return "edgetpu", ("edgetpu",)
    if file_name.endswith(".tflite"):
        return "litert", ("cpu",)
    if file_name.endswith(".onnx"):
        return "onnx", ("cpu",)
    raise LadderError(f"{file_name}: expected a .onnx or .tflite file")


def rung_name(file_name: str) -> str:
    stem = file_name.rsplit(".", 1)[0]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", stem).strip("-.")[:64] or "rung"


def draft(request: DraftRequest) -> str:
    """The manifest's text. Raises LadderError with every model that does not fit."""
    problems: list[str] = []
    image = request.task == "image-classification"
    steps = [
        _image_steps(m, request, problems) if image else _tensor_steps(m, request.models[0], problems)
        for m in request.models
    ]
    if problems:
        raise LadderError(f"no ladder of the task {request.task!r} can be made of these models", problems)
    lines = [
        "# Strongest rung first. `flyball ladder check` validates this file and opens every rung.",
        "schema = 1",
        "",
    ]
    ladder: dict[str, Any] = {"name": request.name, "version": request.version, "task": request.task}
    if image:
        ladder["labels"] = request.labels
        ladder["top_k"] = min(5, request.label_count)
    if request.accuracy_source:
        ladder["accuracy_source"] = request.accuracy_source
    lines += _table("[ladder]", ladder)
    if not image:
        for side, tensors in (("input", request.models[0].inputs), ("output", request.models[0].outputs)):
            for t in tensors:
                lines += _table(f"[[{side}]]", {"name": t.name, "datatype": _DATATYPE[t.dtype], "shape": list(t.shape)})
    for model, own in zip(request.models, steps, strict=True):
        rung: dict[str, Any] = {
            "name": model.rung, "backend": model.backend, "artifact": model.artifact, "sha256": model.sha256,
            "precision": _precision(model),
        }  # fmt: skip
        if model.accuracy is not None:
            rung["accuracy"] = round(model.accuracy, 6)
        if model.accelerators != ("cpu",):
            rung["accelerators"] = list(model.accelerators)
        lines += _table("[[rung]]", rung)
        for side, chain in (("pre", own.pre), ("post", own.post)):
            for step in chain:
                note = own.note if isinstance(step, Normalize) else ""
                lines += _table(f"[[rung.{side}]]", _plain(step), note)
    return "\n".join(lines) + "\n"


def _image_steps(model: ModelFacts, request: DraftRequest, problems: list[str]) -> _Steps:
    where = f"{model.artifact}:"
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        problems.append(
            f"{where} expected one input and one output, found {len(model.inputs)} and {len(model.outputs)}"
        )
        return _Steps(pre=(), post=())
    given, taken = model.inputs[0], model.outputs[0]
    layout = _image_layout(given)
    if layout is None:
        problems.append(
            f"{where} expected an input of the shape [1, height, width, 3] or [1, 3, height, width], found "
            f"{list(given.shape)}: give it a fixed size, or use --task tensor"
        )
        return _Steps(pre=(), post=())
    order, height, width = layout
    pre: list[PreStep] = [Resize(width=width, height=height)]
    note = ""
    if given.dtype != "uint8":
        mean, std = NORMALIZATIONS[request.normalization]
        note = f"{request.normalization}: a guess; use what the model was trained with"
        if given.scale:
            mean, std = _range_of(given)
            note = ""
        pre.append(Normalize(mean=mean, std=std))
    pre.append(Layout(order=order))
    pre += _into(given, "")
    scores = 1
    for size in taken.shape:
        scores *= abs(size)
    if request.label_count and scores != request.label_count:
        problems.append(f"{where} gives {scores} scores but there are {request.label_count} labels")
    post: list[PostStep] = list(_out_of(taken, ""))
    if not (model.probabilities or _is_quantized_softmax(taken)):
        post.append(Softmax())
    return _Steps(pre=tuple(pre), post=tuple(post), note=note)


def _tensor_steps(model: ModelFacts, first: ModelFacts, problems: list[str]) -> _Steps:
    pre: list[PreStep] = []
    post: list[PostStep] = []
    for side, public, own in (("input", first.inputs, model.inputs), ("output", first.outputs, model.outputs)):
        if [t.shape for t in public] != [t.shape for t in own]:
            problems.append(
                f"{model.artifact}: {side}s of the shapes {[list(t.shape) for t in own]}, but {first.artifact} has "
                f"{[list(t.shape) for t in public]}: rungs of a ladder have the same tensors"
            )
            continue
        for mine, theirs in zip(public, own, strict=True):
            if mine.dtype not in _DATATYPE:
                problems.append(f"{model.artifact}: {side} {mine.name!r} is of the type {mine.dtype}, not a number")
            if side == "input":
                pre += [Rename(tensor=mine.name, to=theirs.name)] if mine.name != theirs.name else []
                pre += _into(theirs, mine.name) if mine.dtype != theirs.dtype else []
            else:
                post += [Rename(tensor=theirs.name, to=mine.name)] if mine.name != theirs.name else []
                post += _out_of(theirs, mine.name, mine.dtype) if mine.dtype != theirs.dtype else []
    return _Steps(pre=tuple(pre), post=tuple(post))


def _into(own: TensorFacts, tensor: str) -> list[PreStep]:
    """From real values to the artifact's dtype."""
    if own.dtype in ("uint8", "int8", "int16") and own.scale and (tensor or own.dtype != "uint8"):
        dtype: Any = own.dtype
        return [Quantize(scale=own.scale, zero_point=own.zero_point or 0, dtype=dtype, tensor=tensor)]
    if own.dtype in ("float32", "uint8") and not tensor:
        return []
    dtype = own.dtype
    return [Cast(dtype=dtype, tensor=tensor)]


def _out_of(own: TensorFacts, tensor: str, dtype: Any = "float32") -> list[PostStep]:
    """From the artifact's dtype to real values."""
    if own.scale and own.dtype != "float32":
        return [Dequantize(scale=own.scale, zero_point=own.zero_point or 0, tensor=tensor)]
    return [] if own.dtype == dtype else [Cast(dtype=dtype, tensor=tensor)]


def _image_layout(tensor: TensorFacts) -> tuple[Literal["NHWC", "NCHW"], int, int] | None:
    match tensor.shape:
        case (1 | -1, height, width, 3) if height > 0 and width > 0:
            return "NHWC", height, width
        case (1 | -1, 3, height, width) if height > 0 and width > 0:
            return "NCHW", height, width
    return None


def _is_quantized_softmax(tensor: TensorFacts) -> bool:
    """TensorFlow Lite fixes the output of a quantized SOFTMAX at scale 1/256 from the lowest value up (its 8-bit
    quantization specification); the sum of 1,001 rounded probabilities says little."""
    return tensor.scale == 1 / 256 and (tensor.dtype, tensor.zero_point) in (("uint8", 0), ("int8", -128))


def _range_of(tensor: TensorFacts) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """mean and std that map 0..255 onto the real range of a signed quantized input."""
    scale, zero = tensor.scale or 1.0, tensor.zero_point or 0
    low = scale * (-128 - zero)
    return (-low / scale,) * 3, (1 / scale,) * 3


def _precision(model: ModelFacts) -> str:
    """By the tensors at the model's edge; a QDQ model with float edges says int8 in its name more often than not."""
    edge = {t.dtype for t in (*model.inputs, *model.outputs)}
    if edge & {"int8", "uint8"} or re.search(r"int8|quant|qdq", model.artifact, re.IGNORECASE):
        return "int8"
    return "fp16" if "float16" in edge or re.search(r"fp16|half", model.artifact, re.IGNORECASE) else "fp32"


def _plain(step: PreStep | PostStep) -> dict[str, Any]:
    """Without what equals a default."""
    plain: dict[str, Any] = msgspec.to_builtins(step)
    defaults = {f.encode_name: f.default for f in msgspec.structs.fields(step) if not f.required}
    return {k: v for k, v in plain.items() if k not in defaults or v != defaults[k]}


def _table(header: str, values: Mapping[str, Any], note: str = "") -> list[str]:
    # TOML's basic strings, numbers and arrays are written as JSON writes them.
    lines = [header + (f"  # {note}" if note else "")]
    return [*lines, *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in values.items()), ""]
