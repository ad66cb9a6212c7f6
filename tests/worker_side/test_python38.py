"""The worker's side still runs on Python 3.8, which is what boards with old vendor runtimes have."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT / "kernels/flyball_kernels", ROOT / "backends/flyball_backends"]
WORKER = [
    ROOT / f"agent/flyball/engine/{name}.py"
    for name in ("worker", "lanes", "pipeline", "tasks", "slots", "channel", "wire")
]
SOURCES = [file for folder in FOLDERS for file in sorted(folder.glob("*.py"))] + WORKER
ALL = ["flyball_kernels." + f.stem for f in sorted(FOLDERS[0].glob("[a-z]*.py"))] + [
    "flyball_backends." + f.stem for f in sorted(FOLDERS[1].glob("[a-z]*.py"))
]


@pytest.fixture(scope="module")
def python38() -> str:
    """FLYBALL_PYTHON38 may name one that has NumPy."""
    if "FLYBALL_PYTHON38" in os.environ:
        return os.environ["FLYBALL_PYTHON38"]
    for candidate in sorted(Path.home().glob(".pyenv/versions/3.8*/bin/python3.8")):
        return str(candidate)
    pytest.skip("Python 3.8 is not installed (looked in ~/.pyenv/versions)")


def run(python: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In an environment that holds nothing but the way to our sources."""
    path = ":".join(str(ROOT / room) for room in ("kernels", "backends"))
    return subprocess.run(
        [python, "-c", code, *arguments],
        env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_every_source_compiles(python38: str) -> None:
    code = "import sys\nfor file in sys.argv[1:]: compile(open(file, encoding='utf-8').read(), file, 'exec')"
    done = run(python38, code, *map(str, SOURCES))
    assert done.returncode == 0, done.stderr


def test_the_contract_needs_no_numpy(python38: str) -> None:
    code = (
        "import sys; sys.modules['numpy'] = None\n"  # an import of it raises
        "from flyball_backends.contract import *\n"
        "s = TensorSpec('x', 'uint8', (1, -1), Quantization(0.5, 3))\n"
        "print(Signature((s,), (s,)) == Signature((s,), (s,)), Accelerator('cpu', 'cpu').attributes, API_VERSION)"
    )
    done = run(python38, code)
    assert (done.stdout, done.stderr) == ("True {} 1\n", "")


def test_every_module_imports_and_runs(python38: str) -> None:
    """Python 3.8 raises at import for what the compiler cannot see: an annotation that is evaluated, a new function."""
    if run(python38, "import numpy").returncode != 0:
        pytest.skip("Python 3.8 has no NumPy here: the sources were only compiled")
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from flyball_kernels.resize import resize\n"
        "from flyball_backends.onnx import OnnxBackend, OnnxOptions\n"
        "from flyball_backends.options import decode_options\n"
        "from flyball_backends.registry import names\n"
        "for method in ('area', 'bilinear', 'nearest'):\n"
        "    assert resize(np.full((5, 7, 3), 9, np.uint8), 3, 2, method).tolist() == [[[9] * 3] * 2] * 3\n"
        "assert decode_options(OnnxBackend(), {'graph_optimization': 'basic'}) == OnnxOptions(0, False, 'basic')\n"
        "print(names())"
    )
    done = run(python38, code, *ALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"  # nothing is installed for that Python
