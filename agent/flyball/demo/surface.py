"""Draws labelled pictures of an inspected surface, sound or with one kind of defect. Nothing is downloaded.

seed -> raw words of PCG64 -> texture -> defect -> light -> lens -> sensor noise -> uint8 pixels, label

A seed means the same bytes on every platform and NumPy >= 1.26: only the raw words of PCG64 are used (NumPy promises
that stream, not the one of Generator's methods), and only + - * / and square roots, which IEEE 754 rounds exactly; sin,
exp, sums over axes and matrix products differ in the last bit between processors and are kept out.

Defects reach down to a pixel of width and little contrast: plain at 224 pixels, fading as the picture is made smaller.
That is what gives the ladder in examples/defects its slope.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CLASSES = ("ok", "scratch", "spot", "crack", "stain", "dent")
SIDE = 224  # pixels; a picture is 150,528 bytes

# What a seed may be used for. Figures of the ladder hold only while these stay apart.
TRAINING_SEEDS = range(1_000_000)
VALIDATION_SEEDS = range(1_000_000, 1_100_000)
CALIBRATION_SEEDS = range(1_100_000, 1_200_000)
HELD_OUT_SEEDS = range(1_200_000, 1_300_000)
DEMO_SEEDS = range(2_000_000, 3_000_000)

Plane = NDArray[np.float32]


class _Dice:
    """Random values that depend on the seed alone."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def below(self, n: int) -> int:
        return int(self._bits.random_raw()) % n

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def small(self, low: float, high: float) -> float:
        """Nearer to `low` than to `high` more often than not: most defects are not the worst ones."""
        return low + (high - low) * self.between(0.0, 1.0) * self.between(0.4, 1.0)

    def sign(self) -> float:
        return 1.0 if self.below(2) else -1.0

    def direction(self) -> tuple[float, float]:
        """A unit vector (dy, dx) without sin and cos: the rational points of the circle."""
        t = self.between(-1.0, 1.0)
        dx, dy = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        return (dy, dx) if self.below(2) else (dx, dy)

    def bytes(self, count: int) -> NDArray[np.int16]:
        words = np.asarray(self._bits.random_raw((count + 7) // 8), dtype="<u8")
        return words.view(np.uint8)[:count].astype(np.int16)


def draw(seed: int) -> tuple[NDArray[np.uint8], int]:
    """Returns the picture (SIDE x SIDE x 3, RGB) and the index of its class; every class is equally likely."""
    dice = _Dice(seed)
    label = dice.below(len(CLASSES))
    surface = _texture(dice)
    tint = [dice.between(0.82, 1.0) for _ in range(3)]
    stain = _DEFECTS[label](dice, surface)
    surface += dice.between(95.0, 165.0)
    _light(dice, surface)
    for _ in range(dice.below(3)):
        _blur(surface)
    return _expose(dice, surface, tint, stain), label


def _noise(dice: _Dice, cell_y: float, cell_x: float, side: int = SIDE) -> Plane:
    """Value noise in -1..1: random values on a lattice with linear interpolation between them."""
    rows, columns = int(side / cell_y) + 2, int(side / cell_x) + 2
    lattice = dice.bytes(rows * columns).reshape(rows, columns).astype(np.float32) / 127.5 - 1.0
    noise: Plane = _stretch(_stretch(lattice, cell_y, side).T, cell_x, side).T
    return noise


def _stretch(lattice: Plane, cell: float, side: int) -> Plane:
    at = np.arange(side, dtype=np.float32) / cell
    first = at.astype(np.int32)
    share = (at - first)[:, None]
    return np.ascontiguousarray(lattice[first] * (1 - share) + lattice[first + 1] * share)


def _wave(period: float, phase: float) -> Plane:
    """A triangle wave in -1..1 along one axis."""
    at = np.arange(SIDE, dtype=np.float32) / period + phase
    wave: Plane = np.abs(at - np.floor(at) - 0.5) * 4 - 1
    return wave


def _texture(dice: _Dice) -> Plane:
    """Grain of two sizes and, by chance, the streaks of brushed metal or the threads of a weave."""
    fine = dice.between(2.0, 4.0)
    coarse = dice.between(9.0, 40.0)
    surface = _noise(dice, fine, fine) * dice.between(1.0, 9.0)
    surface += _noise(dice, coarse, coarse) * dice.between(1.0, 7.0)
    kind = dice.below(4)
    if kind == 0:
        long, short = dice.between(30.0, 120.0), dice.between(1.0, 3.0)
        streaks = _noise(dice, short, long) if dice.below(2) else _noise(dice, long, short)
        surface += streaks * dice.between(3.0, 12.0)
    elif kind == 1:
        period = dice.between(5.0, 14.0)
        rows, columns = _wave(period, dice.between(0, 1)), _wave(period, dice.between(0, 1))
        surface += rows[:, None] * columns[None, :] * dice.between(3.0, 12.0)
    return surface


def _light(dice: _Dice, surface: Plane) -> None:
    """One side brighter than the other, as under a lamp that stands aside."""
    dy, dx = dice.direction()
    slope = dice.between(0.0, 0.35) / SIDE
    ramp = (np.arange(SIDE, dtype=np.float32) - SIDE / 2) * slope
    surface *= (1 + ramp * dy)[:, None] + (ramp * dx)[None, :]


def _blur(surface: Plane) -> None:
    surface[1:-1] = (surface[:-2] + surface[2:]) * 0.25 + surface[1:-1] * 0.5
    surface[:, 1:-1] = (surface[:, :-2] + surface[:, 2:]) * 0.25 + surface[:, 1:-1] * 0.5


def _expose(dice: _Dice, surface: Plane, tint: list[float], stain: Plane | None) -> NDArray[np.uint8]:
    """Colours the surface and adds the noise of a sensor (triangular: the difference of two bytes)."""
    picture = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    grain = dice.between(1.0, 6.0) / 104.0  # the difference of two bytes has a standard deviation of 104
    for channel in range(3):
        words = dice.bytes(2 * SIDE * SIDE).reshape(2, SIDE, SIDE)
        plane = surface * tint[channel] + (words[0] - words[1]) * np.float32(grain)
        if stain is not None:
            plane -= stain * dice.between(0.6, 1.4)
        picture[..., channel] = np.clip(np.rint(plane), 0, 255)
    return picture


def _window(y: float, x: float, reach: float) -> tuple[slice, slice, Plane, Plane]:
    """The part of the surface within `reach` of a point, and the offsets of its rows and columns from that point.

    Empty where the point lies far outside, as the end of a crack may."""
    top, bottom = max(0, int(y - reach)), min(SIDE, max(0, int(y + reach) + 2))
    left, right = max(0, int(x - reach)), min(SIDE, max(0, int(x + reach) + 2))
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - y
    dx = np.arange(left, right, dtype=np.float32)[None, :] - x
    return slice(top, bottom), slice(left, right), dy, dx


def _stroke(mask: Plane, y: float, x: float, dy: float, dx: float, length: float, width: float) -> None:
    """Draws a straight line from (y, x) into the mask, edges softened over one pixel."""
    half = length / 2
    rows, columns, off_y, off_x = _window(y + dy * half, x + dx * half, half + width)
    along = np.clip(off_y * dy + off_x * dx, -half, half)
    distance = np.sqrt((off_y - along * dy) ** 2 + (off_x - along * dx) ** 2)
    np.maximum(mask[rows, columns], np.clip(width / 2 + 0.5 - distance, 0, 1), out=mask[rows, columns])


def _ok(dice: _Dice, surface: Plane) -> None:
    return None


def _scratch(dice: _Dice, surface: Plane) -> None:
    """A straight line, brighter or darker than the surface."""
    mask = np.zeros_like(surface)
    dy, dx = dice.direction()
    length, width = dice.small(45.0, 170.0), dice.small(0.9, 2.6)
    y, x = (SIDE / 2 - d * length / 2 + dice.between(-55.0, 55.0) for d in (dy, dx))
    _stroke(mask, y, x, dy, dx, length, width)
    surface += mask * (dice.sign() * dice.small(24.0, 60.0))


def _spot(dice: _Dice, surface: Plane) -> None:
    """One to three small discs with a sharp edge."""
    for _ in range(1 + dice.below(3)):
        y, x, radius = dice.between(14.0, SIDE - 14.0), dice.between(14.0, SIDE - 14.0), dice.small(1.6, 6.0)
        rows, columns, dy, dx = _window(y, x, radius + 1)
        disc = np.clip(radius + 0.5 - np.sqrt(dy * dy + dx * dx), 0, 1)
        surface[rows, columns] -= disc * dice.small(30.0, 75.0)


def _crack(dice: _Dice, surface: Plane) -> None:
    """A dark jagged line: short strokes, each turned against the last, with a branch or two."""
    mask = np.zeros_like(surface)
    width = dice.small(0.8, 2.2)
    heading = dice.direction()
    start = tuple(SIDE / 2 - 40 * d + dice.between(-45.0, 45.0) for d in heading)
    for branch in range(1 + dice.below(3)):
        y, x = start
        for step in range(6 + dice.below(6) if branch == 0 else 2 + dice.below(3)):
            turn = dice.sign() * dice.between(0.3, 1.1)
            dy, dx = heading[0] + heading[1] * turn, heading[1] - heading[0] * turn
            norm, length = math.sqrt(dy * dy + dx * dx), dice.between(6.0, 16.0)
            dy, dx = dy / norm, dx / norm
            _stroke(mask, y, x, dy, dx, length, width)
            y, x = y + dy * length, x + dx * length
            if branch == 0 and step == 3:
                start = (y, x)
        heading = (-heading[1], heading[0]) if dice.below(2) else (heading[1], -heading[0])
    surface -= mask * dice.small(26.0, 60.0)


def _stain(dice: _Dice, surface: Plane) -> Plane:
    """A faint blotch with a ragged soft edge; it takes light of each colour differently."""
    y, x, radius = dice.between(45.0, SIDE - 45.0), dice.between(45.0, SIDE - 45.0), dice.small(16.0, 52.0)
    rows, columns, dy, dx = _window(y, x, 1.6 * radius)
    ragged = _noise(dice, radius / 2, radius / 2)[rows, columns] * 0.35
    depth = np.clip((1.1 + ragged - np.sqrt(dy * dy + dx * dx) / radius) * dice.between(2.0, 5.0), 0, 1)
    blotch = np.zeros_like(surface)
    blotch[rows, columns] = depth * dice.small(9.0, 30.0)
    return blotch


def _dent(dice: _Dice, surface: Plane) -> None:
    """A shallow bowl: lit on the side that faces the lamp, dark on the other."""
    y, x, radius = dice.between(30.0, SIDE - 30.0), dice.between(30.0, SIDE - 30.0), dice.small(7.0, 28.0)
    rows, columns, off_y, off_x = _window(y, x, radius)
    dy, dx = dice.direction()
    side = dice.sign() * dice.small(20.0, 55.0)
    bowl = np.clip(1 - (off_y * off_y + off_x * off_x) / (radius * radius), 0, 1)
    surface[rows, columns] += bowl * (off_y * dy + off_x * dx) * (side * 2 / radius)


_DEFECTS = (_ok, _scratch, _spot, _crack, _stain, _dent)
