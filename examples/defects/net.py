"""The nets of the ladder: one plain residual architecture, trained at several widths and picture sides.

[N,3,side,side] -> 5x5 stem, stride 2 -> three stages (3x3 stride 2, then residual pairs of 3x3) -> mean and maximum
over the picture -> six logits

Every convolution is dense 3x3: runtimes and quantizers know it best. The maximum beside the mean keeps a defect of a
few pixels from being averaged away by the sound surface around it. BatchNorm folds into the convolutions at export.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLASS_COUNT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One width and resolution, and how it is trained.

    `samples` is how many pictures it sees, counted with repetition; `course` the shares of the training and the side of
    the pictures in each: most is learned on smaller pictures, where it is cheap. `last_batch` is the batch at the full
    side; `polish` more samples at the full side, with a cycle of their own; `start` a point of the same widths whose
    weights it begins with; `rate` the peak of the learning rate.
    """

    name: str
    side: int
    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int]
    samples: int
    course: tuple[tuple[float, int], ...]
    last_batch: int = 64
    polish: int = 0
    pictures: int = 60_000
    start: str = ""
    rate: float = 4e-3


POINTS = (
    Point(
        name="r224", side=224, widths=(48, 72, 56, 64), depths=(3, 2, 1), samples=110_000,
        course=((0.58, 112), (0.22, 160), (0.20, 224)), last_batch=32, polish=32_000,
    ),
    Point(
        name="r144", side=144, widths=(24, 48, 48, 64), depths=(2, 1, 1), samples=150_000,
        course=((0.58, 72), (0.22, 104), (0.20, 144)),
    ),
    Point(
        name="r112", side=112, widths=(24, 48, 48, 64), depths=(2, 1, 1), samples=50_000,
        course=((1.00, 112),), pictures=30_000, start="r144", rate=2e-3,
    ),
    Point(
        name="r96", side=96, widths=(24, 48, 48, 64), depths=(2, 1, 1), samples=50_000,
        course=((1.00, 96),), pictures=30_000, start="r112", rate=2e-3,
    ),
    Point(
        name="r80", side=80, widths=(24, 48, 48, 64), depths=(2, 1, 1), samples=50_000,
        course=((1.00, 80),), pictures=30_000, start="r96", rate=2e-3,
    ),
    Point(
        name="r88", side=88, widths=(16, 32, 48, 64), depths=(2, 1, 1), samples=110_000,
        course=((0.70, 72), (0.30, 88)), pictures=30_000,
    ),
    Point(
        name="r64", side=64, widths=(16, 32, 48, 64), depths=(2, 1, 1), samples=60_000,
        course=((1.00, 64),), pictures=30_000, start="r88", rate=3e-3,
    ),
    Point(
        name="r56", side=56, widths=(16, 32, 48, 64), depths=(2, 1, 1), samples=60_000,
        course=((1.00, 56),), pictures=30_000, start="r64", rate=3e-3,
    ),
    Point(
        name="r48", side=48, widths=(16, 32, 48, 64), depths=(2, 1, 1), samples=60_000,
        course=((1.00, 48),), pictures=30_000, start="r56", rate=3e-3,
    ),
)  # fmt: skip


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width, 3, 1)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Net(nn.Module):
    def __init__(self, point: Point) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, point.widths[0], 5, 2)]
        for inputs, width, depth in zip(point.widths, point.widths[1:], point.depths, strict=False):
            layers.append(_convolution(inputs, width, 3, 2))
            layers.extend(_Residual(width) for _ in range(depth))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * point.widths[-1], CLASS_COUNT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        mean, peak = nn.functional.adaptive_avg_pool2d(x, 1), nn.functional.adaptive_max_pool2d(x, 1)
        logits: Tensor = self.head(torch.cat((mean, peak), dim=1).flatten(1))
        return logits
