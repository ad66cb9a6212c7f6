"""Ladders that share a machine: what each chooses for itself breaks limits that they keep together.

Against every combination there is, on 400 small random machines of two or three ladders: wherever some combination
keeps all limits, so does the one that is chosen, and it loses at most 10 points of accuracy to the best (both on the
mean of the ladders); on the mean of all machines, 0.3 points.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from flyball.config import Governor as Rules
from flyball.governor.joint import Party, settle
from flyball.governor.judgement import bounds, judge
from flyball.governor.outlook import Outlook, Scene, scene
from flyball.governor.state import LadderState, State
from flyball.governor.values import LadderView, Limits, Machine, Rung, View

RULES = Rules()
WORST_LOSS, MEAN_LOSS = 0.10, 0.003


def around(cpus: int = 2, base_w: float | None = 2.0) -> Scene:
    machine = Machine(cpus=cpus, contention=0.0, power_w=base_w)
    return scene(View(now_s=100.0, wall_s=1e9, machine=machine), State(base_w=base_w))


def outlook(index: int, accuracy: float, work_s: float, rate: float, joules: float = 0.1, on: str = "cpu") -> Outlook:
    rung = Rung(name="abcdefgh"[index], accuracy=accuracy, accelerator=on, work_s=work_s, joules=joules)
    sd_s = 0.1 * work_s
    watts = joules * min(rate, 1.0 / work_s)
    return Outlook(rung, index, work_s, sd_s, rate * work_s, rate * (work_s**2 + sd_s**2), watts, "", "")


def party(outlooks: list[Outlook], limits: Limits, shared: Scene, active: int = 0) -> Party:
    ladder = LadderView(name="x", active=outlooks[active].rung.name, rungs=tuple(o.rung for o in outlooks))
    one = Party(ladder, LadderState(), outlooks, active)
    one.kept = bounds(limits, 0.0, RULES, shared)
    return one


def fits(parties: list[Party], chosen: tuple[int, ...], shared: Scene) -> bool:
    """By hand: every ladder's rung beside what the others' come to."""
    ones = [p.outlooks[i] for p, i in zip(parties, chosen, strict=True)]
    for at, (one, its) in enumerate(zip(ones, parties, strict=True)):
        others = [o for i, o in enumerate(ones) if i != at]
        here = [o for o in others if o.rung.accelerator == one.rung.accelerator]
        share = 1.0 / shared.cpus if one.rung.accelerator == "cpu" else 1.0
        load, square = sum(o.load for o in here) * share, sum(o.square for o in here) * share
        if not judge(one, its.kept, shared, load, square, sum(o.watts or 0.0 for o in others), False):
            return False
    return True


def accuracy(parties: list[Party], chosen: tuple[int, ...]) -> float:
    return sum(p.outlooks[i].rung.accuracy or 0.0 for p, i in zip(parties, chosen, strict=True)) / len(parties)


def chosen(parties: list[Party]) -> tuple[int, ...]:
    return tuple(p.chosen().index for p in parties)


def test_each_for_itself_breaks_what_they_keep_together() -> None:
    shared, limits = around(cpus=1), Limits(deadline_s=0.080)

    def ladder() -> list[Outlook]:
        return [outlook(0, 0.9, 0.020, 22.0), outlook(1, 0.8, 0.005, 22.0)]

    (alone,) = both = [party(ladder(), limits, shared)]
    settle(both, shared, "accuracy-first")
    assert alone.chosen().index == 0  # by itself, each keeps its best rung
    together = [party(ladder(), limits, shared), party(ladder(), limits, shared)]
    assert not fits(together, (0, 0), shared)
    settle(together, shared, "accuracy-first")
    assert fits(together, chosen(together), shared)
    assert sorted(chosen(together)) in ([0, 1], [1, 1])


def test_a_power_cap_is_shared_and_the_cheaper_loss_is_taken() -> None:
    shared = around()
    limits = Limits(power_w=9.0)
    dear = [outlook(0, 0.90, 0.010, 10.0, joules=0.5), outlook(1, 0.70, 0.005, 10.0, joules=0.1)]
    cheap = [outlook(0, 0.90, 0.010, 10.0, joules=0.5), outlook(1, 0.89, 0.005, 10.0, joules=0.1)]
    parties = [party(dear, limits, shared), party(cheap, limits, shared)]
    settle(parties, shared, "accuracy-first")  # 2 + 5 + 5 W are too many, 2 + 5 + 1 are not
    assert chosen(parties) == (0, 1)


def test_a_ladder_on_another_accelerator_is_left_where_it_is() -> None:
    shared, limits = around(cpus=1), Limits(deadline_s=0.080)
    slow = [outlook(0, 0.9, 0.020, 22.0), outlook(1, 0.8, 0.005, 22.0)]
    elsewhere = [outlook(0, 0.9, 0.020, 22.0, on="edgetpu"), outlook(1, 0.8, 0.005, 22.0, on="edgetpu")]
    parties = [party(slow, limits, shared), party(elsewhere, limits, shared)]
    settle(parties, shared, "accuracy-first")
    assert chosen(parties) == (0, 0)


def test_a_pinned_ladder_makes_the_others_give_way() -> None:
    shared, limits = around(cpus=1), Limits(deadline_s=0.080)
    parties = [
        party([outlook(0, 0.9, 0.020, 22.0), outlook(1, 0.89, 0.005, 22.0)], Limits(), shared),
        party([outlook(0, 0.9, 0.020, 22.0), outlook(1, 0.5, 0.005, 22.0)], limits, shared),
    ]
    parties[0].fixed = 0
    settle(parties, shared, "accuracy-first")
    assert parties[0].chosen().index == 0


def test_nothing_fits_and_nobody_climbs_for_it() -> None:
    shared, limits = around(cpus=1), Limits(deadline_s=0.001)
    parties = [
        party([outlook(i, 0.9 - 0.1 * i, 0.02 / (i + 1), 5.0) for i in range(3)], limits, shared, active=2)
        for _ in range(2)
    ]
    settle(parties, shared, "accuracy-first")
    assert chosen(parties) == (2, 2)


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("active", [0, 3])
def test_a_deadline_that_no_rung_meets_does_not_drag_the_others_down(active: int, cpus: int) -> None:
    shared = around(cpus=cpus)

    def one(deadline_s: float) -> Party:
        its = [outlook(i, 0.95 - 0.1 * i, 0.02 / (i + 1), 10.0) for i in range(4)]
        return party(its, Limits(deadline_s=deadline_s), shared, active=active)

    for deadline_s in (0.001, 0.004):
        parties = [one(deadline_s), one(0.2)]
        settle(parties, shared, "accuracy-first")
        assert chosen(parties) == (3, 0), deadline_s
        assert parties[1].chosen().broken is None


def test_what_eases_a_late_ladder_is_given_up_where_that_is_worth_more() -> None:
    shared = around(cpus=1)
    poor = party([outlook(0, 0.9, 0.004, 10.0)], Limits(deadline_s=0.0046), shared)
    works = (0.020, 0.003)
    other = party([outlook(i, 0.9 - 0.1 * i, works[i], 20.0) for i in range(2)], Limits(deadline_s=0.5), shared)
    settle([poor, other], shared, "accuracy-first")
    assert poor.chosen().broken == "latency"
    assert (poor.chosen().missed or 0.0) < 0.25  # beside the stronger rung it would be half of them, for 10 points
    assert other.chosen().index == 1


@pytest.mark.parametrize("limits", [Limits(power_w=3.0), Limits(energy_j_per_h=3.0 * 3600)])
def test_a_cap_that_nothing_keeps_still_asks_for_all(limits: Limits) -> None:
    shared = around()
    parties = [
        party([outlook(i, 0.9 - 0.1 * i, 0.02 / (i + 1), 10.0, joules=0.5 / (i + 1)) for i in range(3)], its, shared)
        for its in (limits, Limits(deadline_s=0.5))
    ]
    settle(parties, shared, "accuracy-first")
    assert chosen(parties) == (2, 2)


def test_ladders_that_get_back_what_they_gave_still_suit_each_other() -> None:
    shared = around(cpus=1)
    heavy = [0.030, 0.020, 0.004]
    parties = [
        party([outlook(0, 0.9, 0.020, 2.0)], Limits(deadline_s=0.001), shared),
        *(
            party([outlook(i, 0.95 - 0.1 * i, w, 20.0) for i, w in enumerate(heavy)], Limits(deadline_s=0.1), shared)
            for _ in range(2)
        ),
    ]
    settle(parties, shared, "accuracy-first")
    assert [p.chosen().broken for p in parties] == ["latency", None, None]
    assert sum(chosen(parties)) < 4  # at the bottom both would be


def machines(seed: int, count: int) -> Iterator[tuple[list[Party], Scene]]:
    draw = random.Random(seed)
    for _ in range(count):
        shared = around(cpus=draw.choice([1, 2, 4]))
        cap_w = draw.uniform(4.0, 20.0) if draw.random() < 0.5 else None
        parties = []
        for _ in range(draw.choice([2, 3])):
            rate, rungs = draw.uniform(2, 40), draw.randint(2, 5)
            works = sorted((draw.uniform(0.001, 0.030) for _ in range(rungs)), reverse=True)
            scores = sorted((draw.uniform(0.5, 0.95) for _ in range(rungs)), reverse=True)
            accelerators = ["cpu"] * rungs if draw.random() < 0.7 else ["edgetpu"] * rungs
            its = [
                outlook(i, scores[i], works[i], rate, works[i] * draw.uniform(5, 20), accelerators[i])
                for i in range(rungs)
            ]
            parties.append(party(its, Limits(deadline_s=draw.uniform(0.005, 0.08), power_w=cap_w), shared))
        yield parties, shared


@pytest.mark.parametrize("seed", [1, 2])
def test_against_every_combination(seed: int) -> None:
    losses = []
    for parties, shared in machines(seed, 200):
        every = itertools.product(*(range(len(p.outlooks)) for p in parties))
        best = max((accuracy(parties, c) for c in every if fits(parties, c, shared)), default=None)
        settle(parties, shared, "accuracy-first")
        if best is None:
            continue
        assert fits(parties, chosen(parties), shared), chosen(parties)
        losses.append(best - accuracy(parties, chosen(parties)))
    assert len(losses) > 50
    assert max(losses) <= WORST_LOSS
    assert sum(losses) / len(losses) <= MEAN_LOSS
