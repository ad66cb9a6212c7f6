"""A rung run the way a worker runs it: the manifest's own `pre`, the artifact, the manifest's own `post`.

picture -> flyball.engine.pipeline (in this process, without slots and sockets) -> the label called, or milliseconds
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from pictures import Labels, Pixels

from flyball.demo.surface import CLASSES
from flyball.engine.opened import plan
from flyball.engine.pipeline import Pipeline
from flyball.engine.slots import SlotTensor
from flyball.ladder.manifest import LadderFolder, Rung
from flyball_backends.onnx import OnnxBackend, OnnxOptions


class OpenRung:
    """One rung with one thread, ready to answer."""

    def __init__(self, folder: LadderFolder, rung: Rung) -> None:
        self.name = rung.name
        self._session = OnnxBackend().open(folder.artifact(rung), OnnxOptions(threads=1))
        self._pipeline = Pipeline(plan(folder, rung), self._session)

    def call(self, picture: NDArray[np.uint8]) -> int:
        """The index of the best label."""
        data = memoryview(picture.tobytes())
        result = self._pipeline.run([SlotTensor("UINT8", picture.shape, data)])
        labels = bytes(result.outputs[1][2])
        size = int.from_bytes(labels[:4], "little")
        return CLASSES.index(labels[4 : 4 + size].decode())

    def calls(self, pixels: Pixels) -> Labels:
        return np.array([self.call(picture) for picture in pixels], np.uint8)

    def answer_ms(self, picture: NDArray[np.uint8]) -> tuple[float, float]:
        """Milliseconds of one whole answer and of the artifact alone in it."""
        data = memoryview(picture.tobytes())
        start = time.perf_counter()
        result = self._pipeline.run([SlotTensor("UINT8", picture.shape, data)])
        return (time.perf_counter() - start) * 1e3, result.durations_ns[1] / 1e6
