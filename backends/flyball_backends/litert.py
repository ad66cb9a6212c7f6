"""LiteRT (formerly TensorFlow Lite) on the CPU, and the interpreter session that the Edge TPU shares with it.

.tflite file -> Interpreter -> set_tensor, invoke, get_tensor -> arrays

Imports the runtime only inside probe() and open(); never hands out a view of the interpreter's memory, which would
forbid the next run.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flyball_backends.checks import check_artifact, check_inputs, check_options, run_error
from flyball_backends.contract import Accelerator, BackendError, InputError, Quantization, Signature, TensorSpec
from flyball_backends.cores import usable_cores

if TYPE_CHECKING:
    from flyball_backends.contract import Tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiteRtOptions:
    """threads: of one run; 0 = the physical cores this process may use (cores.py; LiteRT's own default is one)."""

    threads: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= 256:
            raise ValueError("threads: expected 0 to 256, found {}".format(self.threads))


class Runtime(NamedTuple):
    """The installed interpreter library: ai-edge-litert, or tflite-runtime, its predecessor."""

    name: str
    interpreter: Any  # the class Interpreter
    load_delegate: Any


class LiteRtBackend:
    """Opens .tflite files."""

    name = "litert"
    api_version = 1
    Options = LiteRtOptions

    def probe(self) -> Sequence[Accelerator]:
        """The CPU, when LiteRT is installed."""
        try:
            runtime = load_runtime()
        except BackendError as error:
            if error.__cause__ is not None and not isinstance(error.__cause__, ImportError):
                log.warning("%s", error)
            return []
        return [Accelerator("cpu", "cpu", "{}, {} core(s)".format(runtime.name, usable_cores()))]

    def open(self, artifact: Path, options: LiteRtOptions) -> InterpreterSession:
        check_options(self, options)
        check_artifact(artifact)
        try:
            runtime = load_runtime()
        except BackendError as error:
            raise BackendError("{}: {}".format(artifact, error)) from error
        return InterpreterSession(open_interpreter(runtime, artifact, options.threads or usable_cores()), artifact)


def load_runtime() -> Runtime:
    """Raises BackendError, caused by what the import raised."""
    try:
        from ai_edge_litert import interpreter as litert

        return Runtime("ai-edge-litert", litert.Interpreter, litert.load_delegate)
    except Exception as error:  # an extension module built for another NumPy raises more than ImportError
        first = error
    try:
        from tflite_runtime import interpreter as tflite

        return Runtime("tflite-runtime", tflite.Interpreter, tflite.load_delegate)
    except Exception as error:
        second = error
    cause = second if isinstance(first, ImportError) else first
    raise BackendError(
        "needs LiteRT, which cannot be imported (ai-edge-litert: {}; tflite-runtime: {}): "
        "pip install 'flyball[litert]'".format(first, second)
    ) from cause


def open_interpreter(runtime: Runtime, artifact: Path, threads: int, delegates: Sequence[Any] = ()) -> Any:
    """An Interpreter of the runtime. Raises BackendError."""
    try:
        return runtime.interpreter(
            model_path=str(artifact), num_threads=threads, experimental_delegates=list(delegates) or None
        )
    except Exception as error:
        # ValueError for the file; SystemError, ImportError, AttributeError, ... from an extension module that meets
        # another NumPy than it was built for.
        if runtime.name == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
            raise BackendError(
                "{}: tflite-runtime is built for NumPy 1 and found {} ({}): pip install 'numpy<2', or better "
                "'flyball[litert]', whose ai-edge-litert takes either".format(artifact, np.__version__, error)
            ) from error
        raise BackendError("{}: {}".format(artifact, _explained(str(error)))) from error


class InterpreterSession:
    """An opened model. Inputs are copied in and outputs copied out; a free dimension is allocated anew when its size
    changes from one run to the next."""

    def __init__(self, interpreter: Any, artifact: Path) -> None:
        self._interpreter = interpreter
        self._artifact = artifact
        try:
            interpreter.allocate_tensors()
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        except Exception as error:
            # RuntimeError for what the model asks of the runtime; a delegate may add anything.
            raise BackendError("{}: {}".format(artifact, _explained(str(error)))) from error
        self.signature = Signature(_specs(artifact, "input", inputs), _specs(artifact, "output", outputs))
        self._inputs = _indices(self.signature.inputs, inputs)
        self._outputs = _indices(self.signature.outputs, outputs)
        self._allocated: Optional[Dict[str, Tuple[int, ...]]] = {
            t.name: tuple(int(d) for d in detail["shape"])
            for t, detail in zip(self.signature.inputs, inputs)  # noqa: B905 - strict= is Python 3.10
        }

    def run(self, inputs: Tensors) -> Tensors:
        interpreter = self._interpreter
        if interpreter is None:
            raise BackendError("{}: the session is closed".format(self._artifact))
        check_inputs(self.signature, inputs)
        if self._allocated is None or any(inputs[n].shape != shape for n, shape in self._allocated.items()):
            self._allocate({name: inputs[name].shape for name in self._inputs})
        try:
            for name, index in self._inputs.items():
                interpreter.set_tensor(index, inputs[name])
            interpreter.reset_all_variables()  # an LSTM would carry one request's state into the next; 0.2 us
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in self._outputs.items()}
        except Exception as error:  # see __init__
            raise run_error(self._artifact, self.signature, inputs, _one_line(str(error))) from error

    def close(self) -> None:
        self._interpreter = None

    def _allocate(self, shapes: Dict[str, Tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if 0 in shape:
                raise InputError("input {!r}: LiteRT runs no empty tensors, found shape {}".format(name, list(shape)))
        self._allocated = None  # until it has worked: after a failure the interpreter is half way
        try:
            for name, shape in shapes.items():
                self._interpreter.resize_tensor_input(self._inputs[name], shape, strict=True)
            self._interpreter.allocate_tensors()
        except Exception as error:  # see __init__
            raise InputError(
                "the model cannot be resized to inputs of {}: {}".format(
                    {n: list(s) for n, s in shapes.items()}, _one_line(str(error))
                )
            ) from error
        self._allocated = shapes


def _specs(artifact: Path, side: str, details: Sequence[Any]) -> Tuple[TensorSpec, ...]:
    specs: List[TensorSpec] = []
    for position, detail in enumerate(details):
        dtype = np.dtype(detail["dtype"])
        name = detail["name"] or "{}_{}".format(side, position)
        if any(spec.name == name for spec in specs):  # the file format does not forbid it
            name = "{}#{}".format(name, position)
        if dtype.kind not in "biuf":
            raise BackendError(
                "{}: {} {!r} holds {}, and only tensors of numbers can be served; convert the model without it".format(
                    artifact, side, name, dtype
                )
            )
        # Older tflite-runtimes and models without one give an empty shape_signature.
        shape = detail.get("shape_signature", ())
        shape = shape if len(shape) == len(detail["shape"]) else detail["shape"]
        specs.append(TensorSpec(name, dtype.name, tuple(int(d) for d in shape), _quantization(dtype, detail)))
    return tuple(specs)


def _quantization(dtype: np.dtype[Any], detail: Any) -> Optional[Quantization]:
    parameters = detail["quantization_parameters"]
    scales, zero_points = parameters["scales"], parameters["zero_points"]
    # Per-channel quantization is for weights; a tensor that had it could not be described by one scale.
    if dtype.kind not in "iu" or len(scales) != 1 or not scales[0] > 0:
        return None
    return Quantization(float(scales[0]), int(zero_points[0]))


def _indices(specs: Sequence[TensorSpec], details: Sequence[Any]) -> Dict[str, int]:
    return {spec.name: int(d["index"]) for spec, d in zip(specs, details)}  # noqa: B905 - strict= is Python 3.10


# Custom operations that say what the file was compiled for -> what to do.
_COMPILED = {
    "edgetpu-custom-op": "the file is compiled for the Edge TPU: open it with the backend 'edgetpu', and give the CPU "
    "the file it was compiled from (the name without _edgetpu)",
    "ethos-u": "the file is compiled for an Arm Ethos-U (Vela): give the CPU the file it was compiled from",
}


def _explained(text: str) -> str:
    """What LiteRT says when it cannot load a file, with what to do."""
    custom = re.search(r"unresolved custom op: ([^\s]+?)\.?\s", text + " ")
    if custom:
        advice = _COMPILED.get(custom.group(1), "convert the model with built-in operations only")
        return "the runtime does not have the operation {!r}; {}".format(custom.group(1), advice)
    if "Select TensorFlow op" in text:
        return "the model needs TensorFlow's own operations (Flex); convert it with built-in ones only ({})".format(
            _one_line(text)
        )
    if "valid Flatbuffer" in text or "model identifier" in text or "model allocation is null" in text:
        return "not a LiteRT model, or cut short; fetch it again and compare its sha256 ({})".format(_one_line(text))
    if "builtin opcode" in text or "Didn't find op" in text:
        return "made for a newer LiteRT than this one; update ai-edge-litert ({})".format(_one_line(text))
    return "LiteRT cannot load the model: {}".format(_one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
