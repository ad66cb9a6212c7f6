"""What a rule may speak of: names, their units and bounds.

name + number + unit -> value in seconds, bytes, watts, degrees Celsius or a plain ratio, or what is wrong with it

The one table that the grammar, the evaluation and docs/rules.md share. Never reads a sensor.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flyball.governor.values import LARGEST


@dataclass(frozen=True, slots=True)
class Unit:
    """A number of it is number * `times` / `per` in the base unit. Divided, not multiplied by a fraction: 80 / 100 is
    0.8, and 57 * 0.01 is not 0.57."""

    times: float = 1.0
    per: float = 1.0


PLAIN = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """`units` by name; PLAIN among them says that a number may stand without one. Bounds are in the base unit; what is
    LARGEST or more is taken for unknown, so that a comparison with it would never hold. `low` itself is reached;
    `high` only where `reaches_high`."""

    base: str
    units: Mapping[str, Unit]
    low: float = 0.0
    high: float = LARGEST
    reaches_high: bool = False

    def expected(self) -> str:
        """Such as "ms, s, min or h"."""
        return _listed([unit for unit in self.units if unit != PLAIN], "a plain number" * (PLAIN in self.units))


_ONE = Unit()
TIME = Dimension(base="s", units={"ms": Unit(per=1e3), "s": _ONE, "min": Unit(times=60), "h": Unit(times=3600)})
SHARE = Dimension(base="ratio, 0 to 1", units={"%": Unit(per=100), PLAIN: _ONE}, high=1.0, reaches_high=True)
RATIO = Dimension(base="ratio", units={"%": Unit(per=100), PLAIN: _ONE})
REQUESTS = Dimension(base="requests", units={"requests": _ONE, PLAIN: _ONE})
TASKS = Dimension(base="tasks per processor", units={"tasks": _ONE, PLAIN: _ONE})
RATE = Dimension(base="1/s", units={"/s": _ONE})
MEMORY = Dimension(
    base="bytes",
    units={"B": _ONE, "KiB": Unit(times=1024), "MiB": Unit(times=1024**2), "GiB": Unit(times=1024**3)},
)
CELSIUS = Dimension(base="°C", units={"C": _ONE}, low=-273.15)
WATTS = Dimension(base="W", units={"W": _ONE, "mW": Unit(per=1e3)})
HOUR = Dimension(base="hour of the day", units={PLAIN: _ONE}, high=24.0)
FLAG = Dimension(base="flag", units={})

ALIASES = {"°C": "C"}
# What people write, and what was most likely meant: difflib is of no help with one or two letters.
SLIPS = {"K": "KiB", "KB": "KiB", "kB": "KiB", "kb": "KiB", "M": "MiB", "MB": "MiB", "Mb": "MiB", "mb": "MiB"}
SLIPS |= {"G": "GiB", "GB": "GiB", "Gb": "GiB", "gb": "GiB", "b": "B", "bytes": "B", "c": "C", "°c": "C", "°": "C"}
SLIPS |= {"w": "W", "watt": "W", "watts": "W", "mw": "mW", "sec": "s", "secs": "s", "second": "s", "seconds": "s"}
SLIPS |= {"m": "min", "mins": "min", "minute": "min", "minutes": "min", "hour": "h", "hours": "h", "percent": "%"}
SLIPS |= {"Hz": "/s", "rps": "/s", "qps": "/s", "fps": "/s", "deg": "C", "degC": "C", "request": "requests"}


@dataclass(frozen=True, slots=True)
class Fact:
    dimension: Dimension
    meaning: str


FACTS: Mapping[str, Fact] = {
    "latency_p50": Fact(TIME, "the median latency of the newest answers"),
    "latency_p95": Fact(TIME, "the latency that 95 % of the newest answers kept"),
    "latency_p99": Fact(TIME, "the latency that 99 % of the newest answers kept"),
    "late": Fact(SHARE, "the share of the newest requests that missed the deadline"),
    "queue": Fact(REQUESTS, "requests that wait for this ladder"),
    "arrivals": Fact(RATE, "requests that come in, refused ones too"),
    "throughput": Fact(RATE, "requests that are answered"),
    "cpu": Fact(SHARE, "utilization of all processors together"),
    "gpu": Fact(SHARE, "utilization of the GPU"),
    "runnable": Fact(TASKS, "other programs' tasks that run or are ready to"),
    "memory_available": Fact(MEMORY, "memory that can still be had"),
    "memory_pressure": Fact(SHARE, "the share of time in which something waited for memory"),
    "cpu_pressure": Fact(SHARE, "the share of time in which something waited for a processor"),
    "temperature": Fact(CELSIUS, 'the hottest zone; `temperature("cpu-thermal")` is one zone'),
    "power": Fact(WATTS, "what the whole machine takes"),
    "slow_down": Fact(RATIO, "how much longer the active rung takes than at rest; 1 is as at rest"),
    "throttled": Fact(FLAG, "something slows the machine down now"),
    "under_voltage": Fact(FLAG, "the supply's voltage is too low now"),
    "clock": Fact(SHARE, "the processors' frequency, of the highest"),
    "accuracy": Fact(SHARE, "of the active rung"),
    "load_score": Fact(SHARE, "the load of the whole machine in one figure"),
    "hour": Fact(HOUR, "local time, 13.5 is half past one; known while the clock is synchronized"),
}
ZONED = frozenset({"temperature"})  # names that may be followed by a zone in parentheses


def value_of(dimension: Dimension, number: float, unit: str) -> float:
    """In the base unit. Raises KeyError for a unit that the dimension does not have."""
    scale = dimension.units[unit]
    return number * scale.times / scale.per


def unit_mistake(name: str, dimension: Dimension, unit: str) -> str:
    """What is wrong with `unit` ("" for none) after a number for `name`; "" when nothing is."""
    if unit in dimension.units:
        return ""
    if unit == PLAIN:
        return f"{name} needs a unit: {dimension.expected()}"
    meant = SLIPS.get(unit, "")
    hint = f"; did you mean {meant!r}?" if meant in dimension.units and meant else ""
    known = any(unit in fact.dimension.units for fact in FACTS.values())
    what = f"{name} is not measured in {unit!r}" if known else f"unknown unit {unit!r}"
    return f"{what}; expected {dimension.expected()}{hint}"


def bounds_mistake(name: str, dimension: Dimension, number: float, unit: str, operator: str = "") -> str:
    """What is wrong with the size of a number for `name`, which stands before `operator` ("" where there is none); ""
    when nothing is. A comparison that always holds is let through: people write `hour >= 0 and hour < 6`."""
    value = value_of(dimension, number, unit)
    if not math.isfinite(value):
        return "the number is too large"
    if dimension.low <= value <= dimension.high:
        return _never(name, dimension, value, operator)
    if value < dimension.low:
        return f"{name} is never below {dimension.low:g}"
    hint = f"; did you mean {number:g} %?" if dimension is SHARE and unit == PLAIN and number <= 100 else ""
    return f"{name} is never above {_highest(dimension)}, so that this says nothing{hint}"


def _never(name: str, dimension: Dimension, value: float, operator: str) -> str:
    """Of a value within the bounds: why no measurement ever compares so with it."""
    if value == dimension.low and operator == "<":
        return f"{name} is never below {dimension.low:g}, so that this never holds"
    if value == dimension.high and operator == ">":
        return f"{name} is never above {_highest(dimension)}, so that this never holds"
    if value == dimension.high and operator in (">=", "==") and not dimension.reaches_high:
        return f"{name} is always below {_highest(dimension)}, so that this never holds"
    return ""


def _highest(dimension: Dimension) -> str:
    return "1 (100 %)" if dimension is SHARE else f"{dimension.high:g}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word."""
    names = list(known)
    near = difflib.get_close_matches(word.lower()[:64], names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"


def _listed(words: list[str], last: str) -> str:
    words = [*words, last] if last else words
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
