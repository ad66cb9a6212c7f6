"""Ladder folders written for tests: real text files, artifacts of a few bytes that nothing opens."""

import hashlib
from pathlib import Path

MANIFEST = """
schema = 1
[ladder]
name = "{name}"
version = "{version}"
task = "image-classification"
labels = "labels.txt"
[[rung]]
name = "big"
backend = "onnx"
artifact = "big.onnx"
sha256 = "{sha256}"
accuracy = 0.9
[[rung.pre]]
step = "resize"
width = 32
height = 32
[[rung.pre]]
step = "layout"
order = "NHWC"
"""


def write_ladder(root: Path, content: bytes = b"model", name: str = "things", version: str = "1") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.txt").write_text("cat\ndog\nowl\n")
    (root / "big.onnx").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    (root / "flyball-ladder.toml").write_text(MANIFEST.format(name=name, version=version, sha256=sha256))
    return root
