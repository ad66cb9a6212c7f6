"""What a runtime must offer, and the only module that a third-party plug-in imports.

artifact file -> Backend.open -> Session -> run(tensors) -> tensors

Everything here is synchronous: backends run in worker processes, one session each, so that a vendor library that
aborts or hangs takes nothing with it. Keep to syntax and library of Python 3.8, and import nothing at module level
but NumPy (under TYPE_CHECKING, because the daemon reads this module and does not load NumPy).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Optional, Protocol, Sequence, Tuple, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.generic]]

API_VERSION = 1


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale * (q - zero_point). One value per tensor (per-tensor quantization only,
    which is what the inputs and outputs of quantized models have)."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of an artifact. `dtype` is a NumPy name ("uint8", "float32", ...); a free dimension is -1."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    quantization: Optional[Quantization] = None


@dataclass(frozen=True)
class Signature:
    """What an opened artifact takes and gives, in the artifact's own order."""

    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Accelerator:
    """A device that a backend can open artifacts on.

    kind: "cpu", "gpu", "edgetpu", ...; the word that a rung's `accelerators` list uses.
    id: stable within the machine ("cpu", "usb:0", "cuda:0"). detail: a line for people.
    """

    kind: str
    id: str
    detail: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


class BackendError(Exception):
    """A backend could not open or run an artifact. The text says what, where and what to do about it."""


class InputError(BackendError):
    """The artifact is sound, but does not run on inputs of the sizes that it was given where its signature leaves them
    free: the caller's mistake, not the rung's."""


@runtime_checkable
class Session(Protocol):
    """An opened artifact. `run` may be called many times, from one thread at a time."""

    signature: Signature

    def run(self, inputs: Tensors) -> Tensors:
        """Arrays by tensor name, C-contiguous, of the signature's dtypes and shapes, in; the same out.

        The arrays that come out may be reused by the next `run`: copy what must live longer.
        Raises BackendError; InputError where the sizes of the inputs are at fault.
        """
        ...

    def close(self) -> None:
        """Free what the session holds. Called once; the worker ends soon after."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A runtime; registered under the entry point group "flyball.backends" with its name.

    `Options` is a frozen dataclass of plain values with defaults: the keys of a rung's `[rung.options]`. The class
    is built without arguments, and building it imports no vendor library: that happens in `probe` and `open`.
    It says which API_VERSION it is written for in an attribute `api_version` (none means 1).
    """

    name: str
    Options: type

    def probe(self) -> Sequence[Accelerator]:
        """The accelerators present now. A missing library or device is an empty list, never an exception."""
        ...

    def open(self, artifact: Path, options: Any) -> Session:
        """Open `artifact` with an `Options` value. Raises BackendError."""
        ...
