"""Writes a ladder folder's text files: flyball-ladder.toml and labels.txt.

names of artifacts in a folder, accuracies -> TOML text. Artifacts are called <point>-<precision>.onnx.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from net import POINTS

from flyball.demo import surface

ACCURACY_FLOOR = 0.9  # an inspection that is wrong once in ten is no inspection: the governor may go no lower
MANIFEST, LABELS = "flyball-ladder.toml", "labels.txt"
PIXEL_MEAN = PIXEL_STD = 127.5  # pixels 0..255 -> -1..1, as train.normalized does


def write(folder: Path, ladder: str, rungs: Sequence[str], accuracies: Mapping[str, float], note: str) -> None:
    """`rungs` strongest first."""
    floor = f"accuracy_floor = {ACCURACY_FLOOR}\n" if accuracies else ""
    head = (
        f'schema = 1\n\n[ladder]\nname = "{ladder}"\nversion = "1"\ntask = "image-classification"\n'
        f'labels = "{LABELS}"\ntop_k = {len(surface.CLASSES)}\n{floor}accuracy_source = "{note}"\n'
    )
    (folder / MANIFEST).write_text(head + "".join(_rung(folder, name, accuracies.get(name)) for name in rungs))
    (folder / LABELS).write_text("".join(f"{label}\n" for label in surface.CLASSES))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rung(folder: Path, name: str, accuracy: float | None) -> str:
    point, precision = name.split("-")
    side = next(p.side for p in POINTS if p.name == point)
    artifact = f"{name}.onnx"
    # fp16 halves the bytes that a GPU moves; a CPU widens it to fp32 again and is no faster.
    gpu = 'accelerators = ["gpu"]\n' if precision == "fp16" else ""
    return (
        f'\n[[rung]]\nname = "{name}"\nbackend = "onnx"\nartifact = "{artifact}"\n'
        f'sha256 = "{sha256(folder / artifact)}"\n'
        + (f"accuracy = {accuracy}\n" if accuracy is not None else "")
        + f'precision = "{precision}"\n{gpu}'
        f"[rung.options]\nthreads = 1\n"
        f'[[rung.pre]]\nstep = "resize"\nwidth = {side}\nheight = {side}\nmethod = "area"\n'
        f'[[rung.pre]]\nstep = "normalize"\nmean = {[PIXEL_MEAN] * 3}\nstd = {[PIXEL_STD] * 3}\n'
        f'[[rung.pre]]\nstep = "layout"\norder = "NCHW"\n'
        f'[[rung.post]]\nstep = "softmax"\n'
    )
