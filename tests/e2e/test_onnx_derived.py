"""A tensor ladder of the same weights as fp32, fp16 and int8: bit for bit what ONNX Runtime gives, and close kin."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from real_daemon import Daemon, flyball

from flyball.demo.surface import draw
from flyball_backends.onnx import OnnxBackend

NAME = "mobilenet_v1_0.25_224"
RUNGS = {"fp32": f"{NAME}_fp32", "fp16": f"{NAME}_fp16", "int8": f"{NAME}_int8_qdq"}
AGREEMENT = {"fp16": 0.99, "int8": 0.90}
PICTURES = 500


@pytest.fixture(scope="module")
def served(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("derived")
    models = [shared_data / f"models/onnx_derived/{file}.onnx" for file in RUNGS.values()]
    flyball("ladder", "new", *models, "--name", "derived", "--task", "tensor", "--out", home / "derived")
    one = Daemon(home / "d", '[governor]\nmode = "observe"\n', ladders=(home / "derived",))
    one.until_ready()
    yield one
    assert one.stop() == 0, one.log


def inputs(count: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for seed in range(count):
        image = draw(seed)[0].astype(np.float32) / 127.5 - 1
        yield (image.transpose(2, 0, 1) if shape[1] == 3 else image)[None]


def test_agreement_and_equality(served: Daemon, shared_data: Path, record_property: pytest.FixtureRequest) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
    metadata = client.get_model_metadata("derived")
    (given,), (taken,) = metadata["inputs"], metadata["outputs"]
    shape = tuple(int(n) for n in given["shape"])
    best: dict[str, list[int]] = {}
    for precision, file in RUNGS.items():
        served.client.switch("derived", file, None)
        backend = OnnxBackend()
        session = backend.open(shared_data / f"models/onnx_derived/{file}.onnx", backend.Options(threads=1))
        own = session.signature.inputs[0]
        best[precision] = []
        for index, image in enumerate(inputs(PICTURES, shape)):
            tensor = triton.InferInput(given["name"], list(image.shape), "FP32")
            tensor.set_data_from_numpy(np.ascontiguousarray(image), binary_data=True)
            answer = client.infer("derived", [tensor]).as_numpy(taken["name"])
            best[precision].append(int(answer.argmax()))
            if index < 25:
                direct = session.run({own.name: np.ascontiguousarray(image.astype(own.dtype))})
                (expected,) = direct.values()
                assert answer.tobytes() == expected.astype(np.float32).tobytes(), f"{precision}, picture {index}"
        session.close()
    for precision, floor in AGREEMENT.items():
        agreement = float(np.mean(np.array(best[precision]) == np.array(best["fp32"])))
        record_property(f"agreement_{precision}", agreement)  # type: ignore[operator]
        print(f"{precision} agrees with fp32 on {agreement:.1%} of {PICTURES} generated pictures")
        assert agreement >= floor
