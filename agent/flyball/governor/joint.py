"""Which rungs suit all ladders of a machine together.

outlooks of every ladder + what they share -> the wanted rung of each

Each ladder begins at the best rung that would do if nothing else ran. While those do not fit together, the one step
down is taken that eases what is broken most for the accuracy it costs: the greedy solution of a knapsack with one
choice from each class, which is the optimum of the relaxed problem but for the last step (docs/adr/0014). A ladder
alone is a plain scan. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from flyball.governor.constraints import Check
from flyball.governor.judgement import NO_BOUNDS, Bounds, breaks, judge
from flyball.governor.outlook import Outlook, Scene
from flyball.governor.sources import Loss
from flyball.governor.state import LadderState
from flyball.governor.values import Constraint, LadderView

Mode = str
LEAST_EASE = 1e-6  # of a step whose good nobody can tell
PLAIN = ("energy-first", "throughput-first")  # modes in which accuracy is no more than a floor
LEAST_LOSS = 1e-4  # of accuracy, so that a step that costs none is not free
A_STEP = 0.05  # of accuracy, between two rungs of which it is not stated
LEAST_GAIN = 0.002  # of accuracy in time, for which a rung is left
ENOUGH = 0.02  # a share of requests that is worth a change when nothing fits

# Of every accelerator: load, square, and how much of it is in the way of another ladder's; and watts in all.
Loads = tuple[dict[str, tuple[float, float, float]], float]
NO_LOAD = (0.0, 0.0, 1.0)


class Party(msgspec.Struct):
    """One ladder in the choice. `fixed` is the index of a rung that it stays on whatever the others do. `options` are
    filled in by `settle`, the best first, with the place of the active one among them; `at` is the wanted one, and
    `beside` what all of the wanted ones come to, where there are several."""

    ladder: LadderView
    own: LadderState
    outlooks: list[Outlook]
    active: int
    kept: Bounds = NO_BOUNDS
    fixed: int | None = None
    seen: list[Check] = []  # the limits that are broken now, by what was measured
    lost: Sequence[Loss] = ()  # the readings that its limits rest on and that are gone
    options: list[Outlook] = []
    rank: int = 0
    at: int = 0
    first: int = 0  # of the options that may be had at all
    breaking: Constraint | None = None  # with what the search has come to
    beside: Loads | None = None

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
        party.rank = party.at = 0
        for rank, one in enumerate(party.options):
            if one.index == party.active:
                party.rank = rank
                break
    if len(parties) == 1:
        _alone(parties[0], around, mode)
    elif parties:
        for party in parties:
            party.at = party.first = _first(party, around)
        if not _fit(parties, around):
            _ease(parties, around)
            if not _fit(parties, around) and mode not in PLAIN:
                _spare(parties, around, mode)
        if mode not in PLAIN and _some_late(parties):
            _hasten(parties, around, mode)
        _judge_active(parties, around)


def _options(party: Party, mode: Mode) -> list[Outlook]:
    """Those that may be chosen, the best first; the active rung when there is none."""
    if party.fixed is not None:
        return [party.outlooks[party.fixed]]
    active, usable = party.active, []
    in_order, before = mode not in PLAIN, math.inf  # ladders are written down from the best, as a rule
    for one in party.outlooks:
        if one.barred or (one.held and one.index != active):
            continue
        usable.append(one)
        accuracy = one.rung.accuracy
        if accuracy is None or accuracy > before:
            in_order = False
        else:
            before = accuracy
    if not usable:
        return [party.outlooks[active]]
    if not in_order:
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


def _first(party: Party, around: Scene) -> int:
    """The best option that would keep the limits if nothing else ran, as far as anything does: those above it cannot
    be had beside others either."""
    for at, one in enumerate(party.options):
        if breaks(one, party.kept, around, 0.0, 0.0, 0.0, at < party.rank) is None:
            return at
    return 0


def _ease(parties: Sequence[Party], around: Scene) -> None:
    """Steps down until the chosen rungs keep every limit together, or nothing is left to give."""
    told: list[tuple[tuple[int, float, float, bool], tuple[float, int]] | None] = [None] * len(parties)
    while not _suits(parties, around):
        best, best_ease = None, 0.0
        for i, (party, per_load, per_watt) in enumerate(_needs(parties, around)):
            asked = (party.at, per_load, per_watt, party.breaking is not None)
            known = told[i]
            if known is None or known[0] != asked:
                known = told[i] = asked, _best_step(party, per_load, per_watt)
            ease, following = known[1]
            if ease > best_ease:
                best, best_ease = (party, following), ease
        if best is None:
            return
        best[0].at = best[1]
    for party in parties:  # what the last steps gave up without need
        while party.at > party.first:
            party.at -= 1
            loads = _loads(parties, around)
            # What it breaks by itself needs no look at the others.
            if _breaks(party, loads, around) or any(_breaks(p, loads, around) for p in parties if p is not party):
                party.at += 1
                break


def _spare(parties: Sequence[Party], around: Scene, mode: Mode) -> None:
    """Where a ladder is late whatever the others give up, they get back what they gave, if that is worth more. Watts,
    heat and memory are left to those who share them: every step down brings such a limit nearer."""
    late = [p for p in parties if p.options[p.at].broken is not None]
    given = [p for p in parties if p.options[p.at].broken is None and p.at > p.first]
    if not given or any(p.options[p.at].broken != "latency" for p in late):
        return
    if any(p.rank > p.first for p in given) and not all(_hopeless(p) for p in late):
        return  # nobody climbs for what the next period may see otherwise
    ends = [p.at for p in given]
    total = sum(value(p.options[p.at], mode) for p in parties)
    for party in given:
        party.at = party.first
    while True:
        loads = _loads(parties, around)
        steps = [p for p, end in zip(given, ends, strict=True) if p.at < end and _breaks(p, loads, around)]
        if not steps:
            break
        for party in steps:
            party.at += 1
    _fit(parties, around)
    gained = sum(value(p.options[p.at], mode) for p in parties) - total
    if gained <= LEAST_GAIN or any(p.options[p.at].broken is not None for p in given):
        for party, end in zip(given, ends, strict=True):
            party.at = end
        _fit(parties, around)


def _hopeless(party: Party) -> bool:
    """Whether far more answers are late than are allowed."""
    one = party.options[party.at]
    return one.missed is not None and one.missed > max(ENOUGH, 2.0 * party.kept.allowed[0])


def _best_step(party: Party, per_load: float, per_watt: float) -> tuple[float, int]:
    """What the most efficient step down eases for the accuracy that it costs, and where it leads; 0 when none does."""
    at, options = party.at, party.options
    now, best, best_ease = options[at], at, 0.0
    load, watts, accuracy = now.load, now.watts, now.rung.accuracy
    least = LEAST_EASE if party.breaking is not None else 0.0
    for following in range(at + 1, len(options)):
        then = options[following]
        ease = (load - then.load) * per_load
        if per_watt and watts is not None and then.watts is not None:
            ease += (watts - then.watts) * per_watt
        if ease < least:
            ease = least
        if ease > 0.0:
            ease /= _loss(accuracy, then.rung.accuracy, following - at)
            if ease > best_ease:
                best, best_ease = following, ease
    return best_ease, best


def _some_late(parties: Sequence[Party]) -> bool:
    """Whether all limits hold, and answers are late nonetheless."""
    late = 0.0
    for party in parties:
        one = party.options[party.at]
        if one.broken is not None:
            return False
        late += one.missed or 0.0
    return late > LEAST_GAIN


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
        if party.breaking == "latency":
            late[one.rung.accelerator] = late.get(one.rung.accelerator, 0.0) + 1.0
        elif party.breaking is not None and party.breaking != "memory":
            per_watt += 1.0
    found = []
    for party in parties:
        one = party.options[party.at]
        own = 1.0 if party.breaking == "latency" else 0.0
        others = (late.get(one.rung.accelerator, 0.0) - own) * _share(one.rung.accelerator, around)
        found.append((party, own + others, per_watt))
    return found


def _loss(now: float | None, then: float | None, steps: int) -> float:
    """Of accuracy."""
    if now is None or then is None:
        return A_STEP * steps
    loss = now - then
    return loss if loss > LEAST_LOSS else LEAST_LOSS


def _suits(parties: Sequence[Party], around: Scene) -> bool:
    """Whether the chosen rungs keep every limit together."""
    loads, fits = _loads(parties, around), True
    for party in parties:
        party.breaking = _breaks(party, loads, around)
        if party.breaking is not None:
            fits = False
    return fits


def _breaks(party: Party, loads: Loads, around: Scene) -> Constraint | None:
    one = party.options[party.at]
    return breaks(one, party.kept, around, *_besides(party, one, loads), party.at < party.rank)


def _fit(parties: Sequence[Party], around: Scene) -> bool:
    """The same, with what is predicted of each filled in."""
    loads, fits = _loads(parties, around), True
    for party in parties:
        party.beside = loads
        one = party.options[party.at]
        if not judge(one, party.kept, around, *_besides(party, one, loads), party.at < party.rank):
            fits = False
    return fits


def _judge_active(parties: Sequence[Party], around: Scene) -> None:
    """What is told of the active rungs holds beside what the others come to."""
    for party in parties:
        if party.options[party.at].index != party.active:
            judge_beside(party, party.outlooks[party.active], around, climbs=False)


def judge_beside(party: Party, one: Outlook, around: Scene, climbs: bool) -> None:
    """What is predicted of one rung of the ladder beside the others' wanted ones."""
    if party.beside is not None:
        judge(one, party.kept, around, *_besides(party, one, party.beside), climbs)


