"""Generated pictures on disk, so that they are drawn once: a memory-mapped array of pixels and one of labels.

range of seeds -> surface.draw in `processes` processes -> <cache>/<first>-<count>-<side>.u8 -> memmap

Drawing takes about 3 ms a picture and core; 20,000 at 224 pixels are 3.0 GB. A finished file is reused, an unfinished
one (.part) is drawn again.
"""

from __future__ import annotations

import hashlib
import sys
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyball.demo import surface
from flyball_kernels.resize import resize

Pixels = NDArray[np.uint8]
Labels = NDArray[np.uint8]

_CHUNK = 250  # pictures; small enough that progress is seen, large enough that processes do not talk all the time


def load(seeds: range, cache: Path, *, side: int = surface.SIDE, processes: int = 2) -> tuple[Pixels, Labels]:
    """The pictures of `seeds` as [N, side, side, 3] and their labels; drawn now if the cache has none."""
    folder = cache / _generator_digest()  # another generator draws other pictures from the same seeds
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seeds.start}-{len(seeds)}-{side}.u8"
    labels_path = path.with_suffix(".labels.npy")
    shape = (len(seeds), side, side, 3)
    if not (path.exists() and labels_path.exists()):
        _draw_all(seeds, path, labels_path, shape, processes)
    return np.memmap(path, np.uint8, mode="r", shape=shape), np.load(labels_path)


def _draw_all(seeds: range, path: Path, labels_path: Path, shape: tuple[int, int, int, int], processes: int) -> None:
    part = path.with_suffix(".part")
    np.memmap(part, np.uint8, mode="w+", shape=shape).flush()
    labels = np.zeros(len(seeds), np.uint8)
    starts = range(0, len(seeds), _CHUNK)
    began = time.monotonic()
    with get_context("spawn").Pool(processes) as pool:
        for start, got in pool.imap_unordered(partial(_draw_chunk, seeds, part, shape), starts):
            labels[start : start + len(got)] = got
            done = start + len(got)
            if start % 5_000 == 0:
                print(f"  drawing {path.name}: about {done:,} of {len(seeds):,}, {time.monotonic() - began:.0f} s",
                      file=sys.stderr, flush=True)  # fmt: skip
    np.save(labels_path, labels)
    part.rename(path)


def _draw_chunk(seeds: range, part: Path, shape: tuple[int, int, int, int], start: int) -> tuple[int, Labels]:
    pixels = np.memmap(part, np.uint8, mode="r+", shape=shape)
    chunk = seeds[start : start + _CHUNK]
    labels = np.zeros(len(chunk), np.uint8)
    for offset, seed in enumerate(chunk):
        picture, labels[offset] = surface.draw(seed)
        pixels[start + offset] = resize(picture, shape[1], shape[2], method="area")
    pixels.flush()
    return start, labels


def _generator_digest() -> str:
    return hashlib.sha256(Path(surface.__file__).read_bytes()).hexdigest()[:12]
