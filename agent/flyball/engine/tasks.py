"""What each task does before and after a rung's run, inside the worker.

slot inputs -> decode -> pre steps (kernels) -> the artifact's tensors ... its answer -> post steps -> slot outputs

The plan comes from the manifest (ladder/steps.py) as plain data. The caller's mistakes raise BadRequest; everything
else that goes wrong is the rung's. Images are decoded here, never in the daemon. Runs on Python 3.8.
"""

from __future__ import annotations

import io
import struct
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from flyball.engine.slots import SlotTensor
from flyball_backends.contract import Session, TensorSpec
from flyball_kernels.crop import center_crop, letterbox
from flyball_kernels.layout import to_layout
from flyball_kernels.normalize import normalize
from flyball_kernels.quantize import dequantize, quantize
from flyball_kernels.resize import resize
from flyball_kernels.softmax import softmax
from flyball_kernels.top_k import top_k

_CROP_MAX = 64  # times the size of the cut: a picture of that aspect ratio is no picture
Array = Any  # numpy.ndarray; its typing differs between the NumPy versions of Python 3.8 and of today
Plan = Mapping[str, Any]
Outputs = List[Tuple[str, Tuple[int, ...], memoryview]]

# Formats that cameras and tools write. Others that Pillow knows stay closed: EPS would start a program.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
NUMPY_NAMES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
# Looked up by name or asked for its name, a dtype costs a few microseconds, and right after a run all caches are cold.
_DTYPES = {datatype: np.dtype(name) for datatype, name in NUMPY_NAMES.items()}
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items()}


class BadRequest(Exception):
    """The request's content cannot be used; the text goes to the caller."""


class PlanError(Exception):
    """The manifest's steps do not fit the artifact."""


class ImageTask:
    """`image` UINT8 [h, w, 3] or BYTES [1] -> `scores` FP32 [k], `labels` BYTES [k], best first."""

    def __init__(self, plan: Plan, session: Session) -> None:
        signature = session.signature
        self._input = _named(plan["input"], signature.inputs, "input")
        self._output = _named(plan["output"], signature.outputs, "output")
        self._pre = [_pre_step(step) for step in plan["pre"]]
        self._post = [_value_step(step) for step in plan["post"]]
        self._labels = [_bytes_element(label) for label in plan["labels"]]
        self._top_k = plan["top_k"]
        self._max_pixels = plan["max_pixels"]

    def before(self, inputs: Sequence[SlotTensor]) -> Dict[str, Array]:
        value = self._image(inputs[0])
        try:
            for step in self._pre:
                value = step(value)
        except ValueError as error:
            raise PlanError("the rung's pre steps failed: {}".format(error)) from error
        return {self._input.name: value}

    def after(self, answer: Mapping[str, Array]) -> Outputs:
        scores = np.asarray(answer[self._output.name])
        for step in self._post:
            scores = step(scores)
        scores = np.ascontiguousarray(scores, dtype=np.float32).reshape(-1)
        if scores.size != len(self._labels):
            raise PlanError(
                "the artifact gives {} scores but the ladder has {} labels".format(scores.size, len(self._labels))
            )
        best, values = top_k(scores, self._top_k)
        labels = b"".join(self._labels[i] for i in best)
        k = (self._top_k,)
        return [("FP32", k, _raw(np.ascontiguousarray(values, dtype=np.float32))), ("BYTES", k, memoryview(labels))]

    def canary(self) -> List[SlotTensor]:
        # A colour gradient: not constant, so that a layer that lost its weights shows.
        ramp = np.arange(64, dtype=np.uint8) * 4
        image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(128)), axis=-1)
        return [SlotTensor("UINT8", (64, 64, 3), _raw(np.ascontiguousarray(image)))]

    def _image(self, tensor: SlotTensor) -> Array:
        if tensor.datatype == "BYTES":
            return _decode(_only_element(tensor), self._max_pixels)
        height, width = tensor.shape[:2]
        if height < 1 or width < 1:
            raise BadRequest("input 'image': expected at least one pixel, found {} x {}".format(height, width))
        return np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)


