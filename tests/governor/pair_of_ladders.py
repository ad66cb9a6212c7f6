"""Two ladders that share nothing but the memory of a machine: for tests of what each does to the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from flyball.config import Governor as Rules
from flyball.governor.policy import decide
from flyball.governor.state import State
from flyball.governor.values import MIB, LadderView, Limits, Machine, Rung, Seen, View
from flyball.ports import Decision

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
    watts: float | None = None  # of a big rung beside a small one, which no profile states; the machine takes 5 more
    cap_w: float | None = None
    sizes: dict[str, float] = field(default_factory=lambda: {"x": BIG, "y": BIG})  # of the big rung

    def free_mib(self) -> float:
        return self.available_mib - sum(self.sizes[name] for name, rung in self.active.items() if rung == "big")

    def ladder(self, name: str) -> LadderView:
        active = self.active[name]
        rungs = tuple(
            Rung(name=rung, accuracy=accuracy, work_s=WORK_S[rung], spread=0.05, rss_bytes=mib * MIB,
                 resident=rung == active, load_s=0.1)
            for rung, accuracy, mib in (("big", 0.9, self.sizes[name]), ("small", 0.8, SMALL))
        )  # fmt: skip
        work_s, seen = WORK_S[active], Seen(arrivals_per_s=5.0)
        if self.now_s - self.state.of(name).since_s > self.rules.period_s:
            seen = Seen(arrivals_per_s=5.0, answers_per_s=5.0, answers=5, work_mean_s=work_s, work_std_s=0.0, late=0.0,
                        window_answers=25, window_late=0.0, p50_s=work_s, p95_s=work_s)  # fmt: skip
        limits = Limits(deadline_s=0.05, memory_available_bytes=self.reserve_mib * MIB, power_w=self.cap_w)
        return LadderView(name=name, active=active, rungs=rungs, seen=seen, limits=limits)

    def step(self) -> list[Decision]:
        self.now_s += self.rules.period_s
        for name, (at_s, decision) in list(self.coming.items()):
            if at_s <= self.now_s:
                del self.coming[name]
                self.conclude(decision)
        views = tuple(self.ladder(name) for name in self.active if name not in self.coming)
        bigs = sum(rung == "big" for rung in self.active.values())
        machine = Machine(
            cpus=4,
            contention=0.0,
            memory_available_bytes=self.free_mib() * MIB,
            power_w=None if self.watts is None else 5.0 + bigs * self.watts,
        )
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
