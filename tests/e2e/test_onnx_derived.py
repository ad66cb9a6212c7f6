"""Tensor ladders of the same weights as fp32, fp16 and int8: bit for bit what ONNX Runtime gives, and close kin."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from real_daemon import Daemon, flyball

from flyball_backends.onnx import OnnxBackend

FILES = {"fp32": "fp32", "fp16": "fp16", "int8": "int8_qdq"}
AGREEMENT = {"fp16": 0.99, "int8": 0.90}
PICTURES = 500


class Disagreement(AssertionError):
    """Of its own kind, so that an expected one hides no wrong bits."""


def generated(shared_data: Path, side: int, count: int) -> Iterator[np.ndarray]:
    """Seeded cuttings of the real pictures, some mirrored, darker or brighter; float32 [side, side, 3], 0..255."""
    names = ("cat.bmp", "parrot.jpg", "hot_dog.jpg", "grace_hopper.bmp")
    photos = [np.asarray(Image.open(shared_data / "images" / n).convert("RGB")) for n in names]
    random = np.random.default_rng(0)
    for index in range(count):
        photo = photos[index % len(photos)]
        height, width = photo.shape[:2]
        cut = int(min(height, width) * random.uniform(0.5, 1.0))
        top, left = random.integers(0, height - cut + 1), random.integers(0, width - cut + 1)
        picture = Image.fromarray(photo[top : top + cut, left : left + cut]).resize(
            (side, side), Image.Resampling.BILINEAR
        )
        pixels = np.asarray(picture)
        if random.random() < 0.5:
            pixels = pixels[:, ::-1]
        yield np.clip(pixels * random.uniform(0.7, 1.2), 0, 255).astype(np.float32)


@pytest.mark.parametrize(
    ("family", "normalize"),
    [
        ("resnet8_cifar10", lambda v: v),
        ("resnet_large_cifar10", lambda v: v),
        ("vww_96", lambda v: v / 255),
        pytest.param(
            "mobilenet_v1_0.25_224",
            lambda v: v / 127.5 - 1,
            marks=pytest.mark.xfail(
                strict=True,
                raises=Disagreement,
                reason="its int8 conversion agrees with fp32 on 73.6 % of the generated pictures, not on 90 %; "
                "top-1 falls from 56.9 % to 55.1 % on the shared data's HOLDOUT set",
            ),
        ),
    ],
    ids=["resnet8", "resnet-large", "vww", "mobilenet"],
)
def test_equality_and_agreement(
    shared_data: Path,
    tmp_path: Path,
    daemon: Callable[..., Daemon],
    record_property: Callable[[str, object], None],
    family: str,
    normalize: Callable[[np.ndarray], np.ndarray],
) -> None:
    models = {p: shared_data / f"models/onnx_derived/{family}_{suffix}.onnx" for p, suffix in FILES.items()}
    flyball("ladder", "new", *models.values(), "--name", "kin", "--task", "tensor", "--out", tmp_path / "kin")
    served = daemon(ladders=(tmp_path / "kin",)).until_ready()
    client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
    metadata = client.get_model_metadata("kin")
    (given,), (taken,) = metadata["inputs"], metadata["outputs"]
    side = int(given["shape"][1])
    pictures = [normalize(p)[None].astype(np.float32) for p in generated(shared_data, side, PICTURES)]
    best: dict[str, list[int]] = {}
    for precision, path in models.items():
        served.client.switch("kin", path.stem)
        backend = OnnxBackend()
        session = backend.open(path, backend.Options())
        own = session.signature.inputs[0]
        best[precision] = []
        for index, picture in enumerate(pictures):
            tensor = triton.InferInput(given["name"], list(picture.shape), "FP32")
            tensor.set_data_from_numpy(picture, binary_data=True)
            answer = client.infer("kin", [tensor]).as_numpy(taken["name"])
            best[precision].append(int(answer.argmax()))
            (expected,) = session.run({own.name: picture.astype(own.dtype)}).values()
            assert answer.tobytes() == expected.astype(np.float32).tobytes(), f"{precision}, picture {index}"
        session.close()
    for precision, floor in AGREEMENT.items():
        agreement = float(np.mean(np.array(best[precision]) == np.array(best["fp32"])))
        record_property(f"{family}_{precision}_agreement", agreement)
        print(f"{family}: {precision} agrees with fp32 on {agreement:.1%} of {PICTURES} generated pictures")
        if agreement < floor:
            raise Disagreement(f"{family}: {precision}: expected at least {floor:.1%}, found {agreement:.1%}")
