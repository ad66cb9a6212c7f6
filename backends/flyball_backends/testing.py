"""The conformance kit: whether a backend keeps the contract, asked of a real artifact.

backend, artifact -> open, run, wrong inputs, damaged files -> nothing, or an AssertionError that says what is broken

For the tests of backends, here and in any plug-in:

    def test_conformance():
        check_backend(MyBackend(), Path("tiny.model"))

Everything happens in this process: a backend that crashes ends the test run, which shows it too.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional

import numpy as np

from flyball_backends.checks import fits
from flyball_backends.contract import (
    API_VERSION,
    Accelerator,
    Backend,
    BackendError,
    Session,
    Signature,
    TensorSpec,
)
from flyball_backends.options import decode_options

if TYPE_CHECKING:
    from flyball_backends.contract import Tensors

_SEED = 20240229


def check_backend(
    backend: Any, artifact: Path, options: Optional[Any] = None, inputs: Optional[Mapping[str, Any]] = None
) -> None:
    """Opens and runs `artifact`, which should be small: it is opened a few times, and damaged copies are made of it.

    options: an Options value, default Options(). inputs: arrays to run with, for artifacts that cannot take seeded
    noise; by default free dimensions are 1, floats 0 to 1 and integers 0 to 100. Raises AssertionError.
    """
    check_attributes(backend)
    check_probe(backend)
    settings = backend.Options() if options is None else options
    session = backend.open(artifact, settings)
    _require(isinstance(session, Session), "open() gave {!r}, which is no Session (signature, run, close)", session)
    try:
        check_signature(session.signature)
        given = noise(session.signature) if inputs is None else dict(inputs)
        answer = check_run(session, given)
        check_refusals(session, given)
        again = session.run(given)
        for name, array in answer.items():
            _require(_same(again[name], array), "output {!r} is another after inputs were refused", name)
    finally:
        session.close()
    reopened = backend.open(artifact, settings)
    try:
        check_run(reopened, given)
    finally:
        reopened.close()
    check_damaged(backend, artifact, settings)


def check_attributes(backend: Any) -> None:
    """Name, version, and an Options dataclass that is frozen, has defaults and can be decoded."""
    _require(isinstance(backend, Backend), "{!r} is no Backend (name, Options, probe, open)", backend)
    _require(isinstance(backend.name, str) and backend.name, "name: expected a text, found {!r}", backend.name)
    version = getattr(backend, "api_version", None)
    _require(version == API_VERSION, "api_version: expected {}, found {!r}", API_VERSION, version)
    _require(isinstance(backend.Options, type) and dataclasses.is_dataclass(backend.Options), "Options is no dataclass")
    try:
        default = backend.Options()
    except TypeError as error:
        raise AssertionError("Options: every field needs a default: {}".format(error)) from error
    _require(default.__dataclass_params__.frozen, "Options is not frozen: @dataclass(frozen=True)")
    _require(decode_options(backend, {}) == default, "Options: an empty table does not give the defaults")
    _raises(lambda: decode_options(backend, {"no such option": 1}), "an unknown option")


def check_probe(backend: Any) -> None:
    """Accelerators with a kind and an id of their own; the same list when asked again."""
    found = list(backend.probe())
    for accelerator in found:
        _require(isinstance(accelerator, Accelerator), "probe() listed {!r}, which is no Accelerator", accelerator)
        _require(accelerator.kind and accelerator.id, "probe(): {!r} lacks its kind or id", accelerator)
    ids = [a.id for a in found]
    _require(len(set(ids)) == len(ids), "probe(): the ids {} are not unique", ids)
    _require([a.id for a in backend.probe()] == ids, "probe(): another list on the second call")


def check_signature(signature: Signature) -> None:
    """Tensors with unique names, NumPy dtypes of numbers, shapes of sizes or -1, and a usable quantization."""
    _require(isinstance(signature, Signature), "signature: expected a Signature, found {!r}", signature)
    for side, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        _require(isinstance(tensors, tuple) and tensors, "signature: {} is no tuple of tensors", side)
        tensor_names = [t.name for t in tensors]
        _require(len(set(tensor_names)) == len(tensors), "signature: the {} {} are not unique", side, tensor_names)
        for tensor in tensors:
            _check_tensor(tensor)


def check_run(session: Any, inputs: Mapping[str, Any]) -> Dict[str, Any]:
    """Outputs as the signature says, the same twice in a row, the inputs untouched. Gives copies of the outputs."""
    before = {name: array.copy() for name, array in inputs.items()}
    answer = {name: np.array(array) for name, array in session.run(inputs).items()}
    specs = {t.name: t for t in session.signature.outputs}
    _require(set(answer) == set(specs), "run() gave {}, the signature has {}", sorted(answer), sorted(specs))
    for name, array in answer.items():
        spec = specs[name]
        _require(
            array.dtype == spec.dtype and fits(array.shape, spec.shape),
            "output {!r}: the signature says {} {}, run() gave {} {}", name, spec.dtype, list(spec.shape),
            array.dtype, list(array.shape),
        )  # fmt: skip
    for name, array in inputs.items():
        _require(_same(array, before[name]), "run() changed its input {!r}", name)
    for name, array in session.run(inputs).items():
        _require(_same(array, answer[name]), "output {!r} differs between two runs of the same inputs", name)
    return answer


def check_refusals(session: Any, inputs: Tensors) -> None:
    """Inputs that do not fit raise BackendError: missing, unknown, wrong dtype, wrong shape, no array."""
    _raises(lambda: session.run({}), "no inputs")
    _raises(lambda: session.run({**inputs, "no such input": np.zeros(1, np.float32)}), "an unknown input")
    for spec in session.signature.inputs:
        array = inputs[spec.name]
        other = np.float32 if array.dtype != np.float32 else np.int32
        wrong = [
            ("another dtype", array.astype(other)),
            ("one dimension more", array[np.newaxis]),
            ("a list instead of an array", array.tolist()),
        ]
        fixed = [axis for axis, size in enumerate(spec.shape) if size >= 0]
        if fixed:
            shape = list(array.shape)
            shape[fixed[-1]] += 1
            wrong.append(("another shape", np.zeros(shape, array.dtype)))
        for what, value in wrong:
            _raises(partial(session.run, {**inputs, spec.name: value}), "input {!r}: {}".format(spec.name, what))


def check_damaged(backend: Any, artifact: Path, options: Any) -> None:
    """Files that are missing, empty, cut in half or noise raise BackendError, and so does a folder.

    An artifact that is itself a folder is only asked for while it is missing."""
    with tempfile.TemporaryDirectory(prefix="flyball-kit-") as folder:
        path = Path(folder) / ("artifact" + artifact.suffix)
        _raises(lambda: backend.open(path, options), "a missing artifact")
        if artifact.is_dir():
            return
        whole = artifact.read_bytes()
        garbage = np.random.default_rng(_SEED).bytes(4096)
        for what, data in (("an empty artifact", b""), ("half an artifact", whole[: len(whole) // 2]),
                           ("noise as artifact", garbage)):  # fmt: skip
            path.write_bytes(data)
            _raises(lambda: backend.open(path, options), what)
        _raises(lambda: backend.open(Path(folder), options), "a folder as artifact")


def noise(signature: Signature) -> Dict[str, Any]:
    """Seeded inputs of the signature's dtypes and shapes; free dimensions are 1."""
    generator = np.random.default_rng(_SEED)
    tensors = {}
    for spec in signature.inputs:
        shape = tuple(1 if size < 0 else size for size in spec.shape)
        if np.dtype(spec.dtype).kind == "f":
            tensors[spec.name] = generator.random(shape).astype(spec.dtype)
        else:
            tensors[spec.name] = generator.integers(0, 101, shape).astype(spec.dtype)
    return tensors


