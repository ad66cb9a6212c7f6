"""A machine and a ladder made of numbers, for the pure policy: no clock, no sleeping.

The contention figures are measured ones (two cores): the small model keeps its pace, the large one does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flyball.config import Governor as Rules
from flyball.governor.policy import choose
from flyball.governor.state import State
from flyball.governor.values import Limits, Observation, Rung, View
from flyball.ports import Decision

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Model:
    name: str
    calm_s: float
    contended: float = 1.0  # factor beside burners
    accuracy: float | None = None
    power_w: float = 2.0
    rss_mib: float = 50.0


LADDER = (
    Model(name="a", calm_s=0.011, contended=4.7, accuracy=0.93, power_w=6.0, rss_mib=120),
    Model(name="b", calm_s=0.005, contended=2.2, accuracy=0.88, power_w=4.0, rss_mib=60),
    Model(name="c", calm_s=0.0015, contended=0.86, accuracy=0.80, power_w=2.0, rss_mib=30),
)


@dataclass
class Plant:
    models: tuple[Model, ...] = LADDER
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=lambda: Limits(latency_p95_s=0.018))
    active: str = "a"
    state: State = field(default_factory=State)
    now_s: float = 0.0
    contended: bool = False
    answers: int = 50
    stretch: float = 1.0  # of every latency, whatever the load
    standby: frozenset[str] = frozenset()
    temp_c: float | None = None
    ambient_c: float = 25.0
    memory_mib: float | None = None
    floor: float | None = None
    unusable: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    refusing: frozenset[str] = frozenset()
    cpu_known: bool = True
    zones: frozenset[str] = frozenset()
    leave_alone_s: dict[str, float] = field(default_factory=dict)
    acts: bool = True
    log: list[Decision] = field(default_factory=list)

    def model(self) -> Model:
        return next(m for m in self.models if m.name == self.active)

    def p50_s(self) -> float:
        model = self.model()
        return self.stretch * model.calm_s * (model.contended if self.contended else 1.0)

    def busy(self) -> float:
        return 0.97 if self.contended else min(1.0, 0.05 + self.model().calm_s * 20)

    def view(self) -> View:
        settled = self.now_s - self.state.since_s > self.rules.period_s and self.state.active == self.active
        p95_s = self.p50_s() * 1.2 if self.answers and settled else None
        return View(
            ladder="plant",
            now_s=self.now_s,
            wall_s=1e9 + self.now_s,
            active=self.active,
            rungs=tuple(
                Rung(
                    name=m.name,
                    accuracy=m.accuracy,
                    usable=m.name not in self.unusable,
                    failed=m.name in self.failed,
                    error="it broke" if m.name in self.failed | self.unusable else "",
                    resident=m.name == self.active or m.name in self.standby,
                    profiled_p50_s=m.calm_s,
                    rss_bytes=m.rss_mib * MIB,
                    leave_alone_s=self.leave_alone_s.get(m.name, 0.0),
                )
                for m in self.models
            ),
            seen=Observation(
                window_s=self.rules.window_s,
                answers=self.answers,
                p50_s=self.p50_s() if self.answers and settled else None,
                p95_s=p95_s,
                newest_p95_s=p95_s,
                temperature_c=self.temp_c,
                hottest_zone="cpu",
                zones=self.zones,
                memory_available_bytes=None if self.memory_mib is None else self.memory_mib * MIB,
                cpu_utilization=self.busy() if self.cpu_known else None,
            ),
            accuracy_floor=self.floor,
        )

    def step(self) -> Decision:
        """One period."""
        self.now_s += self.rules.period_s
        if self.temp_c is not None:
            settles_c = self.ambient_c + 10.0 * self.model().power_w  # 10 K/W, time constant 60 s
            self.temp_c += (settles_c - self.temp_c) * self.rules.period_s / 60.0
        view = self.view()
        decision, self.state = choose(view, self.limits, self.rules, self.state)
        if decision.target != decision.source and self.acts:
            if decision.target in self.refusing:
                self.state = self.state.refused(decision.target, "no memory", self.rules, self.now_s)
            else:
                self.active = decision.target
                self.state = self.state.moved(decision, view.seen, self.rules, self.now_s)
        self.log.append(decision)
        return decision

    def run(self, seconds: float) -> list[Decision]:
        """The changes of rung within that time."""
        before = len(self.log)
        for _ in range(round(seconds / self.rules.period_s)):
            self.step()
        return [d for d in self.log[before:] if d.target != d.source]
