"""A machine that does not exist: a ladder with rungs, load that comes and goes, heat that follows.

Random, rung -> record() -> Record. Its numbers are plausible and mean nothing. Pure but for the random source.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from flyball.uplink.messages import BirthFacts, Hardware, LadderFacts, RungFacts, Software
from flyball.uplink.record import LadderRecord, Record
from flyball.uplink.stamp import Stamp

LADDER = "defects"
RUNGS: Mapping[str, tuple[float, float, float]] = {  # median latency in ms, watts, accuracy
    "r64-int8": (4.0, 2.1, 0.86),
    "r96-int8": (9.0, 2.9, 0.91),
    "r112-fp32": (21.0, 4.4, 0.94),
}
FACTS = BirthFacts(
    hardware=Hardware(board="simulated", machine="none", cores=4, memory_b=4 << 30),
    software=Software(flyball="simulated"),
    ladders=(
        LadderFacts(
            name=LADDER,
            version="1.0.0",
            rungs=tuple(RungFacts(name=name, accuracy=accuracy) for name, (_, _, accuracy) in RUNGS.items()),
        ),
    ),
)


class Machine:
    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._phase = source.uniform(0, 2 * math.pi)
        self._energy_j = 0.0
        self._last_s: float | None = None
        self._temperature_c = source.uniform(38, 52)
        self.rung = "r96-int8"

    def pin(self, rung: str) -> None:
        """Raises KeyError for a rung that the ladder does not have."""
        RUNGS[rung]
        self.rung = rung

    def record(self, now: Stamp) -> Record:
        latency_ms, watts, _ = RUNGS[self.rung]
        load = 0.5 + 0.4 * math.sin(now.mono / 300 + self._phase) + self._random.gauss(0, 0.02)
        power_w = 1.2 + watts * max(0.0, load) + self._random.gauss(0, 0.05)
        self._energy_j += 0.0 if self._last_s is None else power_w * max(0.0, now.mono - self._last_s)
        self._last_s = now.mono
        self._temperature_c += 0.05 * (35 + 6 * power_w - self._temperature_c)
        p50_s = latency_ms / 1e3 * (1 + 0.3 * max(0.0, load))
        return Record(
            ts=now.ts,
            mono=now.mono,
            power_w=round(power_w, 3),
            power_scope="estimated",
            energy_j=round(self._energy_j, 2),
            temperature_c=round(self._temperature_c, 2),
            cpu_ratio=round(min(1.0, max(0.0, load)), 4),
            load=round(min(1.0, max(0.0, load)), 2),
            memory_available_b=2.1e9,
            frequency_hz=1.8e9,
            throttled="",
            spool_b=0,
            uptime_s=int(now.mono),
            ladders={
                LADDER: LadderRecord(
                    state="ready",
                    rung=self.rung,
                    p50_s=round(p50_s, 6),
                    p95_s=round(p50_s * 1.4, 6),
                    p99_s=round(p50_s * 1.9, 6),
                    rate_hz=round(max(0.0, 40 * load), 2),
                    errors=0,
                    pending=0,
                )
            },
        )
