import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from flyball_backends.contract import BackendError, Quantization, TensorSpec
from flyball_backends.cores import usable_cores
from flyball_backends.litert import LiteRtBackend, LiteRtOptions
from flyball_backends.testing import check_backend, noise
from flyball_kernels.layout import to_layout
from flyball_kernels.normalize import normalize
from flyball_kernels.resize import resize

BACKEND = LiteRtBackend()
MODELS = [
    "detection/ssd_mobilenet_v1_coco_quant", "face/version-slim-320", "hello_world/hello_world_float",
    "hello_world/hello_world_int8", "imagenet/mobilenet_v1_0.25_128_quant", "imagenet/mobilenet_v1_0.25_224_float",
    "imagenet/mobilenet_v1_0.25_224_quant", "imagenet/mobilenet_v1_0.5_160_quant",
    "imagenet/mobilenet_v1_0.75_192_quant", "imagenet/mobilenet_v2_1.0_224_quant", "mlperf_tiny/ad/ad01_fp32",
    "mlperf_tiny/ad/ad01_int8", "mlperf_tiny/ic/pretrainedResnet", "mlperf_tiny/ic/pretrainedResnet_large_float",
    "mlperf_tiny/ic/pretrainedResnet_large_int8", "mlperf_tiny/ic/pretrainedResnet_quant",
    "mlperf_tiny/kws/kws_ref_model", "mlperf_tiny/kws/kws_ref_model_float32", "mlperf_tiny/vww/vww_96_float",
    "mlperf_tiny/vww/vww_96_int8", "mnist/trained_lstm", "mnist/trained_lstm_int8",
]  # fmt: skip


@pytest.fixture
def models(shared_data):
    return shared_data / "models"


def opened(path, threads=0):
    return BACKEND.open(path, LiteRtOptions(threads=threads))


@pytest.mark.parametrize("name", MODELS)
def test_conformance(models, name):
    check_backend(BACKEND, models / f"{name}.tflite")


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_as_the_interpreter_itself(models, name):
    session = opened(models / f"{name}.tflite", threads=2)
    inputs = noise(session.signature)
    direct = Interpreter(str(models / f"{name}.tflite"), num_threads=2)
    direct.allocate_tensors()
    for detail in direct.get_input_details():
        direct.set_tensor(detail["index"], inputs[detail["name"]])
    direct.invoke()
    found = session.run(inputs)
    for detail in direct.get_output_details():
        assert found[detail["name"]].tobytes() == direct.get_tensor(detail["index"]).tobytes()


def test_the_signature_tells_quantization_and_free_dimensions(models):
    quantized = opened(models / "imagenet/mobilenet_v2_1.0_224_quant.tflite").signature
    assert quantized.inputs == (TensorSpec("input", "uint8", (1, 224, 224, 3), Quantization(0.0078125, 128)),)
    (scores,) = quantized.outputs
    assert (scores.dtype, scores.shape, scores.quantization) == ("uint8", (1, 1001), Quantization(1 / 256, 0))
    (image,) = opened(models / "mlperf_tiny/vww/vww_96_int8.tflite").signature.inputs
    assert (image.dtype, image.shape) == ("int8", (-1, 96, 96, 3))
    (x,) = opened(models / "hello_world/hello_world_float.tflite").signature.inputs
    assert x.quantization is None


def test_a_free_batch_may_change_from_run_to_run(models):
    session = opened(models / "mlperf_tiny/ic/pretrainedResnet.tflite")
    (name,) = [t.name for t in session.signature.inputs]
    images = np.random.default_rng(1).random((5, 32, 32, 3), dtype=np.float32) * 255
    alone = [session.run({name: images[i : i + 1]})["Identity"][0] for i in range(5)]
    for batch in (5, 1, 3, 5):
        together = session.run({name: images[:batch]})["Identity"]
        assert together.shape == (batch, 10)
        np.testing.assert_allclose(together, alone[:batch], rtol=1e-4, atol=1e-6)


