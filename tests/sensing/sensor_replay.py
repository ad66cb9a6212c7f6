"""Replays a captured machine: `<case>/tree.txt`, then, one second later, `<case>/later.txt` over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.board import identify
from flyball.sensing.contract import Sensor, SensorFailed, Unavailable
from flyball.sensing.discovery import discover
from flyball.sensing.total import total_power
from flyball.sensing.tree import Tree

NOW_S = 100.0


def replay(case: Path, scratch: Path) -> dict[str, Any]:
    """What expected.json should say of this case; sensors that have nothing to read there are not in it."""
    said = json.loads((case / "expected.json").read_text())
    tree = Tree(scratch)
    if (case / "tree.txt").exists():
        tree.unpack(case / "tree.txt")
    settings = msgspec.convert(said.get("settings", {}), Sensing)
    board = identify(tree.roots, said["arch"])
    sensors = discover(tree.roots, settings, board=board)
    for sensor in sensors:
        attempt(sensor, NOW_S)
    if (case / "later.txt").exists():
        tree.unpack(case / "later.txt")
    found = {sensor.name: attempt(sensor, NOW_S + 1) for sensor in sensors}
    readings = [reading for _, its in found.values() for reading in its]
    assert all(r.sensor == name and r.t_s == NOW_S + 1 for name, (_, its) in found.items() for r in its)
    total = total_power(readings)
    return {
        "arch": said["arch"],
        **({"settings": said["settings"]} if "settings" in said else {}),
        "board": json.loads(msgspec.json.encode(board)),
        "sensors": {
            name: {
                "state": state.replace(f"{scratch.resolve()}/", "").replace(f"{scratch}/", ""),
                "readings": rows(its),
            }
            for name, (state, its) in found.items()
            if state != "unavailable"
        },
        "total": rows([total])[0] if total else None,
    }


def attempt(sensor: Sensor, now_s: float) -> tuple[str, list[Reading]]:
    try:
        return "ok", list(sensor.read(now_s))
    except Unavailable:
        return "unavailable", []
    except SensorFailed as error:
        return f"failed: {error.reason}", list(error.readings)


def rows(readings: list[Reading]) -> list[list[Any]]:
    return [[r.quantity, r.name, round(r.value, 6), r.unit, r.scope] for r in readings]
