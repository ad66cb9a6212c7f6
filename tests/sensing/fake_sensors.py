"""Sensors that do as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from flyball.config import Sensing
from flyball.ports import Quantity, Reading, Scope
from flyball.sensing.contract import Roots


def reading(
    value: float = 1.0,
    *,
    t_s: float,
    name: str = "x",
    quantity: Quantity = "temperature",
    scope: Scope = "zone",
    sensor: str = "told",
) -> Reading:
    units = {"temperature": "C", "power": "W", "frequency": "Hz"}
    unit = units.get(quantity, "B") if isinstance(quantity, str) else "B"
    return Reading(quantity=quantity, name=name, value=value, unit=unit, scope=scope, sensor=sensor, t_s=t_s)


class ToldSensor:
    """`answer(now_s)` gives the readings or raises; `reads` counts."""

    def __init__(self, answer: Callable[[float], Any], name: str = "told") -> None:
        self.name = name
        self.answer = answer
        self.reads = 0
        self.threads: set[str] = set()
        self.changed = threading.Condition()

    def read(self, now_s: float) -> Sequence[Reading]:
        with self.changed:
            self.reads += 1
            self.threads.add(threading.current_thread().name)
            self.changed.notify_all()
        found: Sequence[Reading] = self.answer(now_s)
        return found

    def wait_for_reads(self, count: int, timeout_s: float = 10.0) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.reads >= count, timeout_s), f"only {self.reads} of {count} reads"


class PluginSensor:
    """A well-behaved plug-in."""

    name = "plugin"

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self.roots = roots

    def read(self, now_s: float) -> Sequence[Reading]:
        return ()


class RaisingSensor(PluginSensor):
    def __init__(self, roots: Roots, settings: Sensing) -> None:
        raise RuntimeError("no libvendor.so here")


class ExitingSensor(PluginSensor):
    def __init__(self, roots: Roots, settings: Sensing) -> None:
        raise SystemExit(3)


class NoSensor:
    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self.name = "none"
