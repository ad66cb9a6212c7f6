"""Which rungs suit all ladders of a machine together.

outlooks of every ladder + what they share -> the wanted rung of each

Each ladder's best rungs are tried from the top. While they do not fit together, the one step down is taken that eases
what is broken most for the accuracy it costs: the greedy solution of a knapsack with one choice from each class, which
is the optimum of the relaxed problem but for the last step (docs/adr/0014). A ladder alone is a plain scan. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from flyball.governor.outlook import NO_BOUNDS, Bounds, Outlook, Scene, judge
from flyball.governor.state import LadderState
from flyball.governor.values import LadderView

Mode = str
LEAST_EASE = 1e-6  # of a step whose good nobody can tell
PLAIN = ("energy-first", "throughput-first")  # modes in which accuracy is no more than a floor
A_STEP = 0.05  # of accuracy, between two rungs of which it is not stated
LEAST_GAIN = 0.002  # of accuracy in time, for which a rung is left
ENOUGH = 0.02  # a share of requests that is worth a change when nothing fits


class Party(msgspec.Struct):
    """One ladder in the choice. `fixed` is the index of a rung that it stays on whatever the others do. `options` are
    filled in by `settle`, the best first, with the place of the active one among them; `at` is the wanted one."""

    ladder: LadderView
    own: LadderState
    outlooks: list[Outlook]
    active: int
    kept: Bounds = NO_BOUNDS
    fixed: int | None = None
    options: list[Outlook] = []
    rank: int = 0
    at: int = 0

    def chosen(self) -> Outlook:
        return self.options[self.at]


def worth(one: Outlook, mode: Mode) -> float:
    """The higher the better. Accuracies decide where they are stated; else the ladder's own order."""
    if mode == "energy-first":
        return -(one.rung.joules if one.rung.joules is not None else one.work_s if one.work_s is not None else 1e9)
    if mode == "throughput-first":
        return -(one.work_s if one.work_s is not None else 1e9)
    return one.rung.accuracy if one.rung.accuracy is not None else 1.0 - A_STEP * one.index


def value(one: Outlook, mode: Mode) -> float:
    """The same once the rung was judged: an accurate answer that comes too late is worth nothing."""
    if mode not in PLAIN and one.missed is not None:
        accuracy = one.rung.accuracy if one.rung.accuracy is not None else 1.0 - A_STEP * one.index
        return accuracy * (1.0 - one.missed)
    return worth(one, mode)


def settle(parties: Sequence[Party], around: Scene, mode: Mode) -> None:
    """Sets `at` of every party."""
    for party in parties:
        party.options = _options(party, mode)
        party.rank = next((rank for rank, one in enumerate(party.options) if one.index == party.active), 0)
        party.at = 0
    if len(parties) == 1:
        _alone(parties[0], around, mode)
    elif parties:
        _together(parties, around, mode)
        _judge_active(parties, around)


def _options(party: Party, mode: Mode) -> list[Outlook]:
    """Those that may be chosen, the best first; the active rung when there is none."""
    if party.fixed is not None:
        return [party.outlooks[party.fixed]]
    active = party.active
    usable = [o for o in party.outlooks if not o.barred and (not o.held or o.index == active)]
    if not usable:
        return [party.outlooks[active]]
    usable.sort(key=lambda o: worth(o, mode), reverse=True)
    return usable


def _alone(party: Party, around: Scene, mode: Mode) -> None:
    kept, rank, least = party.kept, party.rank, None
    best, most = None, -math.inf
    for at, one in enumerate(party.options):
        if best is not None and worth(one, mode) <= most:
            break  # nor would any that follows be worth more
        if judge(one, kept, around, 0.0, 0.0, 0.0, at < rank):
            here = value(one, mode) + (LEAST_GAIN if at == rank else 0.0)
            if here > most:
                best, most = at, here
            continue
        if at < rank or (one.failing > 0.0 and at + 1 < len(party.options)):
            continue  # a rung that is seen to fail is no choice while there is another to try
        if least is None or one.excess < party.options[least].excess - ENOUGH:
            least = at  # nothing fits: the least of the evils, the better one of equals
    party.at = best if best is not None else least if least is not None else rank


