"""The rules of the configuration beside the law, through one decision after the other."""

from __future__ import annotations

import msgspec
import pytest
from simulated_plant import LADDER, NAME, Plant

from flyball.governor.policy import decide
from flyball.governor.rules import parse
from flyball.governor.state import CLIMBS_PER_HOUR
from flyball.governor.values import Limits
from flyball.ports import Decision


class Ruled(Plant):
    texts: tuple[str, ...] = ()
    remote: str = ""

    def step(self) -> Decision:
        self.now_s += self.rules.period_s
        view = self.view()
        if self.remote:
            (ladder,) = view.ladders
            rungs = tuple(
                msgspec.structs.replace(r, accelerator="remote") if r.name == self.remote else r for r in ladder.rungs
            )
            view = msgspec.structs.replace(view, ladders=(msgspec.structs.replace(ladder, rungs=rungs),))
        (decision,), self.state = decide(view, self.rules, self.state, {NAME: tuple(map(parse, self.texts))})
        if decision.target != decision.source:
            self.active = decision.target
            self.state = self.state.moved(decision, self.now_s, self.rules)
        self.log.append(decision)
        return decision


def ruled(*texts: str, **more: object) -> Ruled:
    plant = Ruled(**more)  # type: ignore[arg-type]
    plant.texts = texts
    return plant


def test_a_rule_steps_down_one_rung_and_the_law_does_not_undo_it_while_it_holds() -> None:
    plant = ruled("when runnable > 3 for 5 s then step_down", models=LADDER[1:], active="b")
    plant.contended = True
    plant.limits = Limits(deadline_s=0.1)
    (change,) = plant.run(600)
    assert (change.source, change.target, change.action, change.binding) == ("b", "c", "down", "rule")
    assert change.t_s == 6  # it held for 5 s
    assert change.reason.startswith("a rule: runnable 4 > 3 for 5 s; c is predicted to take")
    assert plant.log[-1].binding == "rule"  # the law would climb, and is held
    plant.contended = False
    assert plant.moves(60) == [("c", "b")]


def test_hold_forbids_climbs_and_nothing_else() -> None:
    plant = ruled("when arrivals > 1/s then hold", active="c")
    assert plant.moves(60) == []
    assert plant.log[-1].reason.endswith("but held by a rule: arrivals 5 /s > 1 /s")
    plant.active = "a"
    plant.contended = True
    assert plant.run(60)[0].binding == "latency"


def test_a_rule_asks_for_a_rung_by_name() -> None:
    plant = ruled("when arrivals > 1/s then rung b")
    (change,) = plant.run(60)
    assert (change.source, change.target, change.binding) == ("a", "b", "rule")
    plant.rate = 0.5
    assert plant.moves(60) == [("b", "a")]


def test_a_rung_below_the_floor_is_not_had_by_a_rule() -> None:
    plant = ruled("when arrivals > 1/s then rung c")
    plant.floor(0.85)
    assert plant.moves(60) == []


def test_hard_limits_stand_above_a_rule() -> None:
    plant = ruled("when arrivals > 1/s then rung a", limits=Limits(temperature_c=70.0), temp_c=68.0, ambient_c=40.0)
    (first, *_) = plant.run(120)
    assert (first.source, first.binding) == ("a", "temperature")
    assert max(d.inputs["temperature_c"] for d in plant.log) < 75


def test_a_pin_stands_above_a_rule() -> None:
    plant = ruled("when arrivals > 1/s then rung b")
    plant.pin("a")
    assert plant.moves(60) == []


def test_notify_is_told_once_each_time_it_begins() -> None:
    plant = ruled("when runnable > 3 then notify", limits=Limits())
    plant.contended = True
    plant.run(20)
    plant.contended = False
    plant.run(20)
    plant.contended = True
    plant.run(20)
    told = [d.notice for d in plant.log if d.notice]
    assert len(told) == 2
    assert "runnable" in told[0]
    assert plant.log[-1].target == plant.log[-1].source


@pytest.mark.parametrize(("remote", "target"), [("c", "c"), ("", "b")])
def test_offload_where_it_can_be_done_else_what_follows(remote: str, target: str) -> None:
    plant = ruled("when runnable > 3 then offload, else step_down", limits=Limits())
    plant.remote = remote
    plant.run(10)
    plant.contended = True
    assert plant.moves(3) == [("a", target)]


def test_a_rule_never_climbs_more_often_than_the_law_may() -> None:
    plant = ruled("when runnable < 1 then step_up", "when runnable > 3 then step_down", models=LADDER[:2])
    plant.rules = msgspec.structs.replace(plant.rules, dwell_s=0.0, mode="throughput-first")
    plant.limits = Limits()
    for second in range(1200):
        plant.contended = second % 4 < 2
        plant.step()
    ups = [d for d in plant.log if d.action == "up"]
    assert 0 < len(ups) <= CLIMBS_PER_HOUR


def test_what_nobody_knows_fires_nothing() -> None:
    plant = ruled(
        "when gpu < 50 % then step_down", "when throttled then step_down", "when not throttled then step_down"
    )
    assert plant.moves(60) == []
