"""The cost of one decision: three ladders of eight rungs, with every limit.

View, State -> decide, choose -> microseconds
"""

from __future__ import annotations

import statistics
import time

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.perception import perceive, perceive_ladder
from flyball.governor.policy import choose, decide
from flyball.governor.state import State
from flyball.governor.values import LadderView, Limits, Machine, Rung, Seen, View

RULES = Rules()


def decision_us(calls: int = 300) -> tuple[float, float]:
    """Of the choice and of the whole period: medians over calls, each fed with the state that the one before left."""
    names = [f"r{i}" for i in range(8)]
    models = tuple(
        Rung(name=name, accuracy=0.95 - 0.03 * i, work_s=0.012 / (1 + i), spread=0.1, joules=0.04 / (1 + i),
             rss_bytes=8e7, load_s=0.4, resident=i == 2)
        for i, name in enumerate(names)
    )  # fmt: skip
    limits = Limits(deadline_s=0.03, temperature_c=85.0, memory_available_bytes=6.4e7, power_w=9.0)
    state, taken, chosen = State(), [], []
    for number in range(calls):
        seen = Seen(arrivals_per_s=15.0, answers=15, work_mean_s=0.0045 + 0.0001 * (number % 7), work_std_s=0.0005,
                    late=0.02, window_answers=75, p50_s=0.005, p95_s=0.011)  # fmt: skip
        view = View(
            now_s=float(number),
            wall_s=1.7e9 + number,
            machine=Machine(contention=0.5 + 0.1 * (number % 5), cpu_utilization=0.6, clock=1.0,
                            zones={"soc": 60.0 + 0.1 * (number % 9)}, power_w=8.0, memory_available_bytes=9e8,
                            memory_pressure=0.0),
            ladders=tuple(LadderView(name=f"l{n}", active="r2", rungs=models, seen=seen, limits=limits)
                          for n in range(3)),
        )  # fmt: skip
        before = state
        began = time.perf_counter()
        _, state = decide(view, RULES, before)
        taken.append(time.perf_counter() - began)
        found = [
            perceive_ladder(v, view, RULES, perceive(view, RULES, before), before.of(v.name)) for v in view.ladders
        ]
        informed = msgspec.structs.replace(
            perceive(view, RULES, before),
            ladders={v.name: own for v, (own, _) in zip(view.ladders, found, strict=True)},
        )
        began = time.perf_counter()
        choose(view, RULES, informed, [checks for _, checks in found])
        chosen.append(time.perf_counter() - began)
    choice_us, period_us = (statistics.median(row[calls // 3 :]) * 1e6 for row in (chosen, taken))
    return round(choice_us, 1), round(period_us, 1)
