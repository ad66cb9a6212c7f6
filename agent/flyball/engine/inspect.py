"""A model file looked at in a child process: its signature, and whether its output looks like probabilities.

file -> worker (open, trial) -> ModelFacts
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from flyball.engine.process import Opening, Worker
from flyball.errors import OpenError
from flyball.ladder.draft import ModelFacts, TensorFacts, backend_for, rung_name
from flyball.ladder.verify import sha256_file


async def inspect(path: Path, timeout_s: float) -> ModelFacts:
    """Raises LadderError (not a model file by its name), OpenError, WorkerError."""
    backend, accelerators = backend_for(path.name)
    worker = await Worker.start(
        Opening(label=path.name, backend=backend, artifact=path, options={}), slots=None, timeout_s=timeout_s
    )
    try:
        try:
            trial = await worker.ask({"op": "trial"}, timeout_s)
        except OpenError:
            trial = {"outputs": []}  # a signature without a trial run is still a signature
        signature = worker.signature
    finally:
        await worker.stop(5.0)
    outputs = trial["outputs"]
    return ModelFacts(
        rung=rung_name(path.name),
        backend=backend,
        artifact=path.name,
        sha256=sha256_file(path),
        inputs=msgspec.convert(signature["inputs"], tuple[TensorFacts, ...]),
        outputs=msgspec.convert(signature["outputs"], tuple[TensorFacts, ...]),
        accelerators=accelerators,
        # Quantized probabilities add up to 1 only roughly: up to half a step for every class.
        probabilities=len(outputs) == 1 and outputs[0]["minimum"] >= 0 and abs(outputs[0]["sum"] - 1) < 0.1,
    )