def test_an_empty_batch_is_refused_and_the_next_run_is_right(models):
    session = opened(models / "hello_world/hello_world_float.tflite")
    (name,) = [t.name for t in session.signature.inputs]
    with pytest.raises(BackendError, match="LiteRT runs no empty tensors"):
        session.run({name: np.zeros((0, 1), np.float32)})
    (answer,) = session.run({name: np.full((1, 1), 1.5, np.float32)}).values()
    assert answer.item() == pytest.approx(np.sin(1.5), abs=0.05)


def test_a_run_leaves_no_state_to_the_next(models):
    """An LSTM's variables outlive an invoke; one client's request must not colour another's."""
    session = opened(models / "mnist/trained_lstm.tflite")
    inputs = noise(session.signature)
    first = {n: a.copy() for n, a in session.run(inputs).items()}
    session.run({name: 1 - array for name, array in inputs.items()})
    for name, array in session.run(inputs).items():
        np.testing.assert_array_equal(array, first[name])


def test_outputs_stay_when_the_next_run_comes(models):
    session = opened(models / "hello_world/hello_world_float.tflite")
    (name,) = [t.name for t in session.signature.inputs]
    held = next(iter(session.run({name: np.zeros((1, 1), np.float32)}).values()))
    before = held.copy()
    session.run({name: np.full((1, 1), 1.5, np.float32)})
    np.testing.assert_array_equal(held, before)


