import subprocess
import sys

import numpy as np
import onnx_files as files
import onnxruntime
import pytest

from flyball_backends.contract import BackendError, InputError, TensorSpec
from flyball_backends.onnx import OnnxBackend, OnnxOptions
from flyball_backends.testing import check_backend, noise

BACKEND = OnnxBackend()


@pytest.fixture
def artifact(tmp_path):
    def write(data, name="model.onnx"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


def refused(path):
    with pytest.raises(BackendError) as caught:
        BACKEND.open(path, OnnxOptions())
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text


@pytest.mark.parametrize(
    ("kind", "dtype"), [(files.FLOAT, "float32"), (files.FLOAT16, "float16"), (files.INT64, "int64")]
)
def test_conformance(artifact, kind, dtype):
    path = artifact(files.doubling(kind, ("batch", 3)))
    check_backend(BACKEND, path)
    session = BACKEND.open(path, OnnxOptions())
    assert session.signature.inputs == (TensorSpec("x", dtype, (-1, 3)),)
    for batch in (1, 4, 0):
        x = np.arange(batch * 3).reshape(batch, 3).astype(dtype)
        answer = session.run({"x": x})["y"]
        assert answer.dtype == dtype
        np.testing.assert_array_equal(answer, x + x)


@pytest.mark.parametrize("level", ["all", "extended", "basic", "none"])
@pytest.mark.parametrize("spinning", [True, False])
def test_every_option_gives_the_same_answer(artifact, level, spinning):
    session = BACKEND.open(artifact(files.doubling()), OnnxOptions(2, spinning, level))
    assert session.run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2, 2, 2, 2]]


def test_options_reach_the_runtime(artifact):
    session = BACKEND.open(artifact(files.doubling()), OnnxOptions(threads=3))
    settings = session._session.get_session_options()
    assert settings.intra_op_num_threads == 3
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session._session.get_providers() == ["CPUExecutionProvider"]


def test_any_mapping_will_do(artifact):
    import types

    session = BACKEND.open(artifact(files.doubling()), OnnxOptions())
    inputs = types.MappingProxyType({"x": np.ones((1, 4), np.float32)})
    assert session.run(inputs)["y"].sum() == 8


def test_probe_lists_the_cpu():
    (cpu,) = BACKEND.probe()
    assert (cpu.kind, cpu.id) == ("cpu", "cpu")
    assert onnxruntime.__version__ in cpu.detail


def test_weights_that_are_graph_inputs_too_are_not_asked_for(artifact):
    data = files.model(
        [files.node("Add", ["x", "w"], ["y"])],
        [files.value_info("x", files.FLOAT, [2]), files.value_info("w", files.FLOAT, [2])],
        [files.value_info("y", files.FLOAT, [2])],
        initializers=[files.float_tensor("w", [10, 20])],
    )
    session = BACKEND.open(artifact(data), OnnxOptions())
    assert [t.name for t in session.signature.inputs] == ["x"]
    assert session.run({"x": np.zeros(2, np.float32)})["y"].tolist() == [10, 20]


class TestFilesThatCannotBeOpened:
    def test_cut_short_anywhere(self, artifact):
        whole = files.doubling()
        for length in range(1, len(whole), 7):
            try:
                BACKEND.open(artifact(whole[:length]), OnnxOptions()).close()
            except BackendError as error:
                assert "model.onnx" in str(error)  # noqa: PT017 - some cuts leave a smaller whole model

    @pytest.mark.parametrize("data", [b"\0" * 100, b"TFL3", b"\x89PNG\r\n", b"hello, world"])
    def test_another_format(self, artifact, data):
        assert "not an ONNX model, or cut short" in refused(artifact(data))

    def test_an_unknown_operation_is_named(self, artifact):
        data = files.model(
            [files.node("FluxCapacitor", ["x"], ["y"], "com.example")],
            [files.value_info("x", files.FLOAT, [1])],
            [files.value_info("y", files.FLOAT, [1])],
            domains=["com.example"],
        )
        text = refused(artifact(data))
        assert "FluxCapacitor" in text
        assert "an operation that this ONNX Runtime does not have" in text

    def test_missing_external_weights(self, artifact):
        data = files.model(
            [files.node("Add", ["x", "w"], ["y"])],
            [files.value_info("x", files.FLOAT, [2])],
            [files.value_info("y", files.FLOAT, [2])],
            initializers=[files.external_tensor("w", [2], "weights.bin", 8)],
        )
        text = refused(artifact(data))
        assert "the weights are in a second file" in text
        assert "weights.bin" in text

    def test_external_weights_that_are_there(self, artifact):
        data = files.model(
            [files.node("Add", ["x", "w"], ["y"])],
            [files.value_info("x", files.FLOAT, [2])],
            [files.value_info("y", files.FLOAT, [2])],
            initializers=[files.external_tensor("w", [2], "weights.bin", 8)],
        )
        artifact(np.array([1, 2], np.float32).tobytes(), "weights.bin")
        session = BACKEND.open(artifact(data), OnnxOptions())
        assert session.run({"x": np.zeros(2, np.float32)})["y"].tolist() == [1, 2]

    @pytest.mark.parametrize(("opset", "ir_version"), [(99, 8), (17, 99)])
    def test_made_for_a_newer_runtime(self, artifact, opset, ir_version):
        x = files.value_info("x", files.FLOAT, [1])
        y = files.value_info("y", files.FLOAT, [1])
        data = files.model([files.node("Abs", ["x"], ["y"])], [x], [y], opset=opset, ir_version=ir_version)
        assert "made for a newer ONNX" in refused(artifact(data))

    @pytest.mark.parametrize(("kind", "operation"), [(files.STRING, "Identity"), (files.BFLOAT16, "Identity")])
    def test_tensors_that_are_no_numbers(self, artifact, kind, operation):
        x, y = files.value_info("x", kind, [1]), files.value_info("y", kind, [1])
        text = refused(artifact(files.model([files.node(operation, ["x"], ["y"])], [x], [y])))
        assert "input 'x' is a tensor(" in text

    def test_a_name_that_is_no_text(self, artifact, capfd):
        data = files.doubling().replace(b"graph", b"\xff\xff\xff\xff\xff").replace(b"\x01x", b"\x01\xff")
        refused(artifact(data))
        assert capfd.readouterr() == ("", "")

    def test_a_wrong_graph(self, artifact):
        data = files.model(
            [files.node("Add", ["x", "nowhere"], ["y"])],
            [files.value_info("x", files.FLOAT, [1])],
            [files.value_info("y", files.FLOAT, [1])],
        )
        assert "nowhere" in refused(artifact(data))


