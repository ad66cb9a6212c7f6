"""What a demo run showed, from its samples, its decisions and what it saw of the energy. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from flyball.control_api import Status
from flyball.demo.stream import Sample
from flyball.ports import Decision


class RungReport(msgspec.Struct, frozen=True, kw_only=True):
    """`share` is the share of the time. Percentiles, accuracy and energy are of this run's pictures alone, and None
    when the rung answered none of them. `j_per_inference` is gross: idle power is in it."""

    share: float
    p50_ms: float | None
    p95_ms: float | None
    j_per_inference: float | None
    requests: int
    accuracy: float | None


class SwitchEntry(msgspec.Struct, frozen=True, kw_only=True, rename={"source": "from", "target": "to"}):
    t: float  # seconds since the pictures began to flow
    source: str
    target: str
    direction: str
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`cpu_stolen` is the share of the processor time asked for, by all of the machine, that its hypervisor gave to
    others while pictures flowed: 0 to 1 (0 also where the hypervisor does not say), None where it cannot be read.
    `limit_stolen` is the same of the look at the top rung that the limit comes from, `cpu_stolen_after` since the
    load went: None also where none came. `ended_on` is the rung that was active at the end, empty when none was;
    `ended_because` the daemon's last word, empty where it decided nothing."""

    seconds: float
    requests: int
    failures: int
    accuracy: float | None
    latency_limit_ms: float
    switches: tuple[SwitchEntry, ...]
    rungs: dict[str, RungReport]
    energy_j: float | None
    power_scope: str
    energy_basis: Literal["gross"] = "gross"
    limit_stolen: float | None = None
    cpu_stolen: float | None = None
    cpu_stolen_after: float | None = None
    load_from_s: float | None = None  # since the pictures began to flow, as the switches' `t`; None: no load came
    load_until_s: float | None = None
    ended_on: str = ""
    ended_because: str = ""
    errors: tuple[str, ...] = ()


class Spending:
    """Gross joules by rung, from one look at the daemon to the next: the energy of the time between them goes to the
    rungs that worked in it, by their busy seconds, as flyball.sensing.energy does it; where nothing worked, to none.
    The daemon's own figures cannot be used here: they reach back to its start, and so to the measuring."""

    def __init__(self, first: Status) -> None:
        self.joules: dict[str, float] = {}
        self._last = first

    def add(self, now: Status) -> None:
        before, self._last = self._last, now
        if before.energy is None or now.energy is None:
            return
        if (before.energy.scope, before.energy.source) != (now.energy.scope, now.energy.source):
            return  # figures of two sources are never subtracted
        joules = now.energy.joules - before.energy.joules
        old, new = (view.ladders[0].totals.busy_s_by_rung for view in (before, now))
        worked = {rung: busy_s - old.get(rung, 0.0) for rung, busy_s in new.items() if busy_s > old.get(rung, 0.0)}
        busy_s = sum(worked.values())
        for rung, own_s in worked.items():
            self.joules[rung] = self.joules.get(rung, 0.0) + joules * own_s / busy_s


def report(
    samples: Sequence[Sample],
    decisions: Sequence[Decision],
    started_s: float,
    limit_s: float,
    rungs: Sequence[str],
    joules: Mapping[str, float],
    energy_j: float | None,
    power_scope: str,
    *,
    limit_stolen: float | None = None,
    cpu_stolen: float | None = None,
    cpu_stolen_after: float | None = None,
    load_s: tuple[float, float] | None = None,
    ended_on: str = "",
) -> Report:
    """`joules` by rung, over the time of the samples; `decisions` in their order, changes or not."""
    answered = [s for s in samples if not s.error]
    time_s = time_by_rung(answered, started_s)
    total_s = sum(time_s.values())
    entries = {}
    for name in rungs:
        own = [s for s in answered if s.rung == name]
        latencies = sorted(s.latency_s for s in own)
        entries[name] = RungReport(
            share=time_s.get(name, 0.0) / total_s if total_s else 0.0,
            p50_ms=_percentile_ms(latencies, 0.5),
            p95_ms=_percentile_ms(latencies, 0.95),
            j_per_inference=joules[name] / len(own) if own and name in joules else None,
            requests=len(own),
            accuracy=_share_right(own),
        )
    switches = tuple(
        SwitchEntry(
            t=round(d.t_s - started_s, 2), source=d.source, target=d.target, direction=d.action, reason=d.reason
        )
        for d in decisions
        if d.acted and d.source != d.target and d.t_s >= started_s
    )
    last = decisions[-1] if decisions and decisions[-1].t_s >= started_s else None
    return Report(
        seconds=round(samples[-1].t_s - started_s, 2) if samples else 0.0,
        requests=len(samples),
        failures=len(samples) - len(answered),
        accuracy=_share_right(answered),
        latency_limit_ms=limit_s * 1e3,
        switches=switches,
        rungs=entries,
        energy_j=energy_j,
        power_scope=power_scope,
        limit_stolen=limit_stolen,
        cpu_stolen=cpu_stolen,
        cpu_stolen_after=cpu_stolen_after,
        load_from_s=load_s[0] if load_s else None,
        load_until_s=load_s[1] if load_s else None,
        ended_on=ended_on,
        ended_because=_last_word(last, ended_on) if last else "",
        errors=tuple(dict.fromkeys(s.error for s in samples if s.error))[:5],
    )


def _last_word(last: Decision, ended_on: str) -> str:
    if last.error:
        return f"{last.target} was wanted and not to be had: {last.error}"
    return last.reason if last.target == ended_on else "a change was under way"


def time_by_rung(samples: Sequence[Sample], started_s: float) -> dict[str, float]:
    """Seconds by the rung that gave the answer at their end."""
    spent: dict[str, float] = {}
    before_s = started_s
    for sample in samples:
        spent[sample.rung] = spent.get(sample.rung, 0.0) + sample.t_s - before_s
        before_s = sample.t_s
    return spent


def _percentile_ms(ordered: Sequence[float], q: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3, 3) if ordered else None


def _share_right(samples: Sequence[Sample]) -> float | None:
    return sum(s.right for s in samples) / len(samples) if samples else None
