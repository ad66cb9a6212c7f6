"""What is asked of a ladder while it is measured.

interface -> the canary's pattern, in the size of the largest rung, moved a little from one to the next -> tensors

The same for every rung, so that their figures can be compared. Content hardly changes what an inference costs, size and
encoding do: nothing is encoded here, and a picture that has to be decoded costs that on top.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flyball.ladder.manifest import LadderFolder
from flyball.ladder.steps import Resize
from flyball.ports import PublicTensor, Tensor

COUNT = 8
_NUMPY = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool"}  # the integers are called alike


def inputs(folder: LadderFolder) -> list[tuple[Tensor, ...]]:
    """COUNT requests' tensors."""
    interface = folder.interface()
    if interface.task == "image-classification":
        height, width = _size(folder)
        return [(_tensor(interface.inputs[0].name, _picture(height, width, 29 * i)),) for i in range(COUNT)]
    return [tuple(_tensor(t.name, _values(t, i)) for t in interface.inputs) for i in range(COUNT)]


def described(tensors: tuple[Tensor, ...]) -> str:
    """For people: "image UINT8 [224, 224, 3], generated"."""
    return ", ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in tensors) + ", generated"


def _size(folder: LadderFolder) -> tuple[int, int]:
    """Height and width: the largest that a rung resizes to, as far as a request may be so large."""
    resizes = [step for rung in folder.manifest.rung for step in rung.pre if isinstance(step, Resize)]
    height, width = max(((r.height, r.width) for r in resizes), key=lambda size: size[0] * size[1])
    limits = folder.manifest.ladder
    while (height * width * 3 > limits.max_input_bytes or height * width > limits.max_pixels) and height * width > 1:
        height, width = max(height // 2, 1), max(width // 2, 1)
    return height, width


def _picture(height: int, width: int, shift: int) -> NDArray[np.uint8]:
    """A colour gradient, UINT8 [height, width, 3]."""
    rows = (np.linspace(0, 252, height).astype(np.uint8) + np.uint8(shift))[:, None]
    columns = np.linspace(0, 252, width).astype(np.uint8)[None, :]
    return np.ascontiguousarray(np.stack(np.broadcast_arrays(rows, columns, np.uint8(128)), axis=-1))


def _values(tensor: PublicTensor, shift: int) -> NDArray[np.generic]:
    """0, 1, 2 over and over; a free size is 1."""
    shape = tuple(1 if size < 0 else size for size in tensor.shape)
    count = int(np.prod(shape, dtype=np.int64))
    dtype = _NUMPY.get(tensor.datatype, tensor.datatype.lower())
    return ((np.arange(1, count + 1) + shift) % 3).astype(dtype).reshape(shape)


def _tensor(name: str, array: NDArray[np.generic]) -> Tensor:
    names = {numpy: public for public, numpy in _NUMPY.items()}
    datatype = names.get(array.dtype.name, array.dtype.name.upper())
    return Tensor(name, datatype, array.shape, array.tobytes())
