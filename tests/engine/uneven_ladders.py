"""Ladders of the uneven backend: one or two inputs, and what else a manifest says of a rung."""

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flyball.ports import InferRequest, Tensor


def write_uneven(root: Path, script: dict[str, Any], extra: str = "") -> Path:
    """A tensor ladder "t" with the one rung "big"; its shapes are those of the script's session."""
    root.mkdir(parents=True, exist_ok=True)
    shape = "[-1, -1]" if script.get("free") else "[1, -1]"
    lines = ["schema = 1", "[ladder]", 'name = "t"', 'version = "1"', 'task = "tensor"']
    tensors = [("input", name) for name in script.get("inputs", ["x"])] + [("output", "y")]
    for side, name in tensors:
        lines += [f"[[{side}]]", f'name = "{name}"', 'datatype = "FP32"', f"shape = {shape}"]
    content = json.dumps(script).encode()
    (root / "big.json").write_bytes(content)
    lines += ["[[rung]]", 'name = "big"', 'backend = "uneven"', 'artifact = "big.json"']
    lines += [f'sha256 = "{hashlib.sha256(content).hexdigest()}"', extra]
    (root / "flyball-ladder.toml").write_text("\n".join(lines) + "\n")
    return root


def rows(name: str, *values: Sequence[float]) -> Tensor:
    data = b"".join(struct.pack(f"<{len(row)}f", *row) for row in values)
    return Tensor(name, "FP32", (len(values), len(values[0])), data)


def ask_of(*tensors: Tensor) -> InferRequest:
    return InferRequest(inputs=tensors)
