"""Two ladders share the memory that is left: what one of them is opening is not there for the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from flyball.config import Governor as Rules
from flyball.governor.policy import decide
from flyball.governor.state import State
from flyball.governor.values import MIB, LadderView, Limits, Machine, Rung, Seen, View
from flyball.ports import Decision, Pin

RULES = Rules()
BIG, SMALL = 100.0, 10.0  # MiB
WORK_S = {"big": 0.010, "small": 0.004}


@dataclass
class Pair:
    """Two ladders of two rungs each, which take no notice of each other but for the memory. A rung takes
    `opens_s` to be opened: meanwhile its ladder is left out of the view, and the memory still there."""

    available_mib: float
    opens_s: float = 0.0
    reserve_mib: float = 64.0
    rules: Rules = RULES
    refusing: bool = False
    state: State = field(default_factory=State)
    now_s: float = 0.0
    active: dict[str, str] = field(default_factory=lambda: {"x": "small", "y": "small"})
    coming: dict[str, tuple[float, Decision]] = field(default_factory=dict)
    least_mib: float = 1e9

    def free_mib(self) -> float:
        return self.available_mib - sum(BIG for rung in self.active.values() if rung == "big")

    def ladder(self, name: str) -> LadderView:
        active = self.active[name]
        rungs = tuple(
            Rung(name=rung, accuracy=accuracy, work_s=WORK_S[rung], spread=0.05, rss_bytes=mib * MIB,
                 resident=rung == active, load_s=0.1)
            for rung, accuracy, mib in (("big", 0.9, BIG), ("small", 0.8, SMALL))
        )  # fmt: skip
        work_s, seen = WORK_S[active], Seen(arrivals_per_s=5.0)
        if self.now_s - self.state.of(name).since_s > self.rules.period_s:
            seen = Seen(arrivals_per_s=5.0, answers_per_s=5.0, answers=5, work_mean_s=work_s, work_std_s=0.0, late=0.0,
                        window_answers=25, window_late=0.0, p50_s=work_s, p95_s=work_s)  # fmt: skip
        limits = Limits(deadline_s=0.05, memory_available_bytes=self.reserve_mib * MIB)
        return LadderView(name=name, active=active, rungs=rungs, seen=seen, limits=limits)

    def step(self) -> list[Decision]:
        self.now_s += 1.0
        for name, (at_s, decision) in list(self.coming.items()):
            if at_s <= self.now_s:
                del self.coming[name]
                self.conclude(decision)
        views = tuple(self.ladder(name) for name in self.active if name not in self.coming)
        machine = Machine(cpus=4, contention=0.0, memory_available_bytes=self.free_mib() * MIB)
        view = View(now_s=self.now_s, wall_s=0.0, machine=machine, ladders=views)
        decisions, self.state = decide(view, self.rules, self.state)
        for decision in decisions:
            if decision.target != decision.source:
                if self.opens_s:
                    self.coming[decision.ladder] = self.now_s + self.opens_s, decision
                else:
                    self.conclude(decision)
        self.least_mib = min(self.least_mib, self.free_mib())
        return list(decisions)

    def conclude(self, decision: Decision) -> None:
        if self.refusing:
            self.state = self.state.refused(decision, "no", self.now_s, self.rules)
        else:
            self.active[decision.ladder] = decision.target
            self.state = self.state.moved(decision, self.now_s, self.rules)

    def run(self, seconds: int) -> list[Decision]:
        return [d for _ in range(seconds) for d in self.step()]


@pytest.mark.parametrize("opens_s", [0.0, 8.0])
def test_two_climbs_that_do_not_fit_together_are_not_made_together(opens_s: float) -> None:
    pair = Pair(available_mib=64 / 0.85 + BIG + BIG / 2, opens_s=opens_s)
    said = pair.run(120)
    assert sorted(pair.active.values()) == ["big", "small"]
    assert pair.least_mib >= pair.reserve_mib
    waiting = [d for d in said if "while another ladder opens" in d.reason]
    assert waiting
    assert {d.binding for d in waiting} == {"memory"}
    assert waiting[0].reason == "big would fit; but it needs 100 MiB while another ladder opens 100 MiB"


@pytest.mark.parametrize("opens_s", [0.0, 8.0])
def test_two_climbs_that_fit_are_made_at_once(opens_s: float) -> None:
    pair = Pair(available_mib=64 / 0.85 + 2 * BIG + 1, opens_s=opens_s)
    climbs = [d for d in pair.run(60) if d.action == "up"]
    assert sorted(pair.active.values()) == ["big", "big"]
    assert len({d.t_s for d in climbs}) == 1


def test_what_could_not_be_opened_is_not_waited_for() -> None:
    pair = Pair(available_mib=64 / 0.85 + BIG + BIG / 2, opens_s=3.0, refusing=True)
    asked = [d.ladder for d in pair.run(30) if d.action == "up"]
    assert asked[:2] == ["x", "y"]
    assert set(pair.state.opening) <= set(pair.coming)


def test_pins_wait_for_each_other_too_but_not_by_force() -> None:
    for force, expected in ((False, ["big", "small"]), (True, ["big", "big"])):
        pair = Pair(available_mib=64 / 0.85 + BIG + BIG / 2)
        for name in pair.active:
            pair.state = pair.state.pinned(name, Pin(ladder=name, rung="big", until_s=None, force=force))
        pair.run(3)
        assert sorted(pair.active.values()) == expected


def test_what_a_ladder_was_opening_is_forgotten_with_it() -> None:
    pair = Pair(available_mib=64 / 0.85 + BIG + BIG / 2, opens_s=1e6)
    pair.run(30)
    assert list(pair.coming) == list(pair.state.opening) == ["x"]
    assert pair.active["y"] == "small"
    del pair.active["x"], pair.coming["x"]
    pair.state = msgspec.structs.replace(pair.state, ladders={"y": pair.state.of("y")})
    pair.run(1)
    assert list(pair.coming) == ["y"]
    assert pair.state.opening == {"y": BIG * MIB}