class TensorTask:
    """The ladder's declared tensors; every rung has the same, whatever its artifact calls them."""

    def __init__(self, plan: Plan, session: Session) -> None:
        signature = session.signature
        self._inputs = [
            _Lane(t, plan["pre"], signature.inputs, outgoing=False, alone=len(plan["inputs"]) == 1)
            for t in plan["inputs"]
        ]
        self._outputs = [
            _Lane(t, plan["post"], signature.outputs, outgoing=True, alone=len(plan["outputs"]) == 1)
            for t in plan["outputs"]
        ]
        fed = {lane.own for lane in self._inputs}
        missing = [t.name for t in signature.inputs if t.name not in fed]
        if missing:
            raise PlanError("the artifact's inputs {} are fed by no tensor of the ladder".format(missing))

    def before(self, inputs: Sequence[SlotTensor]) -> Dict[str, Array]:
        tensors = {}
        for lane, tensor in zip(self._inputs, inputs):  # noqa: B905 - strict= is Python 3.10
            value = np.frombuffer(tensor.data, _DTYPES[tensor.datatype]).reshape(tensor.shape)
            try:
                for step in lane.steps:
                    value = step(value)
            except ValueError as error:
                raise BadRequest("input {!r}: {}".format(lane.public, error)) from error
            tensors[lane.own] = _contiguous(value) if lane.steps else value
        return tensors

    def after(self, answer: Mapping[str, Array]) -> Outputs:
        outputs = []
        for lane in self._outputs:
            value = np.asarray(answer[lane.own])
            for step in lane.steps:
                value = step(value)
            if _DATATYPES.get(value.dtype) != lane.datatype:
                raise PlanError(
                    "output {!r}: the ladder declares {} but the rung gives {}: add a `cast`, `quantize` or "
                    "`dequantize` step to `post`".format(lane.public, lane.datatype, _dtype_name(value.dtype))
                )
            shape = value.shape
            if shape != lane.checked:
                lane.check(shape)
            outputs.append((lane.datatype, shape, _raw(_contiguous(value))))
        return outputs

    def canary(self) -> List[SlotTensor]:
        tensors = []
        for lane in self._inputs:
            shape = tuple(1 if size < 0 else size for size in lane.shape)
            count = int(np.prod(shape, dtype=np.int64))
            value = (np.arange(1, count + 1) % 3).astype(NUMPY_NAMES[lane.datatype]).reshape(shape)
            tensors.append(SlotTensor(lane.datatype, shape, _raw(value)))
        return tensors


class _Lane:
    """One public tensor, the artifact's name for it, and the steps between."""

    def __init__(
        self, tensor: Plan, steps: Sequence[Plan], own: Sequence[TensorSpec], outgoing: bool, alone: bool
    ) -> None:
        self.public: str = tensor["name"]
        self.datatype: str = tensor["datatype"]
        self.shape: Tuple[int, ...] = tuple(tensor["shape"])
        side = "output" if outgoing else "input"
        public, own_name = ("to", "tensor") if outgoing else ("tensor", "to")
        names: Dict[str, str] = {s[public]: s[own_name] for s in steps if s["step"] == "rename"}
        renamed = names.get(self.public)
        self.own: str = self.public if renamed is None else renamed
        known = [t.name for t in own]
        if self.own not in known:
            if not (alone and len(known) == 1):
                raise PlanError(
                    "{} {!r}: the artifact has no such tensor (it has {}); add a `rename` step".format(
                        side, self.own, known
                    )
                )
            self.own = known[0]
        _check_shape(side, self.public, self.shape, next(t for t in own if t.name == self.own))
        mine = [s for s in steps if s["step"] != "rename" and (s.get("tensor") or self.public) == self.public]
        self.steps = [_value_step(s) for s in mine]
        self.checked: Optional[Tuple[int, ...]] = None  # the last shape that was found good

    def check(self, shape: Tuple[int, ...]) -> None:
        """Of an output, which nearly always has the shape of the one before. Raises PlanError."""
        if not _fits(shape, self.shape):
            raise PlanError(
                "output {!r}: the ladder declares the shape {} but the rung gives {}".format(
                    self.public, list(self.shape), list(shape)
                )
            )
        self.checked = shape


def _fits(shape: Tuple[int, ...], declared: Tuple[int, ...]) -> bool:
    """Whether it has as many sizes as declared, and equal ones but for those that are free (-1)."""
    return len(shape) == len(declared) and all(
        theirs < 0 or ours == theirs
        for ours, theirs in zip(shape, declared)  # noqa: B905 - strict= is Python 3.10
    )


def _check_shape(side: str, public: str, shape: Tuple[int, ...], own: TensorSpec) -> None:
    """What the ladder promises its callers, the artifact must take. No step of tensors changes a shape. Raises
    PlanError."""
    if not _fits(shape, own.shape):
        raise PlanError(
            "{} {!r}: the ladder declares the shape {}, but the artifact's {!r} has {}".format(
                side, public, list(shape), own.name, list(own.shape)
            )
        )


