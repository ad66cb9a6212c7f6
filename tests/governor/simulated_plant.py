"""A machine and a ladder made of numbers, for the pure law: no clock, no sleeping.

The contention figures are measured ones (two cores, four tasks beside each): the small model keeps its pace, the large
one does not. The machine settles 10 K/W above its surroundings, with a time constant of a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from flyball.config import Governor as Rules
from flyball.governor.policy import decide
from flyball.governor.state import LadderState, State
from flyball.governor.values import MIB, LadderView, Limits, Machine, Rung, Seen, View
from flyball.ports import Decision, Pin

BURNERS = 4.0  # tasks per processor
BASE_W = 1.0
SETTLES_K_PER_W, TAU_S = 10.0, 60.0
TAIL = 1.2  # the 95th percentile of the work over its mean
NAME = "plant"


@dataclass(frozen=True, kw_only=True)
class Model:
    name: str
    calm_s: float
    contended: float = 1.0  # factor beside burners
    accuracy: float | None = None
    joules: float = 0.1
    rss_mib: float = 50.0


LADDER = (
    Model(name="a", calm_s=0.011, contended=4.7, accuracy=0.93, joules=1.0, rss_mib=120),
    Model(name="b", calm_s=0.005, contended=2.2, accuracy=0.88, joules=0.6, rss_mib=60),
    Model(name="c", calm_s=0.0015, contended=0.86, accuracy=0.80, joules=0.2, rss_mib=30),
)


@dataclass
class Plant:
    """`stretch` is of every latency, whatever the load tells; `secret` of those that no contention tells of."""

    models: tuple[Model, ...] = LADDER
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=lambda: Limits(deadline_s=0.018))
    active: str = "a"
    state: State = field(default_factory=State)
    now_s: float = 0.0
    contended: bool = False
    rate: float = 5.0  # arrivals per second; 0 = none
    stretch: float = 1.0
    late: float | None = None  # what is measured, in place of what follows from the work
    profiled: bool = True
    standby: frozenset[str] = frozenset()
    temp_c: float | None = None
    ambient_c: float = 25.0
    power_known: bool = True
    memory_mib: float | None = None
    unusable: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    refusing: frozenset[str] = frozenset()
    contention_known: bool = True
    zones: dict[str, float] | None = None  # in place of the one that `temp_c` is
    off: tuple[str, ...] = ()
    leave_alone_s: dict[str, float] = field(default_factory=dict)
    load_s: dict[str, float] = field(default_factory=dict)
    acts: bool = True
    log: list[Decision] = field(default_factory=list)

    @property
    def own(self) -> LadderState:
        return self.state.of(NAME)

    def model(self) -> Model:
        return next(m for m in self.models if m.name == self.active)

    def work_s(self) -> float:
        model = self.model()
        return self.stretch * model.calm_s * (model.contended if self.contended else 1.0)

    def power_w(self) -> float:
        return BASE_W + self.model().joules * self.rate

    def pin(self, rung: str, *, until_s: float | None = None, force: bool = False) -> None:
        self.state = self.state.pinned(NAME, Pin(ladder=NAME, rung=rung, until_s=until_s, force=force))

    def floor(self, accuracy: float | None) -> None:
        self.limits = msgspec.structs.replace(self.limits, accuracy=accuracy)

    def view(self) -> View:
        machine = Machine(
            cpus=2,
            contention=(BURNERS if self.contended else 0.0) if self.contention_known else None,
            zones=self.zones if self.zones is not None else {} if self.temp_c is None else {"x/cpu": self.temp_c},
            off=self.off,
            power_w=self.power_w() if self.power_known else None,
            memory_available_bytes=None if self.memory_mib is None else self.memory_mib * MIB,
        )
        ladder = LadderView(
            name=NAME, active=self.active, rungs=tuple(map(self._rung, self.models)), seen=self._seen(),
            limits=self.limits,
        )  # fmt: skip
        return View(now_s=self.now_s, wall_s=1e9 + self.now_s, machine=machine, ladders=(ladder,))

    def _rung(self, m: Model) -> Rung:
        return Rung(
            name=m.name,
            accuracy=m.accuracy,
            usable=m.name not in self.unusable,
            failed=m.name in self.failed,
            error="it broke" if m.name in self.failed | self.unusable else "",
            resident=m.name == self.active or m.name in self.standby,
            work_s=m.calm_s if self.profiled else None,
            spread=0.05,
            joules=m.joules if self.profiled else None,
            rss_bytes=m.rss_mib * MIB,
            load_s=self.load_s.get(m.name, 0.0),
            leave_alone_s=self.leave_alone_s.get(m.name, 0.0),
        )

    def _seen(self) -> Seen:
        settled = self.now_s - self.own.since_s > self.rules.period_s and self.own.active == self.active
        answers = round(self.rate * self.rules.period_s)
        if not answers or not settled:
            return Seen(arrivals_per_s=self.rate)
        work_s = self.work_s()
        deadline_s = self.limits.deadline_s
        late = None
        if deadline_s is not None:
            late = 1.0 if work_s > deadline_s else 0.3 if TAIL * work_s > deadline_s else 0.0
            late = late if self.late is None else self.late
        return Seen(
            arrivals_per_s=self.rate,
            answers_per_s=self.rate,
            answers=answers,
            work_mean_s=work_s,
            work_std_s=0.05 * work_s,
            late=late,
            window_answers=round(answers * self.rules.window_s / self.rules.period_s),
            window_late=late,
            p50_s=work_s,
            p95_s=TAIL * work_s,
        )

    def step(self) -> Decision:
        """One period."""
        self.now_s += self.rules.period_s
        if self.temp_c is not None:
            settles_c = self.ambient_c + SETTLES_K_PER_W * self.power_w()
            self.temp_c += (settles_c - self.temp_c) * self.rules.period_s / TAU_S
        (decision,), self.state = decide(self.view(), self.rules, self.state)
        if decision.target != decision.source and self.acts:
            if decision.target in self.refusing:
                self.state = self.state.refused(decision, "no memory", self.now_s, self.rules)
            else:
                self.active = decision.target
                self.state = self.state.moved(decision, self.now_s, self.rules)
        self.log.append(decision)
        return decision

    def run(self, seconds: float) -> list[Decision]:
        """The changes of rung within that time."""
        before = len(self.log)
        for _ in range(round(seconds / self.rules.period_s)):
            self.step()
        return [d for d in self.log[before:] if d.target != d.source]

    def moves(self, seconds: float) -> list[tuple[str, str]]:
        return [(d.source, d.target) for d in self.run(seconds)]
