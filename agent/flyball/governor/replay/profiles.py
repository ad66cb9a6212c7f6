"""The rungs that the standard traces are made of: measured work, slow-down beside burners, memory and energy.

contention.json (bench/contention.py) -> measured -> the rungs of each ladder; without it, STAND_INS

Energy is estimated, not measured: one inference keeps one core busy, and the machine takes 6.1 W at rest and 12.1 W
with both cores busy, which is estimated as well. Never runs a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from flyball.errors import ConfigError
from flyball.governor.replay.trace import UNREADABLE, Board, Model, Name, NotNegative, Positive, legible

MIB = 1 << 20
IDLE_W, BUSY_W, CPUS = 6.1, 12.1, 2  # estimated
COOLED = Board(cpus=CPUS, idle_w=IDLE_W, busy_w=BUSY_W, idle_rise_c=15.0, r_kw=5.0, tau_s=90.0, throttle_c=85.0,
               memory_bytes=2048.0 * MIB)  # fmt: skip
FANLESS = msgspec.structs.replace(COOLED, idle_rise_c=20.0, r_kw=24.0)  # a bare package
UNKNOWN_RSS = 80.0 * MIB
SPREADS = (0.02, 1.0)

# Work of some length beside so many foreign tasks per processor, measured on two cores: what fits a slice of the
# scheduler is let through, what is longer shares its processor.
_SHORT = ((0.0, 1.0, 0.1), (2.0, 0.98, 0.15), (4.0, 0.92, 0.15), (8.0, 0.86, 0.15))
_MEDIUM = ((0.0, 1.0, 0.1), (1.0, 1.35, 0.2), (2.0, 1.7, 0.2), (4.0, 2.2, 0.2), (8.0, 2.9, 0.2))
_LONG = ((0.0, 1.0, 0.1), (1.0, 1.6, 0.2), (2.0, 2.2, 0.2), (4.0, 3.2, 0.2), (8.0, 4.7, 0.2))


def _stand_in(
    name: str, accuracy: float, work_ms: float, slow: tuple[tuple[float, float, float], ...], rss_mib: float
) -> Model:
    return Model(name=name, accuracy=accuracy, work_s=work_ms / 1e3, joules=work_ms / 1e3 * (BUSY_W - IDLE_W) / CPUS,
                 rss_bytes=rss_mib * MIB, load_s=0.35, slow_down=slow)  # fmt: skip


# Work and accuracy as measured once; the slow-down is that of other work of this length.
STAND_INS: Mapping[str, tuple[Model, ...]] = {
    "defects": (
        _stand_in("r224-fp32", 0.9959, 14.0, _LONG, 95),
        _stand_in("r112-fp32", 0.99015, 1.9, _SHORT, 72),
        _stand_in("r80-fp32", 0.9843, 1.5, _SHORT, 68),
        _stand_in("r64-fp32", 0.9497, 0.9, _SHORT, 64),
        _stand_in("r56-fp32", 0.9422, 0.55, _SHORT, 63),
    ),
    "mobilenets": (
        _stand_in("v2_1.0_224", 0.888, 11.0, _LONG, 78),
        _stand_in("v1_0.75_192", 0.806, 6.5, _MEDIUM, 72),
        _stand_in("v1_0.5_160", 0.685, 2.6, _SHORT, 66),
        _stand_in("v1_0.25_128", 0.455, 1.5, _SHORT, 60),
    ),
}
_NAMES = {"mobilenet": "mobilenets"}


class _Level(msgspec.Struct, frozen=True, kw_only=True):
    burners_per_core: NotNegative
    work_mean_s: Positive
    work_p50_s: Positive
    work_p95_s: Positive


class _Rung(msgspec.Struct, frozen=True, kw_only=True):
    ladder: Name
    rung: Name
    accuracy: Annotated[float, Meta(ge=0, le=1)] | None
    open_s: NotNegative
    rss_bytes: Annotated[int, Meta(ge=0, le=10**15)] | None
    joules: NotNegative
    levels: Annotated[tuple[_Level, ...], Meta(min_length=1)]


class _Contention(msgspec.Struct, frozen=True, kw_only=True):
    rungs: tuple[_Rung, ...]


def measured(path: Path) -> dict[str, tuple[Model, ...]]:
    """Ladders by name, rungs strongest first; rungs without an accuracy are left out. Raises ConfigError."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Contention)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UNREADABLE as error:
        raise ConfigError(f"{path}: not what bench/contention.py --write gives: {legible(str(error))}") from None
    ladders: dict[str, list[Model]] = {}
    for rung in found.rungs:
        if rung.accuracy is not None:
            try:
                model = _model(rung, rung.accuracy)
            except ValueError as error:  # Model's own checks
                raise ConfigError(f"{path}: {rung.rung}: {error}") from None
            ladders.setdefault(_NAMES.get(rung.ladder, rung.ladder), []).append(model)
    return {name: tuple(sorted(rungs, key=lambda r: -r.accuracy)) for name, rungs in ladders.items()}


def _model(rung: _Rung, accuracy: float) -> Model:
    levels = sorted(rung.levels, key=lambda level: level.burners_per_core)
    alone_s = levels[0].work_mean_s
    return Model(
        name=rung.rung,
        accuracy=accuracy,
        work_s=alone_s,
        joules=rung.joules,
        rss_bytes=UNKNOWN_RSS if rung.rss_bytes is None else float(rung.rss_bytes),
        load_s=rung.open_s,
        slow_down=tuple((level.burners_per_core, level.work_mean_s / alone_s, _spread(level)) for level in levels),
    )


def _spread(level: _Level) -> float:
    """Of the log-normal with this median and 95th percentile: the deviation itself hangs on single outliers."""
    spread = math.log(level.work_p95_s / level.work_p50_s) / 1.645
    return min(max(spread, SPREADS[0]), SPREADS[1])