def _pre_step(step: Plan) -> Callable[[Array], Array]:
    kind = step["step"]
    if kind == "resize":
        return _resize_step(step)
    if kind == "normalize":
        mean, std = step["mean"], step["std"]
        return lambda image: normalize(image, mean, std)
    if kind == "layout":
        order = step["order"]
        return lambda image: to_layout(image, order)
    return _value_step(step)


def _resize_step(step: Plan) -> Callable[[Array], Array]:
    height, width, method, fill = step["height"], step["width"], step["method"], step["fill"]
    if step["fit"] == "letterbox":
        return lambda image: letterbox(image, height, width, fill, method)
    if step["fit"] == "crop":

        def crop(image: Array) -> Array:
            scale = max(height / image.shape[0], width / image.shape[1])
            tall, wide = (max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale)))
            if tall * wide > _CROP_MAX * height * width:
                # Its middle at this scale is less than a pixel of it.
                raise BadRequest(
                    "input 'image': {} x {} pixels are too long and thin to be cut to {} x {}".format(
                        image.shape[1], image.shape[0], width, height
                    )
                )
            return center_crop(resize(image, tall, wide, method), height, width)

        return crop
    return lambda image: resize(image, height, width, method)


def _value_step(step: Plan) -> Callable[[Array], Array]:
    kind = step["step"]
    if kind == "quantize":
        scale, zero_point, dtype = step["scale"], step["zero_point"], step["dtype"]
        return lambda value: quantize(value, scale, zero_point, dtype)
    if kind == "dequantize":
        scale, zero_point = step["scale"], step["zero_point"]
        return lambda value: dequantize(value, scale, zero_point)
    if kind == "cast":
        dtype = step["dtype"]
        return lambda value: value.astype(dtype)
    if kind == "softmax":
        return lambda value: softmax(value)
    raise PlanError("unknown step {!r}".format(kind))


def _named(name: str, tensors: Sequence[TensorSpec], side: str) -> TensorSpec:
    """The tensor called `name`, or the only one when no name is given."""
    if not name and len(tensors) == 1:
        return tensors[0]
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    known = ", ".join(t.name for t in tensors)
    raise PlanError("the artifact's {}s are {}: name one of them with the rung's key `{}`".format(side, known, side))


def _dtype_name(dtype: Any) -> str:
    """With its byte order where that is what differs from the processor's."""
    if dtype.isnative:
        return str(dtype.name)
    return "{} with the bytes in {}-endian order ({})".format(
        dtype.name, "big" if dtype.str[0] == ">" else "little", dtype.str
    )


def _bytes_element(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<I", len(data)) + data


def _only_element(tensor: SlotTensor) -> memoryview:
    data = tensor.data
    if len(data) < 4 or struct.unpack_from("<I", data)[0] != len(data) - 4:
        raise BadRequest("input 'image': BYTES [1] holds a 4-byte length and then that many bytes")
    return data[4:]


def _decode(data: memoryview, max_pixels: int) -> Array:
    """An encoded image as RGB. The header is read first: a huge picture is refused before it takes memory."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # this process opens one ladder's pictures, and the ladder's own limit counts
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise BadRequest(
                    "input 'image': {} x {} pixels; this ladder takes at most {} (max_pixels)".format(
                        image.width, image.height, max_pixels
                    )
                )
            return _rgb(image)
    except BadRequest:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever they meet (OSError, ValueError, SyntaxError, struct.error, ...).
        # What it says of a file that it does not know at all is the address of the buffer.
        why = "" if isinstance(error, UnidentifiedImageError) else " ({}: {})".format(type(error).__name__, error)
        raise BadRequest(
            "input 'image': {} bytes that are no readable image{}; formats: {}".format(
                len(data), why, ", ".join(IMAGE_FORMATS)
            )
        ) from error


def _rgb(image: Any) -> Array:
    """UINT8 [h, w, 3]. Pillow would cut grey values of more than 8 bits off at 255: a picture all white."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise BadRequest(
            "input 'image': grey values of 32 bits have no known range; send 8 or 16 bits (mode {})".format(image.mode)
        )
    return np.asarray(image.convert("RGB"))


def _contiguous(array: Array) -> Array:
    """In C order; a scalar, which always is, keeps its shape (ascontiguousarray would give it a size)."""
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _raw(array: Array) -> memoryview:
    """The bytes of an array in C order."""
    return memoryview(array).cast("B") if array.size else memoryview(b"")
