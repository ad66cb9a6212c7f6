"""The load of the whole machine in one figure, for those who choose between machines.

readings -> cpu, memory, io, network, each 0 (all of it is spare) to 1 -> weighted mean of those that are known

cpu:      utilization of all processors
memory:   share that is not available
io:       share of the last 10 s in which some task waited for a disk (PSI "some")
network:  utilization of the busiest link whose speed is known

What is not measured is left out, not taken for 0: the other weights then share the whole. Decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from flyball.config import LoadWeights
from flyball.ports import Quantity, Reading

COMPONENTS = tuple(LoadWeights.__struct_fields__)
DEFAULT_WEIGHTS = LoadWeights()
_LINK = "net/"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """`value` and every component are 0 to 1; `missing` are the components that counted for something and are not
    known now."""

    value: float
    cpu: float | None
    memory: float | None
    io: float | None
    network: float | None
    missing: tuple[str, ...]


def score(readings: Sequence[Reading], weights: LoadWeights = DEFAULT_WEIGHTS) -> Score | None:
    """Of the newest readings. None when nothing is known of what counts."""
    known = {
        "cpu": _machine(readings, "cpu_utilization"),
        "memory": _memory(readings),
        "io": _machine(readings, "pressure", "io_some"),
        "network": _network(readings),
    }
    counting = {name: getattr(weights, name) for name in COMPONENTS if getattr(weights, name) > 0}
    heaviest = max(counting.values())
    total = weight = 0.0
    for name, its in counting.items():
        value = known[name]
        if value is not None:
            total += its / heaviest * value
            weight += its / heaviest
    if not weight:
        return None
    missing = tuple(name for name in counting if known[name] is None)
    return Score(value=min(1.0, total / weight), missing=missing, **known)


def _machine(readings: Sequence[Reading], quantity: Quantity, name: str = "machine") -> float | None:
    found = (r.value for r in readings if (r.quantity, r.scope, r.name) == (quantity, "machine", name))
    return _share(next(found, None))


def _memory(readings: Sequence[Reading]) -> float | None:
    """Of the machine: a GPU and a control group have memory of their own."""
    held = {r.quantity: r.value for r in readings if r.scope == "machine" and r.name == "machine"}
    total, available = held.get("memory_total"), held.get("memory_available")
    return None if not total or available is None else _share(1.0 - available / total)


def _network(readings: Sequence[Reading]) -> float | None:
    links = [_share(r.value) for r in readings if r.quantity == "utilization" and r.name.startswith(_LINK)]
    return max((share for share in links if share is not None), default=None)


def _share(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else min(max(value, 0.0), 1.0)
