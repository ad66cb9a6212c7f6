"""The joint choice against all combinations: never worse by more than one step, on ladders without a useless rung.

docs/adr/0014 has the proof that this rests on.
"""

from __future__ import annotations

import itertools
import random

import pytest

from flyball.config import Governor as Rules
from flyball.governor.joint import Party, settle
from flyball.governor.judgement import CLIMBING_W, bounds
from flyball.governor.outlook import outlooks, scene
from flyball.governor.state import LadderState, State
from flyball.governor.values import LadderView, Limits, Machine, Rung, View

BASE_W, CAP_W, PER_S = 5.0, 14.0, 10.0
RUNGS = 4


def ladder(draw: random.Random, name: str) -> LadderView:
    """Every step up costs more joules per accuracy than the one before it."""
    steps = sorted(
        ((draw.uniform(0.02, 0.2), draw.uniform(0.02, 0.2)) for _ in range(RUNGS - 1)),
        key=lambda step: step[0] / step[1],
        reverse=True,
    )
    figures = [(draw.uniform(0.3, 0.4), draw.uniform(0.02, 0.05))]
    for accuracy, joules in steps:
        figures.insert(0, (figures[0][0] + accuracy, figures[0][1] + joules))
    rungs = tuple(
        Rung(name=f"r{i}", accuracy=accuracy, work_s=joules / 10, joules=joules, accelerator=name, resident=True)
        for i, (accuracy, joules) in enumerate(figures)
    )
    return LadderView(name=name, active=rungs[-1].name, rungs=rungs, limits=Limits(power_w=CAP_W))


def chosen(views: tuple[LadderView, ...]) -> list[Party]:
    view = View(now_s=10.0, wall_s=0.0, machine=Machine(power_w=BASE_W), ladders=views)
    own = LadderState(active=views[0].rungs[-1].name, arrivals_per_s=PER_S)
    around = scene(view, State(looked_s=9.0, base_w=BASE_W, power_w=BASE_W, ladders={v.name: own for v in views}))
    parties = [Party(v, own, outlooks(v, own, around), RUNGS - 1) for v in views]
    for party in parties:
        party.kept = bounds(party.ladder.limits, 0.0, Rules(), around)
    settle(parties, around, "accuracy-first")
    return parties


@pytest.mark.parametrize("seed", range(60))
def test_greedy_loses_one_step_at_most(seed: int) -> None:
    draw = random.Random(seed)
    views = tuple(ladder(draw, f"l{i}") for i in range(3))
    parties = chosen(views)
    rungs = [party.chosen().rung for party in parties]
    spare_w = CAP_W * CLIMBING_W - BASE_W
    fitting = [
        sum(rung.accuracy or 0.0 for rung in combination)
        for combination in itertools.product(*(v.rungs for v in views))
        if sum((rung.joules or 0.0) * PER_S for rung in combination) <= spare_w
    ]
    assert sum((rung.joules or 0.0) * PER_S for rung in rungs) <= spare_w + 1e-9
    steps = [
        (above.accuracy or 0.0) - (below.accuracy or 0.0)
        for view in views
        for above, below in itertools.pairwise(view.rungs)
    ]
    assert max(fitting) - sum(rung.accuracy or 0.0 for rung in rungs) <= max(steps) + 1e-9