def test_free_sizes_that_do_not_go_together_are_the_callers_mistake(artifact):
    data = files.model(
        [files.node("MatMul", ["a", "b"], ["y"])],
        [files.value_info("a", files.FLOAT, ["m", "k"]), files.value_info("b", files.FLOAT, ["l", "n"])],
        [files.value_info("y", files.FLOAT, ["m", "n"])],
    )
    session = BACKEND.open(artifact(data), OnnxOptions())
    a, b = np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)
    with pytest.raises(
        InputError, match=r"does not run on inputs of these sizes \(a \[2, 3\], b \[2, 3\]\): "
    ) as caught:
        session.run({"a": a, "b": a})
    assert "/" not in str(caught.value).replace("/MatMul", ""), "no path of the server's"
    assert session.run({"a": a, "b": b})["y"].tolist() == [[3, 3], [3, 3]]


def test_after_close_it_says_so(artifact):
    session = BACKEND.open(artifact(files.doubling()), OnnxOptions())
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"x": np.ones((1, 4), np.float32)})
    session.close()


def test_another_backends_options(artifact):
    with pytest.raises(BackendError, match="expected its Options, found dict"):
        BACKEND.open(artifact(files.doubling()), {})


def test_without_onnxruntime(artifact, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not for this machine')")
    path = artifact(files.doubling())
    code = (
        "import sys, pathlib; from flyball_backends.onnx import *; b = OnnxBackend(); print(b.probe());"
        "\ntry: b.open(pathlib.Path(sys.argv[1]), OnnxOptions())"
        "\nexcept BackendError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env={"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0] == "[]"
    assert "not for this machine" in lines[1]
    assert "pip install 'flyball[onnx]'" in lines[1]
    assert done.stderr == ""


class TestRealModels:
    @pytest.fixture(params=[
        "face/version-RFB-320", "face/version-slim-320", "mnist/mnist", "onnx_derived/mobilenet_v1_0.25_224_fp16",
        "onnx_derived/mobilenet_v1_0.25_224_fp32", "onnx_derived/mobilenet_v1_0.25_224_int8_qdq",
        "onnx_derived/resnet8_cifar10_fp16", "onnx_derived/resnet8_cifar10_fp32",
        "onnx_derived/resnet8_cifar10_int8_qdq", "onnx_derived/resnet_large_cifar10_fp16",
        "onnx_derived/resnet_large_cifar10_fp32", "onnx_derived/resnet_large_cifar10_int8_qdq",
        "onnx_derived/vww_96_fp16", "onnx_derived/vww_96_fp32", "onnx_derived/vww_96_int8_qdq",
    ])  # fmt: skip
    def model(self, request, shared_data):
        return shared_data / "models" / f"{request.param}.onnx"

    def test_conformance(self, model):
        check_backend(BACKEND, model)

    def test_the_same_bits_as_the_runtime_itself(self, model):
        """Two threads on both sides: the order of additions depends on their number."""
        session = BACKEND.open(model, OnnxOptions(threads=2))
        inputs = noise(session.signature)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 2
        settings.log_severity_level = 4
        direct = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
        names = [t.name for t in session.signature.outputs]
        expected = direct.run(names, inputs)
        found = session.run(inputs)
        for name, array in zip(names, expected, strict=True):
            assert found[name].tobytes() == array.tobytes()

    def test_opening_writes_nothing_to_stderr(self, shared_data):
        """slim-320 makes ONNX Runtime warn a hundred times by default."""
        path = shared_data / "models/face/version-slim-320.onnx"
        code = (
            "import sys, pathlib; from flyball_backends.onnx import *;"
            "OnnxBackend().open(pathlib.Path(sys.argv[1]), OnnxOptions()); print('opened')"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("opened\n", "")
