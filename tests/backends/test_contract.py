import subprocess
import sys

import pytest

from flyball_backends.contract import Backend
from flyball_backends.edgetpu import EdgeTpuBackend
from flyball_backends.litert import LiteRtBackend
from flyball_backends.onnx import OnnxBackend

VENDORS = ("onnxruntime", "ai_edge_litert", "tflite_runtime", "pycoral")


@pytest.mark.parametrize("backend", [OnnxBackend, LiteRtBackend, EdgeTpuBackend])
def test_our_backends_are_backends(backend):
    assert isinstance(backend(), Backend)


def test_the_contract_imports_no_numpy():
    """The daemon reads it, and its footprint has no room for NumPy."""
    code = "import sys, flyball_backends.contract; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_building_a_backend_imports_no_vendor_library():
    code = (
        "import sys; from flyball_backends.registry import find, names; [find(n) for n in names()];"
        f"print([v for v in {VENDORS!r} if v in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