def _loads(parties: Sequence[Party], around: Scene) -> Loads:
    """Of the chosen rungs."""
    loads: dict[str, tuple[float, float, float]] = {}
    watts = 0.0
    for party in parties:
        one = party.options[party.at]
        accelerator = one.rung.accelerator
        before = loads.get(accelerator)
        if before is None:
            loads[accelerator] = one.load, one.square, _share(accelerator, around)
        else:
            loads[accelerator] = before[0] + one.load, before[1] + one.square, before[2]
        watts += one.watts or 0.0
    return loads, watts


def busy(party: Party, one: Outlook) -> float:
    """The share of its time that the accelerator of one of the ladder's rungs is, with what runs there besides."""
    return one.load if party.beside is None else one.load + _besides(party, one, party.beside)[0]


def _besides(party: Party, one: Outlook, loads: Loads) -> tuple[float, float, float]:
    """Load, square and watts of the other ladders, as they are in the way of that rung."""
    chosen = party.options[party.at]
    load, square, share = loads[0].get(one.rung.accelerator, NO_LOAD)
    if chosen is one or chosen.rung.accelerator == one.rung.accelerator:
        load -= chosen.load
        square -= chosen.square
    others_w = loads[1] - (chosen.watts or 0.0)
    return load * share if load > 0.0 else 0.0, square * share if square > 0.0 else 0.0, others_w


def _share(accelerator: str, around: Scene) -> float:
    """How much of another ladder's work is in the way of one's own: all of it where requests take turns; processors
    take several at once."""
    return 1.0 / around.cpus if accelerator.startswith("cpu") else 1.0