CAT = {282, 283, 286}  # tabby, tiger cat, Egyptian cat
UNIFORM, HOT_DOG, MACAW = {653}, {935}, {89}
# With the whole picture squeezed to a square. What is left out, the small models get wrong: that is their accuracy.
RIGHT = {
    "mobilenet_v1_0.25_128_quant": {"cat.bmp": CAT, "parrot.jpg": MACAW},
    "mobilenet_v1_0.25_224_float": {"cat.bmp": CAT, "parrot.jpg": MACAW},
    "mobilenet_v1_0.5_160_quant": {"cat.bmp": CAT, "parrot.jpg": MACAW, "hot_dog.jpg": HOT_DOG},
    "mobilenet_v1_0.75_192_quant": {
        "cat.bmp": CAT, "parrot.jpg": MACAW, "hot_dog.jpg": HOT_DOG, "grace_hopper.bmp": UNIFORM,
    },
    "mobilenet_v2_1.0_224_quant": {
        "cat.bmp": CAT, "parrot.jpg": MACAW, "hot_dog.jpg": HOT_DOG, "grace_hopper.bmp": UNIFORM,
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "picture"), [(n, p) for n, pictures in RIGHT.items() for p in pictures])
def test_pictures_are_recognized(models, shared_data, name, picture):
    session = opened(models / "imagenet" / f"{name}.tflite")
    (spec,) = session.signature.inputs
    with Image.open(shared_data / "images" / picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    small = resize(pixels, spec.shape[1], spec.shape[2], "bilinear")
    if spec.dtype == "float32":
        small = normalize(small, (127.5,) * 3, (127.5,) * 3)
    (scores,) = session.run({spec.name: to_layout(small, "NHWC")}).values()
    assert int(scores[0].argmax()) in RIGHT[name][picture]


class TestFilesThatCannotBeOpened:
    @pytest.mark.parametrize(
        ("file", "operation", "advice"),
        [
            ("bad/model_invoking_error", "fake-op-double", "built-in operations only"),
            ("bad/person_detect_vela", "ethos-u", "compiled for an Arm Ethos-U"),
            ("imagenet/mobilenet_v1_0.25_128_quant_edgetpu", "edgetpu-custom-op", "backend 'edgetpu'"),
            ("imagenet/mobilenet_v2_1.0_224_quant_edgetpu", "edgetpu-custom-op", "compiled for the Edge TPU"),
        ],
    )
    def test_an_unknown_operation_is_named(self, models, file, operation, advice):
        with pytest.raises(BackendError) as caught:
            opened(models / f"{file}.tflite")
        text = str(caught.value)
        assert f"{file}.tflite: the runtime does not have the operation {operation!r}" in text
        assert advice in text
        assert "\n" not in text

    def test_cut_short_anywhere(self, models, tmp_path):
        whole = (models / "mlperf_tiny/kws/kws_ref_model.tflite").read_bytes()
        path = tmp_path / "cut.tflite"
        for length in [*range(1, 40), *range(40, len(whole), 3001), len(whole) - 1]:
            path.write_bytes(whole[:length])
            with pytest.raises(BackendError, match="not a LiteRT model, or cut short"):
                opened(path)

    @pytest.mark.parametrize("data", [b"\0" * 100, b"\x1c\0\0\0TFL3" + b"\xff" * 100, b"hello, world"])
    def test_another_format(self, tmp_path, data):
        (tmp_path / "x.tflite").write_bytes(data)
        with pytest.raises(BackendError, match="not a LiteRT model"):
            opened(tmp_path / "x.tflite")


def test_after_close_it_says_so(models):
    session = opened(models / "hello_world/hello_world_float.tflite")
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(noise(session.signature))
    session.close()


def test_another_backends_options(models):
    with pytest.raises(BackendError, match="expected its Options, found NoneType"):
        BACKEND.open(models / "hello_world/hello_world_float.tflite", None)


def test_probe_lists_the_cpu():
    (cpu,) = BACKEND.probe()
    assert (cpu.kind, cpu.id, cpu.detail) == ("cpu", "cpu", f"ai-edge-litert, {usable_cores()} core(s)")


class TestOtherInstallations:
    """In a process of their own, with stand-ins for the packages in front of the real ones."""

    CODE = (
        "import sys, pathlib; from flyball_backends.litert import *; b = LiteRtBackend();"
        "print([a.detail.split(',')[0] for a in b.probe()])"
        "\ntry: b.open(pathlib.Path(sys.argv[1]), LiteRtOptions(threads=2)); print('opened')"
        "\nexcept BackendError as error: print(error)"
    )

    def run(self, tmp_path, **packages):
        (tmp_path / "m.tflite").write_bytes(b"not empty")
        for name, code in packages.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").touch()
            (tmp_path / name / "interpreter.py").write_text(code)
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, str(tmp_path / "m.tflite")], env={"PYTHONPATH": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.splitlines(), done.stderr

    def test_neither(self, tmp_path):
        missing = "raise ImportError('not here')"
        lines, errors = self.run(tmp_path, ai_edge_litert=missing, tflite_runtime=missing)
        assert lines[0] == "[]"
        assert "ai-edge-litert: not here; tflite-runtime: not here" in lines[1]
        assert "pip install 'flyball[litert]'" in lines[1]
        assert errors == ""

    def test_damaged(self, tmp_path):
        """A library that breaks while it is imported is no accelerator either, but worth a line in the log."""
        lines, errors = self.run(
            tmp_path, ai_edge_litert="raise SystemError('another ABI')", tflite_runtime="raise ImportError('no')"
        )
        assert lines[0] == "[]"
        assert "another ABI" in lines[1]
        assert "another ABI" in errors

    def test_tflite_runtime_alone(self, tmp_path):
        stand_in = (
            "def load_delegate(*a): pass\n"
            "class Interpreter:\n"
            "    def __init__(self, model_path, num_threads, experimental_delegates): self.threads = num_threads\n"
            "    def allocate_tensors(self): assert self.threads == 2\n"
            "    def get_input_details(self): return []\n"
            "    get_output_details = get_input_details\n"
        )
        lines, _ = self.run(tmp_path, ai_edge_litert="raise ImportError('no')", tflite_runtime=stand_in)
        assert lines == ["['tflite-runtime']", "opened"]

    def test_tflite_runtime_fails_late_with_numpy_2(self, tmp_path):
        stand_in = (
            "def load_delegate(*a): pass\n"
            "class Interpreter:\n"
            "    def __init__(self, **k): raise SystemError('initialization of _pywrap raised unreported exception')\n"
        )
        lines, _ = self.run(tmp_path, ai_edge_litert="raise ImportError('no')", tflite_runtime=stand_in)
        assert lines[0] == "['tflite-runtime']"
        if np.__version__.startswith("1."):
            assert "_pywrap" in lines[1]
        else:
            assert f"tflite-runtime is built for NumPy 1 and found {np.__version__}" in lines[1]
            assert "pip install 'numpy<2'" in lines[1]