def _together(parties: Sequence[Party], around: Scene, mode: Mode) -> None:
    while not _fit(parties, around):
        best, best_ease = None, 0.0
        for party, per_load, per_watt in _needs(parties, around):
            now = party.options[party.at]
            now_w = now.watts or 0.0
            for following in range(party.at + 1, len(party.options)):
                then = party.options[following]
                ease = (now.load - then.load) * per_load
                if per_watt and now.watts is not None and then.watts is not None:
                    ease += (now_w - then.watts) * per_watt
                ease = max(ease, LEAST_EASE if now.broken is not None else 0.0) / _loss(now, then, following - party.at)
                if ease > best_ease:
                    best, best_ease = (party, following), ease
        if best is None:
            return  # nothing that is left to give eases what is broken
        best[0].at = best[1]
    stale = False
    for party in parties:  # what the last steps gave up without need
        while party.at > 0:
            party.at -= 1
            # What it breaks by itself needs no look at the others.
            if not _judge(party, party.options[party.at], *_loads(parties), around, party.at < party.rank):
                party.at += 1
                break
            stale = not _fit(parties, around)
            if stale:
                party.at += 1
                break
    if stale:
        _fit(parties, around)
    if mode not in PLAIN:
        _hasten(parties, around, mode)


def _hasten(parties: Sequence[Party], around: Scene, mode: Mode) -> None:
    """Steps down that nothing forces, but that bring more answers in time than they cost in accuracy, to all."""
    total = sum(value(p.options[p.at], mode) for p in parties)
    stale = False
    for party in parties:
        while party.at + 1 < len(party.options):
            late = sum(p.options[p.at].missed or 0.0 for p in parties)
            lost = worth(party.options[party.at], mode) - worth(party.options[party.at + 1], mode)
            if late - lost <= LEAST_GAIN:
                break  # not if every answer came in time after it
            party.at += 1
            stale = not _fit(parties, around)
            gained = sum(value(p.options[p.at], mode) for p in parties) - total
            if stale or gained <= LEAST_GAIN:
                party.at -= 1
                stale = True
                break
            total += gained
    if stale:
        _fit(parties, around)


def _needs(parties: Sequence[Party], around: Scene) -> list[tuple[Party, float, float]]:
    """Of every ladder: what the time on its accelerator, and a watt, are worth to those whose limits are broken."""
    late: dict[str, float] = {}
    per_watt = 0.0
    for party in parties:
        one = party.options[party.at]
        if one.broken == "latency":
            late[one.rung.accelerator] = late.get(one.rung.accelerator, 0.0) + 1.0
        elif one.broken is not None and one.broken != "memory":
            per_watt += 1.0
    found = []
    for party in parties:
        one = party.options[party.at]
        own = 1.0 if one.broken == "latency" else 0.0
        others = (late.get(one.rung.accelerator, 0.0) - own) * _share(one.rung.accelerator, around)
        found.append((party, own + others, per_watt))
    return found


def _loss(now: Outlook, then: Outlook, steps: int) -> float:
    if now.rung.accuracy is None or then.rung.accuracy is None:
        return A_STEP * steps
    return max(now.rung.accuracy - then.rung.accuracy, 1e-4)


def _fit(parties: Sequence[Party], around: Scene) -> bool:
    """Whether the chosen rungs keep every limit together; judges each of them."""
    loads, watts = _loads(parties)
    fits = True
    for party in parties:
        if not _judge(party, party.options[party.at], loads, watts, around, party.at < party.rank):
            fits = False
    return fits


def _judge_active(parties: Sequence[Party], around: Scene) -> None:
    """What is told of the active rungs holds beside what the others come to."""
    loads, watts = _loads(parties)
    for party in parties:
        if party.options[party.at].index != party.active:
            _judge(party, party.outlooks[party.active], loads, watts, around, climbs=False)


def _loads(parties: Sequence[Party]) -> tuple[dict[str, tuple[float, float]], float]:
    """Of the chosen rungs: load and square on every accelerator, and watts in all."""
    loads: dict[str, tuple[float, float]] = {}
    watts = 0.0
    for party in parties:
        one = party.options[party.at]
        load, square = loads.get(one.rung.accelerator, (0.0, 0.0))
        loads[one.rung.accelerator] = (load + one.load, square + one.square)
        watts += one.watts or 0.0
    return loads, watts


def _judge(
    party: Party, one: Outlook, loads: dict[str, tuple[float, float]], watts: float, around: Scene,
    climbs: bool,
) -> bool:  # fmt: skip
    chosen, accelerator = party.options[party.at], one.rung.accelerator
    load, square = loads.get(accelerator, (0.0, 0.0))
    if chosen.rung.accelerator == accelerator:
        load, square = load - chosen.load, square - chosen.square
    share = _share(accelerator, around)
    return judge(
        one, party.kept, around, max(load, 0.0) * share, max(square, 0.0) * share, watts - (chosen.watts or 0.0), climbs
    )


def _share(accelerator: str, around: Scene) -> float:
    """How much of another ladder's work is in the way of one's own: all of it where requests take turns; processors
    take several at once."""
    return 1.0 / around.cpus if accelerator.startswith("cpu") else 1.0
