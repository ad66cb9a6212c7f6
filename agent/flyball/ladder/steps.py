"""The steps between a ladder's public interface and a rung's own tensors, as the manifest writes them.

public tensor -> pre steps -> the rung's input;  the rung's output -> post steps -> public tensor

Only the description lives here; engine/tasks.py turns steps into calls of flyball_kernels inside the worker.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Pixels = Annotated[int, Meta(ge=1, le=16384)]
Dtype = Literal["uint8", "int8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"]
Std = Annotated[float, Meta(gt=0)]


class Resize(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="resize"):
    """To height x width. fit: "stretch" changes the aspect ratio, "crop" cuts the longer side, "letterbox" pads."""

    width: Pixels
    height: Pixels
    method: Literal["bilinear", "area", "nearest"] = "bilinear"
    fit: Literal["stretch", "crop", "letterbox"] = "stretch"
    fill: Annotated[int, Meta(ge=0, le=255)] = 0


class Normalize(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="normalize"):
    """(v - mean[c]) / std[c] on pixel values 0..255; gives float32."""

    mean: tuple[float, float, float]
    std: tuple[Std, Std, Std]


class Layout(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="layout"):
    """Adds the batch dimension and orders the axes."""

    order: Literal["NHWC", "NCHW"]


class Quantize(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="quantize"):
    scale: Annotated[float, Meta(gt=0)]
    zero_point: int
    dtype: Literal["uint8", "int8", "int16"]
    tensor: str = ""


class Dequantize(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="dequantize"):
    scale: Annotated[float, Meta(gt=0)]
    zero_point: int
    tensor: str = ""


class Cast(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="cast"):
    dtype: Dtype
    tensor: str = ""


class Rename(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="rename"):
    """In `pre`: the public tensor `tensor` is the rung's input `to`. In `post`: the rung's output `tensor` is the
    public output `to`."""

    tensor: str
    to: str


class Softmax(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", tag="softmax"):
    tensor: str = ""


PreStep = Resize | Normalize | Layout | Quantize | Dequantize | Cast | Rename
PostStep = Dequantize | Quantize | Cast | Softmax | Rename
