"""Pipelines: every step does what the manifest says, and the caller's mistakes are told apart from the rung's."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flyball.engine.pipeline import Failure, Pipeline
from flyball.engine.slots import SlotTensor
from flyball.engine.tasks import BadRequest, PlanError
from flyball_backends.contract import Signature, TensorSpec


class Echo:
    """A session that keeps what it was given and gives what it was told."""

    def __init__(self, given: TensorSpec, taken: TensorSpec, answer: np.ndarray | None = None) -> None:
        self.signature = Signature((given,), (taken,))
        self.answer = answer
        self.seen: np.ndarray = np.empty(0)

    def run(self, inputs: Any) -> Any:
        (self.seen,) = inputs.values()
        self.seen = self.seen.copy()
        return {self.signature.outputs[0].name: self.seen if self.answer is None else self.answer}

    def close(self) -> None:
        pass


Steps = list[dict[str, Any]]


def image_plan(tmp_path: Path, pre: Steps, post: Steps | None = None, k: int = 2) -> dict[str, Any]:
    return {
        "task": "image-classification", "labels": ["cat", "dog", "öwl"], "top_k": k, "max_pixels": 1_000_000,
        "batch": 1, "pre": pre, "post": post or [], "input": "", "output": "",
    }  # fmt: skip


def resize(height: int, width: int, **more: Any) -> dict[str, Any]:
    return {"step": "resize", "height": height, "width": width, "method": "area", "fit": "stretch", "fill": 7, **more}


NHWC = {"step": "layout", "order": "NHWC"}
NCHW = {"step": "layout", "order": "NCHW"}
SCORES = np.array([[0.1, 0.7, 0.2]], np.float32)


def pixels(image: np.ndarray) -> SlotTensor:
    return SlotTensor("UINT8", image.shape, memoryview(image.tobytes()))


def encoded(data: bytes) -> SlotTensor:
    return SlotTensor("BYTES", (1,), memoryview(struct.pack("<I", len(data)) + data))


def file(image: np.ndarray, form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, form)
    return out.getvalue()


def picture_session(dtype: str = "uint8", shape: tuple[int, ...] = (1, 2, 4, 3), answer: np.ndarray = SCORES) -> Echo:
    return Echo(TensorSpec("in", dtype, shape), TensorSpec("out", str(answer.dtype), answer.shape), answer)


IMAGE = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)


def test_pixels_go_through_the_steps_in_order(tmp_path: Path) -> None:
    session = picture_session("float32", (1, 3, 2, 4))
    normalize = {"step": "normalize", "mean": [1, 2, 3], "std": [2, 4, 8]}
    Pipeline(image_plan(tmp_path, [resize(2, 4), normalize, NCHW]), session).run([pixels(IMAGE)])
    small = np.rint(IMAGE.reshape(2, 2, 4, 2, 3).astype(np.float64).mean(axis=(1, 3)))
    expected = ((small - [1, 2, 3]) / [2, 4, 8]).astype(np.float32).transpose(2, 0, 1)[None]
    assert session.seen.dtype == np.float32
    np.testing.assert_allclose(session.seen, expected, rtol=1e-6)


def test_the_best_labels_come_first(tmp_path: Path) -> None:
    result = Pipeline(image_plan(tmp_path, [resize(2, 4), NHWC]), picture_session()).run([pixels(IMAGE)])
    (_, shape, scores), (_, _, labels) = result.outputs
    assert shape == (2,)
    assert np.frombuffer(scores, np.float32).tolist() == [np.float32(0.7), np.float32(0.2)]
    assert bytes(labels) == b"\x03\0\0\0dog" + b"\x04\0\0\0" + "öwl".encode()
    assert all(ns >= 0 for ns in result.durations_ns)


def test_quantized_scores_become_real_ones(tmp_path: Path) -> None:
    post = [{"step": "dequantize", "scale": 0.5, "zero_point": 10, "tensor": ""}]
    session = picture_session(answer=np.array([[12, 10, 20]], np.uint8))
    outputs = Pipeline(image_plan(tmp_path, [resize(2, 4), NHWC], post, k=3), session).run([pixels(IMAGE)]).outputs
    assert np.frombuffer(outputs[0][2], np.float32).tolist() == [5.0, 1.0, 0.0]


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG"])
def test_files_are_decoded_here(tmp_path: Path, form: str) -> None:
    flat = np.full((4, 8, 3), 100, np.uint8)
    session = picture_session()
    Pipeline(image_plan(tmp_path, [resize(2, 4), NHWC]), session).run([encoded(file(flat, form))])
    assert np.abs(session.seen.astype(int) - 100).max() <= 3


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    session = picture_session()
    pipeline = Pipeline(image_plan(tmp_path, [resize(2, 4), NHWC]), session)
    pipeline.run([encoded(file(np.full((4, 8), 9, np.uint8), "PNG"))])
    assert session.seen.shape == (1, 2, 4, 3)
    pipeline.run([encoded(file(np.full((4, 8, 4), 9, np.uint8), "PNG"))])
    assert session.seen.shape == (1, 2, 4, 3)


@pytest.mark.parametrize(
    ("fit", "expected"),
    [("crop", [[1, 2]]), ("letterbox", [[7, 7, 7]])],
)
def test_fits(tmp_path: Path, fit: str, expected: list[list[int]]) -> None:
    image = np.repeat(np.array([[0, 1, 2, 3]], np.uint8), 2, axis=0)[:, :, None].repeat(3, axis=2)
    if fit == "crop":
        session = picture_session(shape=(1, 2, 2, 3))
        Pipeline(image_plan(tmp_path, [resize(2, 2, fit=fit), NHWC]), session).run([pixels(image)])
        assert session.seen[0, :, :, 0].tolist() == expected * 2
    else:
        session = picture_session(shape=(1, 4, 4, 3))
        Pipeline(image_plan(tmp_path, [resize(4, 4, fit=fit), NHWC]), session).run([pixels(image)])
        assert session.seen[0, :, :, 0].tolist() == [[7] * 4, [0, 1, 2, 3], [0, 1, 2, 3], [7] * 4]


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (encoded(b""), "no readable image"),
        (encoded(b"hello"), "no readable image"),
        (
            encoded(file(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "PNG")[:6000]),
            "no readable image",
        ),
        (encoded(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "no readable image"),
        (SlotTensor("BYTES", (1,), memoryview(b"\xff\0\0\0x")), "4-byte length"),
        (SlotTensor("BYTES", (1,), memoryview(b"\0")), "4-byte length"),
        (SlotTensor("UINT8", (0, 4, 3), memoryview(b"")), "at least one pixel"),
        (encoded(file(np.zeros((1001, 1000), np.uint8), "PNG")), r"at most 1000000 \(max_pixels\)"),
    ],
)
def test_what_is_the_callers_mistake(tmp_path: Path, tensor: SlotTensor, expected: str) -> None:
    pipeline = Pipeline(image_plan(tmp_path, [resize(2, 4), NHWC]), picture_session())
    with pytest.raises(BadRequest, match=expected):
        pipeline.run([tensor])


def test_what_is_the_manifests_mistake(tmp_path: Path) -> None:
    four = picture_session(answer=np.zeros((1, 4), np.float32))
    with pytest.raises(Failure, match="4 scores but the ladder has 3 labels"):
        Pipeline(image_plan(tmp_path, [resize(2, 4), NHWC]), four).run([pixels(IMAGE)])
    plan = image_plan(tmp_path, [resize(2, 4), NHWC])
    with pytest.raises(PlanError, match="name one of them"):
        Pipeline({**plan, "input": "nothing"}, picture_session())


def tensor_plan(pre: Steps, post: Steps) -> dict[str, Any]:
    both = {"datatype": "FP32", "shape": [1, -1]}
    return {
        "task": "tensor", "batch": 1, "pre": pre, "post": post,
        "inputs": [{"name": "x", **both}], "outputs": [{"name": "y", **both}],
    }  # fmt: skip


def floats(*values: float) -> SlotTensor:
    return SlotTensor("FP32", (1, len(values)), memoryview(np.array(values, np.float32).tobytes()))


def test_tensors_pass_untouched_without_steps() -> None:
    session = Echo(TensorSpec("whatever", "float32", (1, -1)), TensorSpec("other", "float32", (1, -1)))
    ((datatype, shape, data),) = Pipeline(tensor_plan([], []), session).run([floats(1.5, -2)]).outputs
    assert (datatype, shape, bytes(data)) == ("FP32", (1, 2), np.array([1.5, -2], np.float32).tobytes())


def test_a_quantized_rung_behind_real_tensors() -> None:
    pre = [{"step": "quantize", "scale": 0.5, "zero_point": 3, "dtype": "int8", "tensor": "x"}]
    post = [{"step": "dequantize", "scale": 0.5, "zero_point": 3, "tensor": "y"}]
    session = Echo(TensorSpec("xq", "int8", (1, -1)), TensorSpec("yq", "int8", (1, -1)))
    ((_, _, data),) = Pipeline(tensor_plan(pre, post), session).run([floats(1.0, -2.0)]).outputs
    assert session.seen.tolist() == [[5, -1]]
    assert np.frombuffer(data, np.float32).tolist() == [1.0, -2.0]
    with pytest.raises(BadRequest, match="input 'x'"):
        Pipeline(tensor_plan(pre, post), session).run([floats(float("nan"))])


def test_an_output_of_another_type_than_declared_is_not_passed_on() -> None:
    session = Echo(TensorSpec("x", "float32", (1, -1)), TensorSpec("y", "float64", (1, -1)), np.zeros((1, 2)))
    with pytest.raises(Failure, match="declares FP32 but the rung gives float64"):
        Pipeline(tensor_plan([], []), session).run([floats(1.0)])


def test_inputs_that_nothing_feeds_are_named() -> None:
    session = Echo(TensorSpec("x", "float32", (1, -1)), TensorSpec("y", "float32", (1, -1)))
    session.signature = Signature(
        (*session.signature.inputs, TensorSpec("mask", "float32", (1,))), session.signature.outputs
    )
    with pytest.raises(PlanError, match=r"\['mask'\] are fed by no tensor"):
        Pipeline(tensor_plan([], []), session)
