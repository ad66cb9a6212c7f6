"""Power over time whose energy is known exactly, for the energy's tests and its benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    power_w: Callable[[float], float]
    energy_j: Callable[[float, float], float]  # from, to


def step(low_w: float, high_w: float, at_s: float) -> Signal:
    def energy(a: float, b: float) -> float:
        return low_w * max(0.0, min(b, at_s) - a) + high_w * max(0.0, b - max(a, at_s))

    return Signal(f"step {low_w:g} to {high_w:g} W", lambda t: high_w if t >= at_s else low_w, energy)


def ramp(start_w: float, slope: float) -> Signal:
    return Signal(
        f"ramp {slope:g} W/s",
        lambda t: start_w + slope * t,
        lambda a, b: start_w * (b - a) + slope * (b * b - a * a) / 2,
    )


def sine(mean_w: float, swing_w: float, hertz: float) -> Signal:
    omega = 2 * math.pi * hertz

    def energy(a: float, b: float) -> float:
        return mean_w * (b - a) + swing_w / omega * (math.cos(omega * a) - math.cos(omega * b))

    return Signal(f"sine {hertz:g} Hz", lambda t: mean_w + swing_w * math.sin(omega * t), energy)


SIGNALS = (
    step(3.0, 12.0, 17.31),
    step(12.0, 3.0, 41.77),
    ramp(2.0, 0.15),
    sine(8.0, 5.0, 0.1),
    sine(8.0, 5.0, 0.73),
    sine(8.0, 3.0, 2.1),
)
