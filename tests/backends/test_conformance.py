"""The kit lets a sound backend pass and names every fault of the others."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from flyball_backends.checks import check_artifact, check_inputs
from flyball_backends.contract import Accelerator, BackendError, Quantization, Signature, TensorSpec
from flyball_backends.testing import check_backend, check_signature


@dataclass(frozen=True)
class Options:
    offset: float = 1.0


class Session:
    signature = Signature((TensorSpec("x", "float32", (-1, 3)),), (TensorSpec("y", "float32", (-1, 3)),))

    def __init__(self, factor, offset):
        self.factor, self.offset, self.open = factor, offset, True

    def run(self, inputs):
        check_inputs(self.signature, inputs)
        return {"y": inputs["x"] * np.float32(self.factor) + np.float32(self.offset)}

    def close(self):
        self.open = False


class Sound:
    """y = factor * x + offset, with the factor in a JSON file."""

    name = "sound"
    api_version = 1
    Options = Options
    Session: ClassVar = Session

    def probe(self):
        return [Accelerator("cpu", "cpu")]

    def open(self, artifact, options):
        check_artifact(artifact)
        try:
            factor = json.loads(artifact.read_bytes())["factor"]
        except ValueError as error:
            raise BackendError(f"{artifact}: not JSON: {error}") from error
        return self.Session(factor, options.offset)


@pytest.fixture
def artifact(tmp_path) -> Path:
    (tmp_path / "model.json").write_text('{"factor": 2}')
    return tmp_path / "model.json"


def test_a_sound_backend_passes(artifact):
    check_backend(Sound(), artifact)
    check_backend(Sound(), artifact, Options(offset=3.0), {"x": np.ones((4, 3), np.float32)})


def session_with(**members):
    """A sound backend, but for these members of its sessions."""
    return type("Faulty", (Sound,), {"Session": type("FaultySession", (Session,), members)})()


def backend_with(**members):
    return type("Faulty", (Sound,), members)()


@dataclass
class Thawed:
    offset: float = 1.0


@dataclass(frozen=True)
class Demanding:
    offset: float


def no_checks(self, inputs):
    return {"y": np.asarray(inputs["x"]) * 2}


def other_errors(self, inputs):
    if "x" not in inputs:
        raise KeyError("x")
    return Session.run(self, inputs)


def scribbles(self, inputs):
    answer = Session.run(self, inputs)
    inputs["x"][:] = 0
    return answer


def remembers(self, inputs):
    self.offset += 1
    return Session.run(self, inputs)


def broken_by_a_refusal(self, inputs):
    try:
        return Session.run(self, inputs)
    except BackendError:
        self.factor += 1
        raise


def wide(self, inputs):
    return {"y": Session.run(self, inputs)["y"].astype(np.float64)}


def short(self, inputs):
    return {"y": Session.run(self, inputs)["y"][:, :2]}


def renamed(self, inputs):
    return {"z": Session.run(self, inputs)["y"]}


def silent(self, artifact, options):
    try:
        return Sound.open(self, artifact, options)
    except BackendError:
        raise BackendError from None


def careless(self, artifact, options):
    return self.Session(json.loads(artifact.read_text())["factor"], options.offset)


def lenient(self, artifact, options):
    try:
        return Sound.open(self, artifact, options)
    except BackendError:
        return self.Session(1, 0)


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (object(), "is no Backend"),
        (backend_with(name=""), "name: expected a text"),
        (backend_with(api_version=0), "api_version: expected 1, found 0"),
        (backend_with(api_version=None), "api_version: expected 1, found None"),
        (backend_with(Options=dict), "no dataclass"),
        (backend_with(Options=Thawed), "not frozen"),
        (backend_with(Options=Demanding), "every field needs a default"),
        (backend_with(probe=lambda self: ["cpu"]), "'cpu', which is no Accelerator"),
        (backend_with(probe=lambda self: [Accelerator("cpu", "")]), "lacks its kind or id"),
        (backend_with(probe=lambda self: [Accelerator("cpu", "0"), Accelerator("gpu", "0")]), "not unique"),
        (backend_with(Session=lambda *a: 3), "3, which is no Session"),
        (session_with(signature=None), "expected a Signature"),
        (session_with(run=no_checks), "expected a BackendError"),
        (session_with(run=other_errors), "no inputs: expected a BackendError, found KeyError"),
        (session_with(run=scribbles), "changed its input 'x'"),
        (session_with(run=remembers), "'y' differs between two runs"),
        (session_with(run=broken_by_a_refusal), "'y' is another after inputs were refused"),
        (session_with(run=wide), "says float32 [-1, 3], run() gave float64"),
        (session_with(run=short), "run() gave float32 [1, 2]"),
        (session_with(run=renamed), "run() gave ['z'], the signature has ['y']"),
        (backend_with(open=silent), "the BackendError has no text"),
        (backend_with(open=careless), "a missing artifact: expected a BackendError, found FileNotFoundError"),
        (backend_with(open=lenient), "a missing artifact: expected a BackendError, but it was accepted"),
    ],
)
def test_every_fault_is_named(artifact, faulty, words):
    with pytest.raises(AssertionError) as caught:
        check_backend(faulty, artifact)
    assert words in str(caught.value)


def spec(**changes):
    return TensorSpec(
        **{"name": "x", "dtype": "int8", "shape": (1, -1), "quantization": Quantization(0.5, 3), **changes}
    )


GOOD = spec()


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (Signature((), (GOOD,)), "inputs is no tuple of tensors"),
        (Signature((GOOD,), [GOOD]), "outputs is no tuple of tensors"),
        (Signature((GOOD, GOOD), (GOOD,)), "are not unique"),
        (Signature((spec(dtype="int3"),), (GOOD,)), "NumPy has no dtype 'int3'"),
        (Signature((spec(dtype="i1"),), (GOOD,)), "expected the NumPy name"),
        (Signature((spec(dtype="object"),), (GOOD,)), "dtype of numbers"),
        (Signature((spec(shape=(1, -2)),), (GOOD,)), "plain sizes or -1"),
        (Signature((spec(shape=(1, None)),), (GOOD,)), "plain sizes or -1"),
        (Signature((spec(shape=(np.int64(1),)),), (GOOD,)), "plain sizes or -1"),
        (Signature((spec(dtype="float32"),), (GOOD,)), "a quantization on float32"),
        (Signature((spec(quantization=Quantization(0.0, 0)),), (GOOD,)), "no usable quantization"),
        (Signature((spec(quantization=Quantization(1.0, 128)),), (GOOD,)), "no usable quantization"),
    ],
)
def test_signatures_that_cannot_be_right(signature, words):
    check_signature(Signature((GOOD,), (GOOD,)))
    with pytest.raises(AssertionError) as caught:
        check_signature(signature)
    assert words in str(caught.value)


def test_a_probe_that_changes_its_mind(artifact):
    answers = iter([[], [Accelerator("cpu", "0")]])
    with pytest.raises(AssertionError, match="another list on the second call"):
        check_backend(backend_with(probe=lambda self: next(answers)), artifact)
