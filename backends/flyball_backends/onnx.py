"""ONNX Runtime on the CPU.

.onnx file -> InferenceSession (CPU execution provider) -> run(arrays) -> arrays

Imports onnxruntime only inside probe() and open(), and never writes beside the artifact.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Literal, Sequence, Tuple

from flyball_backends.checks import check_artifact, check_inputs, check_options, run_error
from flyball_backends.contract import Accelerator, BackendError, Signature, TensorSpec
from flyball_backends.cores import usable_cores

if TYPE_CHECKING:
    from flyball_backends.contract import Tensors

log = logging.getLogger(__name__)

# ONNX element types that NumPy has. Strings, bfloat16, 4-bit and 8-bit floats, sequences and maps are no tensors here.
_DTYPES = {
    "tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64", "tensor(bool)": "bool",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
}  # fmt: skip
_FATAL = 4  # log severity: what is an error comes as an exception too, and would stand on stderr twice


@dataclass(frozen=True)
class OnnxOptions:
    """threads: of one run; 0 = the physical cores this process may use (cores.py).
    spinning: threads wait by spinning: about a millisecond sooner, at the price of busy cores between runs (at a paced
    10 frames/s the CPU went from 25 % to 84 %).
    graph_optimization: how far the graph is rewritten while loading.
    """

    threads: int = 0
    spinning: bool = False
    graph_optimization: Literal["all", "extended", "basic", "none"] = "all"

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= 256:
            raise ValueError("threads: expected 0 to 256, found {}".format(self.threads))


class OnnxBackend:
    """Opens .onnx files."""

    name = "onnx"
    api_version = 1
    Options = OnnxOptions

    def probe(self) -> Sequence[Accelerator]:
        """The CPU, when ONNX Runtime is installed."""
        try:
            onnxruntime = _runtime()
        except ImportError:
            return []
        except Exception as error:  # built for another NumPy, or damaged: absent, but worth a line
            log.warning("onnxruntime is installed but cannot be imported: %s: %s", type(error).__name__, error)
            return []
        detail = "ONNX Runtime {}, {} core(s)".format(onnxruntime.__version__, usable_cores())
        return [Accelerator("cpu", "cpu", detail)]

    def open(self, artifact: Path, options: OnnxOptions) -> OnnxSession:
        check_options(self, options)
        check_artifact(artifact)
        try:
            onnxruntime = _runtime()
        except Exception as error:  # an extension module built for another NumPy raises more than ImportError
            raise BackendError(
                "{}: needs ONNX Runtime, which cannot be imported ({}): pip install 'flyball[onnx]'".format(
                    artifact, error
                )
            ) from error
        try:
            session = onnxruntime.InferenceSession(
                str(artifact),
                _session_options(onnxruntime, options),
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # to the same provider again, with a banner on stdout
            )
            return OnnxSession(session, artifact)
        except BackendError:
            raise
        except Exception as error:
            # onnxruntime's exceptions share no base class but this; names that are no UTF-8 are a UnicodeDecodeError.
            raise BackendError("{}: {}".format(artifact, _explained(str(error)))) from error


def _runtime() -> Any:
    """The onnxruntime module. Raises what its import raises."""
    # 1.31 writes a device id and events for its maker under ~/.cache; the variable counts only before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class OnnxSession:
    """An opened model. Outputs are fresh arrays."""

    def __init__(self, session: Any, artifact: Path) -> None:
        self._session = session
        self._artifact = artifact
        self.signature = Signature(
            tuple(_spec(artifact, "input", value) for value in session.get_inputs()),
            tuple(_spec(artifact, "output", value) for value in session.get_outputs()),
        )
        self._outputs = [t.name for t in self.signature.outputs]

    def run(self, inputs: Tensors) -> Tensors:
        if self._session is None:
            raise BackendError("{}: the session is closed".format(self._artifact))
        check_inputs(self.signature, inputs)
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # see open()
            raise run_error(self._artifact, self.signature, inputs, _plain(str(error))) from error
        return dict(zip(self._outputs, values))  # noqa: B905 - strict= is Python 3.10

    def close(self) -> None:
        self._session = None


def _session_options(onnxruntime: Any, options: OnnxOptions) -> Any:
    settings = onnxruntime.SessionOptions()
    # Always a number: with 0, ONNX Runtime pins its threads, which fails where a container hides some cores.
    settings.intra_op_num_threads = options.threads or usable_cores()
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spinning else "0")
    # The arena never gives memory back, and the CPU provider ignores arena_extend_strategy (1.31: the same resident
    # size). Without it UltraFace RFB 320 holds 8.0 MiB after its runs instead of 11.1, at the same speed.
    settings.enable_cpu_mem_arena = False
    settings.log_severity_level = _FATAL
    level = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = {
        "all": level.ORT_ENABLE_ALL,
        "extended": level.ORT_ENABLE_EXTENDED,
        "basic": level.ORT_ENABLE_BASIC,
        "none": level.ORT_DISABLE_ALL,
    }[options.graph_optimization]
    return settings


def _spec(artifact: Path, side: str, value: Any) -> TensorSpec:
    dtype = _DTYPES.get(value.type)
    if dtype is None:
        raise BackendError(
            "{}: {} {!r} is a {}, and only tensors of numbers can be served; export the model without it "
            "(scikit-learn: zipmap=False)".format(artifact, side, value.name, value.type)
        )
    # A symbolic dimension is its name, an unknown one None; a file may also hold a negative number.
    shape: Tuple[int, ...] = tuple(d if isinstance(d, int) and d >= 0 else -1 for d in value.shape)
    return TensorSpec(value.name, dtype, shape)


# What ONNX Runtime says -> what it means and what to do. The first that matches counts.
_MEANINGS: List[Tuple[str, str]] = [
    (r"INVALID_PROTOBUF|No graph was found", "not an ONNX model, or cut short; fetch it again and compare its sha256"),
    (
        r"[Ee]xternal data|external_data|cannot get file size|GetFileLength",
        "the weights are in a second file, which cannot be read; put it beside the model under the name it had there",
    ),
    (
        r"is not a registered function/op|Could not find an implementation|No Op registered",
        "an operation that this ONNX Runtime does not have; export for an older opset, or update onnxruntime",
    ),
    (r"opset|IR version|ir_version", "made for a newer ONNX than this ONNX Runtime; update it, or export for an older"),
]


def _explained(text: str) -> str:
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, text):
            return "{} ({})".format(meaning, _plain(text))
    return "ONNX Runtime cannot load the model: {}".format(_plain(text))


def _plain(text: str) -> str:
    """Without the code in front: "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : "."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", text).strip()
