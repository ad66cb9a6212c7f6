import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball_backends.checks import check_artifact, check_inputs, check_options, fits, run_error
from flyball_backends.contract import BackendError, InputError, Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("image", "uint8", (1, -1, -1, 3)), TensorSpec("scale", "float32", ())),
    (TensorSpec("y", "float32", (1,)),),
)
GOOD = {"image": np.zeros((1, 4, 5, 3), np.uint8), "scale": np.array(2, np.float32)}


def test_what_fits_passes():
    check_inputs(SIGNATURE, GOOD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None}, ["'image'", "NumPy array", "NoneType"]),
        ({"image": [[0]]}, ["list"]),
        ({"image": GOOD["image"].astype(np.int8)}, ["uint8 [1, -1, -1, 3]", "int8 [1, 4, 5, 3]"]),
        ({"image": GOOD["image"][0]}, ["[4, 5, 3]"]),
        ({"image": np.zeros((1, 4, 5, 4), np.uint8)}, ["[1, 4, 5, 4]"]),
        ({"image": np.zeros((2, 4, 5, 3), np.uint8)}, ["[2, 4, 5, 3]"]),
        ({"image": GOOD["image"][:, ::-1]}, ["C-contiguous", "ascontiguousarray"]),
        ({"scale": np.array(2, ">f4")}, ["float32", ">f4"]),
        ({"imgae": GOOD["image"]}, ["'imgae' is no input", "did you mean 'image'?"]),
        ({"image": None, "scale": None}, ["'image'", "'scale'"]),
    ],
)
def test_every_mistake_is_named(changes, words):
    with pytest.raises(BackendError) as caught:
        check_inputs(SIGNATURE, {**GOOD, **changes})
    for word in words:
        assert word in str(caught.value)


def test_what_is_missing_is_described():
    with pytest.raises(
        BackendError, match=r"'image' is missing \(expected uint8 \[1, -1, -1, 3\]\).*'scale' is missing"
    ):
        check_inputs(SIGNATURE, {})


def test_one_missing_and_one_unknown():
    with pytest.raises(BackendError, match=r"'x' is no input; inputs: image, scale.*'scale' is missing"):
        check_inputs(SIGNATURE, {"image": GOOD["image"], "x": GOOD["scale"]})


@given(shape=st.lists(st.integers(0, 5), max_size=4), free=st.lists(st.booleans(), min_size=4, max_size=4))
def test_free_dimensions_take_any_size(shape, free):
    wanted = tuple(-1 if f else s for s, f in zip(shape, free, strict=False))
    assert fits(tuple(shape), wanted)
    assert not fits((*shape, 1), wanted)
    for axis, f in enumerate(free[: len(shape)]):
        grown = tuple(s + (i == axis) for i, s in enumerate(shape))
        assert fits(grown, wanted) == f


def test_a_subclass_of_arrays_is_an_array(tmp_path):
    mapped = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(1, 4, 5, 3))
    check_inputs(SIGNATURE, {**GOOD, "image": mapped})


def test_the_check_costs_little():
    signature = Signature((TensorSpec("x", "float32", (1, -1)),), ())
    inputs = {"x": np.zeros((1, 4), np.float32)}
    best = min(timed(signature, inputs) for _ in range(20))
    assert best < 5e-6  # 0.3 to 1 us here; this is on the way of every request


def timed(signature, inputs, count=500):
    start = time.perf_counter()
    for _ in range(count):
        check_inputs(signature, inputs)
    return (time.perf_counter() - start) / count


def test_artifacts_that_are_none(tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(BackendError, match="is empty"):
        check_artifact(empty)
    with pytest.raises(BackendError, match="No such file"):
        check_artifact(tmp_path / "absent")
    with pytest.raises(BackendError, match="Is a directory"):
        check_artifact(tmp_path)


def test_options_of_another_backend():
    backend = namedtuple("Backend", "name Options")("mine", int)
    check_options(backend, 3)
    with pytest.raises(BackendError, match="backend 'mine': expected its Options, found dict"):
        check_options(backend, {})


def test_a_failed_run_blames_the_caller_only_where_he_chose_the_sizes():
    free = Signature((TensorSpec("x", "float32", (1, -1)),), ())
    fixed = Signature((TensorSpec("x", "float32", (1, 2)),), ())
    inputs = {"x": np.ones((1, 2), np.float32)}
    error = run_error(Path("/srv/m.onnx"), free, inputs, "Status: /build/core/ops.h:5 axis 3 by 4")
    assert isinstance(error, InputError)
    assert str(error) == "the model does not run on inputs of these sizes (x [1, 2]): Status: axis 3 by 4"
    error = run_error(Path("/srv/m.onnx"), fixed, inputs, "out of memory")
    assert not isinstance(error, InputError)
    assert str(error) == "/srv/m.onnx: the run failed: out of memory"
