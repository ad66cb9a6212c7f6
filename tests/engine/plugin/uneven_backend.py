"""A backend whose artifact, a JSON file, says in what shape its answers come: the stand-in for models with odd outputs.

{"inputs": ["x"], "free": true, "out": "one-row|none|scalar|flat|two-rows|big-endian|missing", "log": path}

y is 2 * x, or x + z with two inputs (which NumPy stretches where one of them has a single row). "free": the first size
is free, so that it takes batches. "out" is left aside for the canary, which is 1 long. "log": a file that gets a line
per run with the rows of x.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flyball_backends.contract import Accelerator, Signature, TensorSpec


@dataclass(frozen=True)
class Options:
    threads: int = 1


class Session:
    def __init__(self, script):
        self._script = script
        shape = (-1, -1) if script.get("free") else (1, -1)
        inputs = tuple(TensorSpec(name, "float32", shape) for name in script.get("inputs", ["x"]))
        self.signature = Signature(inputs, (TensorSpec("y", "float32", shape),))

    def run(self, inputs):
        x = inputs["x"]
        y = x + inputs["z"] if "z" in inputs else x * 2
        if x.shape[1] == 1:
            return {"y": y}
        if "log" in self._script:
            with open(self._script["log"], "a") as log:
                log.write(f"{x.shape[0]}\n")
        out = self._script.get("out", "")
        if out == "none":
            return None
        if out == "missing":
            return {}
        shaped = {
            "one-row": lambda: y[:1],
            "scalar": lambda: np.float32(3),
            "flat": lambda: y.reshape(-1),
            "two-rows": lambda: np.concatenate([y, y]),
            "big-endian": lambda: y.astype(">f4"),
        }
        return {"y": shaped.get(out, lambda: y)()}

    def close(self):
        pass


class UnevenBackend:
    name = "uneven"
    Options = Options

    def probe(self):
        return [Accelerator("uneven", "uneven:0")]

    def open(self, artifact, options):
        return Session(json.loads(Path(artifact).read_text()))
