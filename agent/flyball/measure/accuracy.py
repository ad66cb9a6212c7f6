"""How often each rung of a ladder is right, on pictures of the user's own.

folder LABEL/*.jpg -> every rung's whole way (pre, run, post) in its worker -> share of right answers
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.errors import LadderError
from flyball.events import Events
from flyball.ladder.manifest import LadderFolder
from flyball.ports import Answer, InferRequest, Tensor

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"}


class Picture(msgspec.Struct, frozen=True):
    path: Path
    label: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """After every picture: how many of `total` were answered, and how many of those rightly."""

    rung: str
    done: int
    total: int
    right: int


def pictures(root: Path, labels: Sequence[str]) -> list[Picture]:
    """The pictures in `root`, whose folders are named after labels. Raises LadderError."""
    found = [
        Picture(path, folder.name)
        for folder in sorted(root.iterdir() if root.is_dir() else [])
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]
    if not found:
        raise LadderError(f"{root}: expected folders named after labels with pictures in them, found none")
    unknown = sorted({p.label for p in found} - set(labels))
    if unknown:
        raise LadderError(
            f"{root}: {len(unknown)} folder(s) are named after no label of the ladder", [f"{root / u}" for u in unknown]
        )
    return found


def encoded_image(data: bytes) -> Tensor:
    """A picture file as the public input `image` of the task image-classification."""
    return Tensor("image", "BYTES", (1,), struct.pack("<I", len(data)) + data)


def best_label(answer: Answer) -> str:
    """The first of `labels`, which are sorted best first."""
    data = bytes(next(t.data for t in answer.outputs if t.name == "labels"))
    (size,) = struct.unpack_from("<I", data)
    return data[4 : 4 + size].decode("utf-8")


async def accuracy(folder: LadderFolder, images: Sequence[Picture]) -> AsyncIterator[Progress]:
    """Every rung over every picture, one rung after the other. Raises WorkerError, RequestError."""
    runner = LadderRunner(folder, Engine(), Standby(0), Events(), SystemClock())
    usable = [r.name for r in runner.status().rungs if r.state != "no-accelerator"]
    await runner.start(usable[0] if usable else "")
    try:
        for rung in usable:
            await runner.switch(rung, "evaluation")
            right = 0
            for done, picture in enumerate(images, 1):
                answer = await runner.infer(InferRequest(inputs=(encoded_image(picture.path.read_bytes()),)))
                right += best_label(answer) == picture.label
                yield Progress(rung=rung, done=done, total=len(images), right=right)
    finally:
        await runner.close()
