"""The syntax tree of a rule, and its one way back to text.

Rule(condition, for_s, actions) -> unparse -> canonical text, which the grammar reads as the same Rule

Frozen values without a clock; equal rules have equal text. Never judges whether a condition holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from flyball.governor.rules.facts import FACTS, PLAIN, TIME, value_of

Operator = Literal["<", "<=", ">", ">=", "==", "!="]
Kind = Literal["step_down", "step_up", "hold", "rung", "notify", "offload"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
KINDS: tuple[Kind, ...] = get_args(Kind)
ALWAYS_POSSIBLE: frozenset[Kind] = frozenset({"hold", "notify"})  # what follows one of these is never reached


@dataclass(frozen=True, slots=True)
class Comparison:
    """`number` is in `unit`, `limit` the same in the base unit of `name`. `zone` is "" for the name by itself."""

    name: str
    operator: Operator
    number: float
    unit: str = PLAIN
    zone: str = ""
    limit: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", value_of(FACTS[self.name].dimension, self.number, self.unit))


@dataclass(frozen=True, slots=True)
class Flag:
    name: str


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


@dataclass(frozen=True, slots=True)
class And:
    """Of two conditions or more."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Of two conditions or more."""

    conditions: tuple[Condition, ...]


Condition: TypeAlias = Comparison | Flag | Not | And | Or


@dataclass(frozen=True, slots=True)
class Action:
    """`rung` is the name that `kind` "rung" asks for, else ""."""

    kind: Kind
    rung: str = ""

    def __str__(self) -> str:
        return f"rung {self.rung}" if self.kind == "rung" else self.kind


@dataclass(frozen=True, slots=True)
class Rule:
    """When `condition` has held for `for_s` seconds without a break, the first possible one of `actions`. `text` is
    the canonical one, whatever spaces and units of time the rule was written with."""

    condition: Condition
    actions: tuple[Action, ...]
    for_s: float = 0.0
    text: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", unparse(self))


def unparse(rule: Rule) -> str:
    """The rule as text; parse(unparse(rule)) == rule."""
    held = f" for {shown_duration(rule.for_s)}" if rule.for_s else ""
    return f"when {_condition(rule.condition)}{held} then {', else '.join(map(str, rule.actions))}"


def shown_number(number: float) -> str:
    """The shortest text that is read as the same number."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def shown_duration(seconds: float) -> str:
    """In the largest unit in which it is a whole number."""
    for unit in reversed(list(TIME.units)):
        number = seconds * TIME.units[unit].per / TIME.units[unit].times
        if number.is_integer() and value_of(TIME, number, unit) == seconds:
            return f"{shown_number(number)} {unit}"
    return f"{shown_number(seconds)} s"


def shown_name(comparison: Comparison) -> str:
    if not comparison.zone:
        return comparison.name
    mark = "'" if '"' in comparison.zone else '"'
    return f"{comparison.name}({mark}{comparison.zone}{mark})"


def _condition(node: Condition) -> str:
    if isinstance(node, Comparison):
        return f"{shown_name(node)} {node.operator} {shown_number(node.number)} {node.unit}".rstrip()
    if isinstance(node, Flag):
        return node.name
    if isinstance(node, Not):
        return f"not {_inside(node.condition, (And, Or))}"
    if isinstance(node, And):
        return " and ".join(_inside(part, (And, Or)) for part in node.conditions)
    return " or ".join(_inside(part, (Or,)) for part in node.conditions)


def _inside(node: Condition, parenthesized: tuple[type, ...]) -> str:
    return f"({_condition(node)})" if isinstance(node, parenthesized) else _condition(node)
