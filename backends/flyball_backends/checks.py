"""What every session asks of its inputs, and every backend of its artifact, before a vendor library sees them.

signature, inputs -> nothing, or one BackendError with every mistake

Never changes or copies an array. On the way of every request: about a microsecond a tensor when all is well.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, List, Mapping, Tuple

import numpy as np

from flyball_backends.contract import BackendError, InputError, Signature, TensorSpec

if TYPE_CHECKING:
    from flyball_backends.contract import Tensors


def check_inputs(signature: Signature, inputs: Tensors) -> None:
    """`inputs` has exactly the signature's names, each a C-contiguous array of its dtype and shape.

    A free dimension (-1) takes any size. Raises BackendError.
    """
    specs = signature.inputs
    if len(inputs) == len(specs):
        for spec in specs:
            array = inputs.get(spec.name)
            if (
                not isinstance(array, np.ndarray)
                or array.dtype != spec.dtype
                or (array.shape != spec.shape and not fits(array.shape, spec.shape))
                or not array.flags.c_contiguous
            ):
                break
        else:
            return
    raise BackendError("the inputs do not fit the artifact: {}".format("; ".join(_mistakes(specs, inputs))))


def fits(shape: Tuple[int, ...], wanted: Tuple[int, ...]) -> bool:
    """Whether an array's shape is `wanted`, in which -1 stands for any size."""
    return len(shape) == len(wanted) and all(w in (s, -1) for s, w in zip(shape, wanted))  # noqa: B905 - 3.8


def check_artifact(artifact: Path) -> None:
    """`artifact` is a file that can be read and holds something. Raises BackendError."""
    try:
        with artifact.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise BackendError(
            "{}: the artifact cannot be read ({}); check the path and its permissions".format(artifact, error.strerror)
        ) from error
    if empty:
        raise BackendError("{}: the artifact is empty; fetch it again".format(artifact))


def check_options(backend: Any, options: Any) -> None:
    """`options` is the backend's own Options value. Raises BackendError."""
    if not isinstance(options, backend.Options):
        raise BackendError(
            "backend {!r}: expected its Options, found {}; make them with "
            "flyball_backends.options.decode_options".format(backend.name, type(options).__name__)
        )


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """ "; did you mean 'x'?", or what is known, for the end of a message."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return "; did you mean {!r}?".format(near[0]) if near else "; {}: {}".format(what, ", ".join(names) or "none")


def run_error(artifact: Path, signature: Signature, inputs: Tensors, why: str) -> BackendError:
    """For a run that failed. Where the signature leaves sizes free, their choice is what differs from the canary that
    went before: then it is an InputError, without the paths that only the server knows."""
    if not any(size < 0 for spec in signature.inputs for size in spec.shape):
        return BackendError("{}: the run failed: {}".format(artifact, why))
    sizes = ", ".join("{} {}".format(spec.name, list(inputs[spec.name].shape)) for spec in signature.inputs)
    plain = " ".join(word for word in why.split() if not word.startswith("/"))
    return InputError("the model does not run on inputs of these sizes ({}): {}".format(sizes, plain[:400]))


def _mistakes(specs: Tuple[TensorSpec, ...], inputs: Mapping[str, Any]) -> List[str]:
    names = [spec.name for spec in specs]
    mistakes = [
        "{!r} is no input{}".format(name, nearest(str(name), names, "inputs")) for name in inputs if name not in names
    ]
    for spec in specs:
        if spec.name not in inputs:
            mistakes.append("input {!r} is missing (expected {} {})".format(spec.name, spec.dtype, list(spec.shape)))
            continue
        array = inputs[spec.name]
        if not isinstance(array, np.ndarray):
            mistakes.append("input {!r}: expected a NumPy array, found {}".format(spec.name, type(array).__name__))
        elif array.dtype != spec.dtype or not fits(array.shape, spec.shape):
            mistakes.append(
                "input {!r}: expected {} {}, found {} {}".format(
                    spec.name, spec.dtype, list(spec.shape), array.dtype, list(array.shape)
                )
            )
        elif not array.flags.c_contiguous:
            mistakes.append(
                "input {!r}: expected a C-contiguous array, found strides {} for shape {}; pass it through "
                "numpy.ascontiguousarray".format(spec.name, list(array.strides), list(array.shape))
            )
    return mistakes
