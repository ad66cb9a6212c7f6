"""A board as `flyball top` may find it. The figures are made up, of the size that a Jetson Orin Nano has.

Run as a program it draws docs/images/top.svg: .venv/bin/python tests/cli/top_sample.py
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from flyball.cli.top_frame import Frame, History, View
from flyball.cli.top_screen import screen
from flyball.control_api import LadderView, Status
from flyball.ports import (
    UNITS,
    Decision,
    EnergyTotal,
    LadderStatus,
    LatencyWindow,
    Pin,
    Quantity,
    Reading,
    RungStatus,
    SensorHealth,
    UplinkStatus,
)
from flyball.testing import NO_TOTALS

PICTURE = Path(__file__).resolve().parents[2] / "docs/images/top.svg"
NOW_S = 1000.0
GIB = float(1 << 30)


def reading(quantity: Quantity, name: str, value: float, sensor: str = "host", scope: Any = "machine") -> Reading:
    return Reading(
        quantity=quantity, name=name, value=value, unit=UNITS[quantity], scope=scope, sensor=sensor, t_s=NOW_S
    )


def rung(name: str, state: Any, precision: str, accuracy: float, p50_ms: float | None, error: str = "") -> RungStatus:
    return RungStatus(
        name=name, state=state, precision=precision, accuracy=accuracy, error=error, rss_bytes=130 << 20,
        profiled_p50_s=None if p50_ms is None else p50_ms / 1e3,
    )  # fmt: skip


def ladder(name: str, *rungs: RungStatus, p95_ms: float | None = None, count: int = 0, **more: Any) -> LadderView:
    active = next((r.name for r in rungs if r.state == "active"), None)
    p95_s = None if p95_ms is None else p95_ms / 1e3
    window = active and LatencyWindow(
        rung=active, seconds=5.0, count=count, p50_s=p95_s and 0.8 * p95_s, p95_s=p95_s, p99_s=p95_s
    )
    given = {"version": "1", "state": "ready", "pending": 0, "active": active, **more}
    return LadderView(
        status=LadderStatus(name=name, rungs=rungs, **given),
        window=window or None,
        totals=NO_TOTALS,
        joules_per_inference={"r112-int8": 0.041, "r224-fp32": 0.087},
    )


READINGS = (
    reading("cpu_utilization", "machine", 0.46),
    reading("utilization", "gpu", 0.75, "gpu"),
    reading("memory_used", "machine", 5.1 * GIB),
    reading("memory_total", "machine", 7.4 * GIB),
    reading("load_1m", "machine", 2.31),
    reading("power", "VDD_IN", 9.84, "hwmon", "module"),
    reading("power", "VDD_CPU_GPU_CV", 4.12, "hwmon", "rail"),
    reading("power", "VDD_SOC", 2.05, "hwmon", "rail"),
    reading("temperature", "cpu-thermal", 71.3, "thermal", "zone"),
    reading("temperature", "gpu-thermal", 69.8, "thermal", "zone"),
    reading("temperature_limit", "cpu-thermal/passive", 80.0, "cooling", "zone"),
    reading("temperature_limit", "cpu-thermal/critical", 104.5, "cooling", "zone"),
    reading("frequency", "cpu0", 1.51e9, "clocks", "soc"),
    reading("frequency_limit", "cpu0", 1.51e9, "clocks", "soc"),
    reading("frequency", "gpu", 6.25e8, "clocks", "soc"),
    reading("throttled", "hw_thermal", 0.0, "gpu"),
    reading("throttled", "over_current_since_boot", 1.0, "gpu"),
    reading("cooling", "pwm-fan", 0.66, "cooling"),
    reading("pressure", "cpu_some", 0.12, "pressure"),
    reading("pressure", "memory_some", 0.0, "pressure"),
)
LADDERS = (
    ladder("faces", rung("fp16", "active", "fp16", 0.942, 8.0), p95_ms=9.4, count=31, version="7"),
    ladder(
        "defects",
        rung("r224-fp32", "standby", "fp32", 0.991, 22.4),
        rung("r112-int8", "active", "int8", 0.978, 6.1),
        rung("r64-int8", "closed", "int8", 0.931, None),
        p95_ms=12.5,
        count=402,
        pending=3,
    ),
    ladder("gauges", rung("only", "failed", "fp32", 0.9, None, "worker died: SIGBUS"), state="failed"),
)
SENSORS = (
    *(SensorHealth(sensor=s, state="ok") for s in ("host", "hwmon", "thermal", "clocks", "cooling", "gpu", "pressure")),
    SensorHealth(sensor="estimated", state="unavailable", reason="measured already"),
)
STATUS = Status(
    version="1.0.0",
    device="line-3",
    board="Jetson Orin Nano",
    mode="accuracy-first",
    uptime_s=273600.0,
    ladders=LADDERS,
    readings=READINGS,
    sensors=SENSORS,
    energy=EnergyTotal(joules=2.41e6, covered_s=273500.0, scope="module", source="VDD_IN"),
    pins=(Pin(ladder="faces", rung="fp16", until_s=NOW_S + 540),),
    uplink=UplinkStatus(
        connected=True, broker="mqtts://broker.example:8883", spool_records=12, spool_bytes=3300, commands="verified"
    ),
)
DECISION = Decision(
    ladder="defects", t_s=NOW_S - 4, wall_s=0.0, action="stay", source="r112-int8", target="r112-int8",
    reason="r224-fp32 would take 27 ms, limit 20 ms",
)  # fmt: skip


def changed(status: Status = STATUS, **values: Any) -> Status:
    return msgspec.structs.replace(status, **values)


def history() -> History:
    """Of half a minute: load came, the rung went down."""
    found = History()
    for i in range(30):
        p95_ms = 12.5 if i < 8 or i > 20 else 24.0 + 4 * math.sin(i)
        power_w = 9.84 if i > 20 else 8 + i / 5
        views = tuple(
            msgspec.structs.replace(v, window=msgspec.structs.replace(v.window, p95_s=p95_ms / 1e3))
            if v.window is not None
            else v
            for v in LADDERS
        )
        readings = tuple(msgspec.structs.replace(r, value=power_w) if r.name == "VDD_IN" else r for r in READINGS)
        found.add(changed(ladders=views, readings=readings))
    return found


def frame(status: Status = STATUS, view: View | None = None, **more: Any) -> Frame:
    given = {"history": history(), "now_s": NOW_S, "decision": DECISION, **more}
    return Frame(status=status, view=view or View(ladder="defects", rung="r224-fp32"), **given)


def shown(of: Frame, width: int = 80, height: int = 24, **more: Any) -> list[str]:
    return [line.plain.rstrip() for line in screen(of, width, height, **more)]


def svg() -> str:
    """Without the fonts that rich would have fetched from elsewhere: any font of equal widths will do."""
    canvas = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    canvas.print(Text("\n").join(screen(frame(), 100, 27)))
    return re.sub(
        r"@font-face \{.*?\}\s*", "", canvas.export_svg(title="flyball top", unique_id="top"), flags=re.DOTALL
    )


if __name__ == "__main__":
    PICTURE.write_text(svg())
