"""An hour of readings that break one limit after another: changes of rung stay bounded, whatever the mode."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from flyball.config import Governor as Rules
from flyball.governor.hysteresis import SPENT_S
from flyball.governor.policy import decide
from flyball.governor.state import CLIMBS_PER_HOUR, HOUR_S, State
from flyball.governor.values import LadderView, Limits, Machine, Rung, Seen, View
from flyball.ports import Decision

UPS = 2 * CLIMBS_PER_HOUR + int(HOUR_S / SPENT_S)  # each climb may be taken back upwards
HASTY = {"dwell_s": 0.0, "climb_backoff_s": 0.0, "climb_backoff_max_s": 0.0, "up_windows": 1, "down_windows": 1}


def ladders(draw: random.Random) -> list[LadderView]:
    """The quickest, the thriftiest and the smallest rung stand anywhere in them."""
    found = []
    for name in ("x", "y", "z")[: draw.randint(1, 3)]:
        rungs = tuple(
            Rung(name=f"r{i}", accuracy=0.95 - 0.05 * i, work_s=work_s, spread=0.1, resident=True,
                 joules=draw.choice([None, work_s * 10]), rss_bytes=draw.uniform(1e7, 3e8))
            for i, work_s in enumerate(draw.uniform(0.002, 0.03) for _ in range(draw.randint(2, 4)))
        )  # fmt: skip
        limits = Limits(
            deadline_s=draw.uniform(0.005, 0.1), temperature_c=80.0, memory_available_bytes=1e8, power_w=8.0
        )
        found.append(LadderView(name=name, active="r0", rungs=rungs, limits=limits))
    return found


def seen(draw: random.Random, rung: Rung, settled: bool) -> Seen:
    rate = draw.choice([0, 1, 10, 50, 100])
    if not rate or not settled:
        return Seen(arrivals_per_s=float(rate))
    work_s, late = (rung.work_s or 0.0) * draw.choice([0.5, 1, 2, 6]), draw.choice([0.0, 0.03, 0.2, 1.0, None])
    return Seen(arrivals_per_s=float(rate), answers_per_s=float(rate), answers=rate, work_mean_s=work_s, late=late,
                work_std_s=0.1 * work_s, window_answers=5 * rate, window_late=late, p50_s=work_s)  # fmt: skip


def changes(draw: random.Random, rules: Rules, seconds: int, every_s: int) -> Iterator[Decision]:
    served, state, machine = ladders(draw), State(), Machine()
    told: dict[str, Seen] = {}
    for now_s in range(1, seconds + 1):
        if now_s % every_s == 0 or now_s == 1:
            machine = Machine(
                cpus=2, contention=draw.choice([0.0, 0.5, 4.0, 8.0, None]), power_w=draw.choice([3.0, 8.2, 12.0, None]),
                zones={"z": draw.choice([50.0, 60.0, 74.0, 76.0, 82.0])},
                memory_available_bytes=draw.choice([2e8, 9e7, 5e7, 1e9]),
            )  # fmt: skip
            told.clear()
        views = []
        for ladder in served:
            rung = next(r for r in ladder.rungs if r.name == ladder.active)
            settled = now_s - state.of(ladder.name).since_s > 1.0
            its = told.setdefault(f"{ladder.name}/{ladder.active}/{settled}", seen(draw, rung, settled))
            views.append(msgspec.structs.replace(ladder, seen=its))
        view = View(now_s=float(now_s), wall_s=0.0, machine=machine, ladders=tuple(views))
        decisions, state = decide(view, rules, state)
        for i, decision in enumerate(decisions):
            if decision.target != decision.source:
                served[i] = msgspec.structs.replace(served[i], active=decision.target)
                state = state.moved(decision, float(now_s), rules)
                yield decision


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mode", ["accuracy-first", "energy-first", "throughput-first"])
def test_changes_within_an_hour_are_bounded(mode: str, seed: int) -> None:
    draw = random.Random(f"{mode}/{seed}")
    rules = Rules(mode=mode, **({} if seed else HASTY))  # type: ignore[arg-type]
    by_ladder: dict[str, list[Decision]] = {}
    for decision in changes(draw, rules, seconds=2400, every_s=2):
        by_ladder.setdefault(decision.ladder, []).append(decision)
    assert by_ladder
    for made in by_ladder.values():
        assert sum(d.action == "up" for d in made) <= UPS
        assert len(made) <= (UPS + 1) * 4
        spent = [d for d in made if d.action == "up"][2 * CLIMBS_PER_HOUR :]
        assert {d.binding for d in spent} <= {"temperature", "memory"}
