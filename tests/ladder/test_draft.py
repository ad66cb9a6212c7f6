"""Manifests written from signatures: the steps follow from the tensors, and the loader accepts the text."""

import hashlib
from pathlib import Path

import pytest

from flyball.errors import LadderError
from flyball.ladder.draft import DraftRequest, ModelFacts, TensorFacts, backend_for, draft, guess_task, rung_name
from flyball.ladder.manifest import LadderFolder, load
from flyball.ladder.steps import Cast, Dequantize, Layout, Normalize, Quantize, Rename, Resize, Softmax

SHA = hashlib.sha256(b"m").hexdigest()


def tensor(
    name: str, dtype: str, *shape: int, scale: float | None = None, zero_point: int | None = None
) -> TensorFacts:
    return TensorFacts(name=name, dtype=dtype, shape=shape, scale=scale, zero_point=zero_point)


def model(rung: str, given: TensorFacts, taken: TensorFacts, probabilities: bool = False) -> ModelFacts:
    return ModelFacts(
        rung=rung, backend="onnx", artifact=f"{rung}.onnx", sha256=SHA, inputs=(given,), outputs=(taken,),
        probabilities=probabilities,
    )  # fmt: skip


def written(tmp_path: Path, request: DraftRequest) -> LadderFolder:
    for m in request.models:
        (tmp_path / m.artifact).write_bytes(b"m")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    (tmp_path / "flyball-ladder.toml").write_text(draft(request))
    return load(tmp_path)


def images(*models: ModelFacts, labels: int = 3) -> DraftRequest:
    return DraftRequest(
        name="x", version="1", task="image-classification", models=models, labels="labels.txt", label_count=labels
    )


def test_steps_for_pictures_follow_the_signature(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        images(
            model("float-nchw", tensor("i", "float32", 1, 3, 24, 32), tensor("o", "float32", 1, 3)),
            model("uint8-nhwc", tensor("i", "uint8", 1, 24, 24, 3, scale=1 / 128, zero_point=128),
                  tensor("o", "uint8", 1, 3, scale=1 / 256, zero_point=0), probabilities=True),
            model("int8-nhwc", tensor("i", "int8", -1, 24, 24, 3, scale=1 / 255, zero_point=-128),
                  tensor("o", "int8", 1, 3, scale=0.1, zero_point=3)),
            model("half", tensor("i", "float16", 1, 3, 24, 24), tensor("o", "float16", 1, 3)),
        ),
    )  # fmt: skip
    floats, uints, ints, halves = folder.manifest.rung
    middle = Normalize(mean=(127.5,) * 3, std=(127.5,) * 3)
    assert floats.pre == (Resize(width=32, height=24), middle, Layout(order="NCHW"))
    assert floats.post == (Softmax(),)
    assert uints.pre == (Resize(width=24, height=24), Layout(order="NHWC"))
    assert uints.post == (Dequantize(scale=1 / 256, zero_point=0),)
    # real = (q + 128) / 255, so pixel p becomes p / 255 and then q = p - 128
    assert ints.pre == (
        Resize(width=24, height=24),
        Normalize(mean=(0.0,) * 3, std=(255.0,) * 3),
        Layout(order="NHWC"),
        Quantize(scale=1 / 255, zero_point=-128, dtype="int8"),
    )
    assert ints.post == (Dequantize(scale=0.1, zero_point=3), Softmax())
    assert halves.pre[-1] == Cast(dtype="float16")
    assert halves.post == (Cast(dtype="float32"), Softmax())


def test_tensors_of_other_names_and_types_are_led_to_the_public_ones(tmp_path: Path) -> None:
    first = model("f", tensor("x", "float32", 1, 4), tensor("y", "float32", 1, 2))
    second = model(
        "q", tensor("xq", "int8", 1, 4, scale=0.5, zero_point=1), tensor("yq", "int8", 1, 2, scale=0.25, zero_point=0)
    )
    folder = written(tmp_path, DraftRequest(name="x", version="1", task="tensor", models=(first, second)))
    assert [t.name for t in folder.interface().inputs] == ["x"]
    assert folder.manifest.rung[0].pre == ()
    assert folder.manifest.rung[1].pre == (
        Rename(tensor="x", to="xq"),
        Quantize(scale=0.5, zero_point=1, dtype="int8", tensor="x"),
    )
    assert folder.manifest.rung[1].post == (
        Rename(tensor="yq", to="y"),
        Dequantize(scale=0.25, zero_point=0, tensor="y"),
    )


def test_models_that_do_not_fit_are_all_named() -> None:
    bad = model("flat", tensor("i", "float32", 1, 100), tensor("o", "float32", 1, 3))
    many = model("many", tensor("i", "float32", 1, 3, 8, 8), tensor("o", "float32", 1, 5))
    with pytest.raises(LadderError) as caught:
        draft(images(bad, many))
    assert [("flat.onnx" in p, "5 scores" in p) for p in caught.value.problems] == [(True, False), (False, True)]


def test_the_task_is_guessed_from_the_first_model() -> None:
    pictures = model("a", tensor("i", "uint8", 1, 8, 8, 3), tensor("o", "uint8", 1, 3))
    assert guess_task(pictures, has_labels=True) == "image-classification"
    assert guess_task(pictures, has_labels=False) == "tensor"
    assert guess_task(model("a", tensor("i", "float32", 1, 8), tensor("o", "float32", 1)), True) == "tensor"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.onnx", ("onnx", ("cpu",))),
        ("a.tflite", ("litert", ("cpu",))),
        ("a_edgetpu.tflite", ("edgetpu", ("edgetpu",))),
    ],
)
def test_the_backend_follows_from_the_file_name(name: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert backend_for(name) == expected


def test_a_file_that_is_no_model() -> None:
    with pytest.raises(LadderError, match=r"expected a \.onnx or \.tflite file"):
        backend_for("a.pt")


def test_rung_names_are_made_of_file_names() -> None:
    assert rung_name("my model (v2).onnx") == "my-model--v2"
    assert rung_name("....onnx") == "rung"
