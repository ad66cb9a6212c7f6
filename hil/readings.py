"""Readings out of the metrics page, and whether they can be true.

Prometheus text -> {name{labels}: value} -> the readings of one kind -> plausible or not
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# kind: metric, lowest and highest value that a working machine shows
PLAUSIBLE: Mapping[str, tuple[str, float, float]] = {
    "memory": ("nv_cpu_memory_used_bytes", 1e6, 4e12),
    "cpu": ("nv_cpu_utilization", 0.0, 1.0),
    "temperature": ("flyball_temperature_celsius", -40.0, 125.0),
    "power": ("flyball_power_watts", 0.01, 5000.0),
}
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{.*\})?) (\S+)")


def samples(page: str) -> dict[str, float]:
    found = (_SAMPLE.match(line) for line in page.splitlines() if not line.startswith("#"))
    return {match[1]: float(match[2]) for match in found if match}


def of_kind(page: str, kind: str) -> dict[str, float]:
    metric = PLAUSIBLE[kind][0]
    return {name: value for name, value in samples(page).items() if name.partition("{")[0] == metric}


def implausible(kind: str, values: Mapping[str, float]) -> dict[str, float]:
    _, low, high = PLAUSIBLE[kind]
    return {name: value for name, value in values.items() if not low <= value <= high}
