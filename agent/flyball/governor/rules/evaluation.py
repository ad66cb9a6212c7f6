"""Which rules fire now, and why.

rules + facts + since when each has held + now -> rules that fire, each with its reason, and the new `since`

Three-valued: what is not known makes a condition unknown, never false, and an unknown condition does nothing. Pure:
plain Python floats, no clock, and nothing raised whatever the facts are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from flyball.governor.rules.facts import FACTS, PLAIN, ZONED, Dimension
from flyball.governor.rules.syntax import Action, Comparison, Condition, Flag, Not, Or, Rule, shown_name

FactValue: TypeAlias = float | bool | Mapping[str, float] | None
Facts: TypeAlias = Mapping[str, FactValue]

_LARGEST = 1e300  # beyond it (and beyond every measurement) a change of unit would give inf
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """`held_s` is for how long the condition has held; `why` says so with the values."""

    rule: Rule
    held_s: float
    why: str

    @property
    def actions(self) -> tuple[Action, ...]:
        return self.rule.actions


def evaluate(
    rules: Sequence[Rule], facts: Facts, since: Mapping[str, float], now_s: float
) -> tuple[tuple[Fired, ...], Mapping[str, float]]:
    """The rules that fire, in their order, and since when the condition of each rule has held: by its text, in the
    seconds of `now_s`. A condition that is false or unknown now begins anew."""
    fired: list[Fired] = []
    held: dict[str, float] = {}
    for rule in rules:
        if holds(rule.condition, facts):
            since_s = held[rule.text] = min(since.get(rule.text, now_s), now_s)
            if now_s - since_s >= rule.for_s:
                fired.append(Fired(rule=rule, held_s=now_s - since_s, why=_why(rule, facts, now_s - since_s)))
    return tuple(fired), held


def holds(condition: Condition, facts: Facts) -> bool | None:
    """None when it cannot be told."""
    if isinstance(condition, Comparison):
        value = _number(condition, facts)
        return None if value is None else _COMPARE[condition.operator](value, condition.limit)
    if isinstance(condition, Flag):
        return _flag(facts.get(condition.name))
    if isinstance(condition, Not):
        inner = holds(condition.condition, facts)
        return None if inner is None else not inner
    decisive = isinstance(condition, Or)  # one such part decides the whole, whatever is unknown beside it
    unknown = False
    for part in condition.conditions:
        found = holds(part, facts)
        if found is decisive:
            return decisive
        unknown = unknown or found is None
    return None if unknown else not decisive


def first_possible(
    actions: Sequence[Action], rungs: Sequence[str], active: str | None, remote: Collection[str] = ()
) -> Action | None:
    """The first of `actions` that can be done. `rungs` are those that can run now, strongest first, with the active
    one; `remote` those among them that run on another machine."""
    below = list(rungs[rungs.index(active) + 1 :]) if active in rungs else []
    above = list(rungs[: rungs.index(active)]) if active in rungs else []
    possible = {
        "step_down": bool(below),
        "step_up": bool(above),
        "hold": True,
        "notify": True,
        "offload": any(name in remote for name in rungs),
    }
    return next((a for a in actions if (a.rung in rungs if a.kind == "rung" else possible[a.kind])), None)


def unknown_rungs(rules: Sequence[Rule], known: Collection[str]) -> tuple[str, ...]:
    """A sentence for every rule that asks for a rung that the ladder does not have."""
    return tuple(
        f"the rule {rule.text!r} asks for the rung {action.rung!r}, which the ladder does not have "
        f"(it has: {', '.join(known)}); that action is left out"
        for rule in rules
        for action in rule.actions
        if action.kind == "rung" and action.rung not in known
    )


# ------------------------------------------------------------------------------------------------ facts


def _number(comparison: Comparison, facts: Facts) -> float | None:
    found = facts.get(comparison.name)
    if type(found) is not float and isinstance(found, Mapping):  # the second question alone is slow
        return _of_zone(found, comparison) if comparison.name in ZONED else None
    return None if comparison.zone else _known(found)


def _of_zone(zones: Mapping[str, float], comparison: Comparison) -> float | None:
    if comparison.zone:
        return _known(zones.get(comparison.zone))
    known = [value for value in map(_known, zones.values()) if value is not None]
    return max(known, default=None)


def _known(value: object) -> float | None:
    """A flag is no number, and neither are NaN, inf and integers that no float can hold."""
    if isinstance(value, (float, int)) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST:
        return value
    return None


def _flag(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    number = _known(value)
    return None if number is None else number != 0


# ------------------------------------------------------------------------------------------------ reasons


def _why(rule: Rule, facts: Facts, held_s: float) -> str:
    return _reason(rule.condition, facts, True) + (f" for {held_s:.4g} s" if rule.for_s else "")


def _reason(condition: Condition, facts: Facts, outcome: bool) -> str:
    """What makes `condition` come out as `outcome`: the deciding parts only, all of which hold together."""
    if isinstance(condition, Comparison):
        return _compared(condition, facts, outcome)
    if isinstance(condition, Flag):
        return condition.name if outcome else f"not {condition.name}"
    if isinstance(condition, Not):
        return _reason(condition.condition, facts, not outcome)
    deciding = [part for part in condition.conditions if holds(part, facts) is outcome]
    return " and ".join(_reason(part, facts, outcome) for part in deciding)


def _compared(comparison: Comparison, facts: Facts, outcome: bool) -> str:
    dimension = FACTS[comparison.name].dimension
    value = _number(comparison, facts)
    sign = comparison.operator if outcome else _OPPOSITE[comparison.operator]
    texts = "unknown", _shown(comparison.limit, dimension, comparison.unit)
    if value is not None:
        texts = _apart(value, comparison.limit, dimension, comparison.unit)
    return f"{shown_name(comparison)} {texts[0]} {sign} {texts[1]}"


def _apart(value: float, limit: float, dimension: Dimension, unit: str) -> tuple[str, str]:
    """Both as text, with as many digits as it takes to tell them apart: "200 ms > 200 ms" explains nothing."""
    for digits in (4, 6, 9, 17):
        texts = _shown(value, dimension, unit, digits), _shown(limit, dimension, unit, digits)
        if value == limit or texts[0] != texts[1]:
            break
    return texts


def _shown(value: float, dimension: Dimension, unit: str, digits: int = 4) -> str:
    scale = dimension.units[unit]
    number = value * scale.per / scale.times
    text = f"{number:.0f}" if 10**digits <= abs(number) < 1e15 else f"{number:.{digits}g}"
    return text if unit == PLAIN else f"{text} {unit}"
