"""A backend whose session only reads every input byte: what is left of a request when the model costs nothing.

The artifact is any file. y = one number of 8 bytes that depends on every byte of x; both UINT8.
"""

from dataclasses import dataclass

import numpy as np

from flyball_backends.contract import Accelerator, Signature, TensorSpec


@dataclass(frozen=True)
class Options:
    threads: int = 1


def digest(data: np.ndarray) -> np.ndarray:
    flat = data.reshape(-1)
    whole = flat.size // 8 * 8
    words = np.bitwise_xor.reduce(flat[:whole].view(np.uint64)).reshape(1).view(np.uint8)
    words[: flat.size - whole] ^= flat[whole:]
    return words


class Session:
    def __init__(self) -> None:
        self.signature = Signature((TensorSpec("x", "uint8", (-1,)),), (TensorSpec("y", "uint8", (8,)),))

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": digest(inputs["x"])}

    def close(self) -> None:
        pass


class NoopBackend:
    name = "noop"
    Options = Options

    def probe(self) -> list[Accelerator]:
        return [Accelerator("cpu", "cpu")]

    def open(self, artifact: object, options: Options) -> Session:
        return Session()