def _check_tensor(tensor: TensorSpec) -> None:
    try:
        dtype = np.dtype(tensor.dtype)
    except TypeError as error:
        raise AssertionError("tensor {!r}: NumPy has no dtype {!r}".format(tensor.name, tensor.dtype)) from error
    _require(
        isinstance(tensor.dtype, str) and tensor.dtype == dtype.name and dtype.kind in "biuf",
        "tensor {!r}: expected the NumPy name of a dtype of numbers, found {!r}", tensor.name, tensor.dtype,
    )  # fmt: skip
    _require(
        isinstance(tensor.shape, tuple) and all(type(d) is int and d >= -1 for d in tensor.shape),
        "tensor {!r}: expected a shape of plain sizes or -1, found {!r}", tensor.name, tensor.shape,
    )  # fmt: skip
    quantization = tensor.quantization
    if quantization is not None:
        _require(dtype.kind in "iu", "tensor {!r}: a quantization on {}", tensor.name, tensor.dtype)
        bounds = np.iinfo(dtype)
        _require(
            math.isfinite(quantization.scale) and quantization.scale > 0
            and bounds.min <= quantization.zero_point <= bounds.max,
            "tensor {!r}: no usable quantization: {}", tensor.name, quantization,
        )  # fmt: skip


def _raises(call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except BackendError as error:
        _require(str(error).strip(), "{}: the BackendError has no text", what)
        return
    except Exception as error:
        raise AssertionError("{}: expected a BackendError, found {!r}".format(what, error)) from error
    raise AssertionError("{}: expected a BackendError, but it was accepted".format(what))


def _same(one: Any, other: Any) -> bool:
    """Bit for bit: NaN equals itself, and -0.0 is not 0.0."""
    first, second = np.asarray(one), np.asarray(other)
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()


def _require(condition: Any, text: str, *values: Any) -> None:
    if not condition:
        raise AssertionError(text.format(*values))
