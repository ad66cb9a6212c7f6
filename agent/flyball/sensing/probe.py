"""One look at what sensors have to say, for tools that do not stay.

sensors -> a sampler for a second at most -> their readings and states

A sensor that hangs or raises keeps nobody from seeing the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from flyball.clock import Clock
from flyball.events import Events
from flyball.ports import Reading, SensorHealth
from flyball.sensing.contract import Sensor
from flyball.sensing.sampler import Sampler

PERIOD_S = 0.05
LONGEST_S = 1.0
_READS = 3  # a difference needs two


def probe(sensors: Sequence[Sensor], clock: Clock) -> tuple[Sequence[Reading], Sequence[SensorHealth]]:
    """The estimate is among the readings whatever else is."""
    sampler = Sampler(sensors, PERIOD_S, 60.0, clock, Events())
    sampler.start()
    end_s = time.monotonic() + LONGEST_S
    while time.monotonic() < end_s:
        states = sampler.health()
        if all(h.reads and (h.state == "unavailable" or h.reads >= _READS) for h in states):
            break
        time.sleep(PERIOD_S / 2)
    sampler.stop(timeout_s=0.1)
    return sampler.everything(), sampler.health()
