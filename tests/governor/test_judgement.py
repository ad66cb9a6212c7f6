"""The short question of the search against the judgement in full, and what a judgement leaves alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.constraints import Check
from flyball.governor.joint import Party, settle
from flyball.governor.judgement import Bounds, bounds, breaks, judge
from flyball.governor.orders import forbidden
from flyball.governor.outlook import Heat, Outlook, Scene
from flyball.governor.policy import decide
from flyball.governor.state import LadderState, State
from flyball.governor.values import LadderView, Limits, Machine, Rung, Seen, View

RULES = Rules()
Case = tuple[Outlook, Bounds, Scene, float, float, float, bool]


def maybe(draw: random.Random, low: float, high: float, known: float = 0.7) -> float | None:
    return draw.uniform(low, high) if draw.random() < known else None


def around(draw: random.Random) -> Scene:
    heat = Heat("soc", 60.0, 62.0, draw.uniform(55, 85), 0.5, draw.uniform(0, 4), 50.0)
    return Scene(
        now_s=100.0,
        contention=0.0,
        clock=1.0,
        cpus=2,
        base_w=maybe(draw, 2, 6),
        available_bytes=maybe(draw, 5e7, 4e8),
        exhausted_s=maybe(draw, 0, 600, known=0.2),
        inference_w=draw.uniform(0, 4),
        heat=heat if draw.random() < 0.7 else None,
    )


def outlook(draw: random.Random) -> Outlook:
    work_s = maybe(draw, 0.001, 0.04, known=0.9)
    rung = Rung(name="a", accuracy=0.9, resident=draw.random() < 0.5, rss_bytes=maybe(draw, 1e6, 2e8))
    watts, share = maybe(draw, 0, 5), draw.choice([1.0, 0.4])
    if work_s is None:
        return Outlook(rung, 0, None, 0.0, 0.0, 0.0, None, "", "", share)
    rate, sd_s = draw.uniform(0, 60), draw.uniform(0, 0.4) * work_s
    square = rate * (work_s * work_s + sd_s * sd_s)
    return Outlook(
        rung, 0, work_s, sd_s, rate * work_s, square, watts, "", "", share, draw.choice([0.0, 0.0, 0.0, 0.2])
    )


def cases(count: int) -> Iterator[Case]:
    draw = random.Random(7)
    for _ in range(count):
        shared = around(draw)
        limits = Limits(
            deadline_s=maybe(draw, 0.003, 0.1),
            temperature_c=maybe(draw, 60, 90),
            memory_available_bytes=maybe(draw, 3e7, 2e8),
            power_w=maybe(draw, 4, 14),
            energy_j_per_h=maybe(draw, 2e4, 5e4, known=0.3),
        )
        load = draw.choice([0.0, draw.uniform(0, 0.5)])
        kept = bounds(limits, 0.0005, RULES, shared)
        yield outlook(draw), kept, shared, load, load * 0.01, draw.uniform(0, 4), draw.random() < 0.5


def test_the_short_question_has_the_same_answer_as_the_judgement_in_full() -> None:
    answers: Counter[str | None] = Counter()
    for one, kept, shared, load, square, other_w, climbs in cases(4000):
        told = breaks(one, kept, shared, load, square, other_w, climbs)
        fresh = msgspec.structs.replace(one, tests=())
        assert judge(fresh, kept, shared, load, square, other_w, climbs) is (told is None)
        assert fresh.broken == told
        answers[told] += 1
    assert {None, "latency", "temperature", "power", "energy", "memory"} <= set(answers)
    assert min(answers.values()) > 20


def test_what_was_kept_of_a_judgement_does_not_change_the_next_one() -> None:
    """The same rung beside more and more of other work, judged anew and by what the last look kept."""
    for one, kept, shared, load, square, other_w, climbs in cases(500):
        for times in (0.0, 1.0, 2.0, 0.5):
            judge(one, kept, shared, load * times, square * times, other_w, climbs)
            fresh = msgspec.structs.replace(one, tests=(), missed=None)
            judge(fresh, kept, shared, load * times, square * times, other_w, climbs)
            assert (one.missed, one.broken, one.excess) == (fresh.missed, fresh.broken, fresh.excess)


def test_what_an_order_asks_is_no_part_of_the_choice() -> None:
    limits, shared = Limits(deadline_s=0.05, temperature_c=70.0), around(random.Random(1))
    shared.heat = Heat("soc", 60.0, 60.0, 60.0, 1.0, 1.0, 50.0)
    ones = [
        Outlook(Rung(name=n, accuracy=0.9), i, 0.01, 0.001, 0.2, 0.002, 30.0 - 29 * i, "", "")
        for i, n in enumerate("ab")
    ]
    ladder = LadderView(name="x", active="b", rungs=tuple(o.rung for o in ones), limits=limits)
    party = Party(ladder, LadderState(), ones, 1)
    judge(ones[0], bounds(limits, 0.0, RULES, shared), shared, 0.5, 0.02, 0.0, climbs=True)
    before = msgspec.structs.astuple(ones[0])
    calm = Check(constraint="temperature", broken=False, text="")
    assert forbidden(party, RULES, [calm], shared, (), ones[0]).startswith("temperature: ")
    assert msgspec.structs.astuple(ones[0]) == before


def test_a_ladder_does_not_begin_at_a_rung_that_would_not_do_alone() -> None:
    """The top rung takes longer than the deadline, and the greatest relief for the accuracy it costs is the last one;
    from there the way back leads over a rung that takes too long as well, and not to the second, which would do."""
    shared = Scene(
        now_s=0.0, contention=0.0, clock=1.0, cpus=1, base_w=None, available_bytes=None, exhausted_s=None
    )  # fmt: skip
    figures = ((0.90, 0.050), (0.80, 0.006), (0.795, 0.040), (0.79, 0.0001))
    parties = []
    for name in "xy":
        rungs = [Rung(name=f"r{i}", accuracy=a, work_s=w, accelerator="npu") for i, (a, w) in enumerate(figures)]
        ones = [
            Outlook(rung, i, w, 0.1 * w, 5 * w, 5 * w * w, None, "", "")
            for i, (rung, (_, w)) in enumerate(zip(rungs, figures, strict=True))
        ]
        ladder = LadderView(name=name, active="r3", rungs=tuple(o.rung for o in ones))
        parties.append(Party(ladder, LadderState(), ones, 3))
        parties[-1].kept = bounds(Limits(deadline_s=0.030), 0.0, RULES, shared)
    settle(parties, shared, "accuracy-first")
    assert [p.chosen().rung.name for p in parties] == ["r1", "r1"]


def test_of_several_ladders_too_every_better_rung_is_told_of() -> None:
    works_s = (0.03, 0.02, 0.01, 0.004)
    rungs = tuple(
        Rung(name=f"r{i}", accuracy=0.9 - 0.1 * i, work_s=work_s, spread=0.1, accelerator="npu", resident=True)
        for i, work_s in enumerate(works_s)
    )
    seen = Seen(arrivals_per_s=35.0, answers=35, work_mean_s=0.01, work_std_s=0.001, late=0.0, window_answers=100,
                window_late=0.0, p50_s=0.01, p95_s=0.02)  # fmt: skip
    ladders = tuple(
        LadderView(name=n, active="r2", rungs=rungs, seen=seen, limits=Limits(deadline_s=0.05)) for n in "xy"
    )
    state = State()
    for now_s in range(1, 8):
        view = View(now_s=float(now_s), wall_s=1e9, machine=Machine(contention=0.0), ladders=ladders)
        decisions, state = decide(view, RULES, state)
    for decision in decisions:
        assert decision.target == "r2"
        *better, here, _ = decision.candidates
        assert [one.rung for one in better if one.predicted_late] == ["r0", "r1"]
        assert all(one.ruled_out_by.startswith("latency: ") for one in better)
        assert here.ruled_out_by == ""
        assert decision.inputs["answers"] == 35.0
