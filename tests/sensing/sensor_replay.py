"""Replays a captured machine: the folder `<case>/{sys,proc,dev}`, then, one second later, `<case>/later/` over it.

Links in the tree stay links, as they are in sysfs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.board import identify
from flyball.sensing.contract import Roots, Sensor, SensorFailed, Unavailable
from flyball.sensing.discovery import discover
from flyball.sensing.total import total_power

NOW_S = 100.0


def roots_at(folder: Path) -> Roots:
    return Roots(sys=folder / "sys", proc=folder / "proc", dev=folder / "dev")


def replay(case: Path, scratch: Path) -> dict[str, Any]:
    """What expected.json should say of this case."""
    said = json.loads((case / "expected.json").read_text())
    shutil.copytree(case, scratch, symlinks=True, dirs_exist_ok=True)
    roots, settings = roots_at(scratch), msgspec.convert(said.get("settings", {}), Sensing)
    board = identify(roots, said["arch"])
    sensors = discover(roots, settings, board=board)
    for sensor in sensors:
        attempt(sensor, NOW_S)
    if (case / "later").is_dir():
        shutil.copytree(case / "later", scratch, symlinks=True, dirs_exist_ok=True)
    found = {sensor.name: attempt(sensor, NOW_S + 1) for sensor in sensors}
    readings = [reading for _, its in found.values() for reading in its]
    assert all(r.sensor == name and r.t_s == NOW_S + 1 for name, (_, its) in found.items() for r in its)
    total = total_power(readings)
    return {
        "arch": said["arch"],
        **({"settings": said["settings"]} if "settings" in said else {}),
        "board": msgspec.to_builtins(board),
        "sensors": {name: {"state": state, "readings": rows(its)} for name, (state, its) in found.items()},
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
