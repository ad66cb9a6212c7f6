"""Plain thresholds beside the law, as the configuration states them.

facts.py        what a rule may speak of, with units and bounds
syntax.py       the tree of a rule, and its canonical text
grammar.py      text -> tree, or a mistake
mistake.py      what is wrong, in which column
evaluation.py   tree + facts -> fires or not, and why

[governor] rules -> parse -> Rule -> evaluate(facts, since, now) -> Fired. Never changes a rung itself.
"""

from flyball.governor.rules.evaluation import Facts, Fired, evaluate, first_possible, unknown_rungs
from flyball.governor.rules.grammar import parse, parse_all, rules_of
from flyball.governor.rules.mistake import RuleError
from flyball.governor.rules.syntax import Action, Rule, unparse

__all__ = [
    "Action",
    "Facts",
    "Fired",
    "Rule",
    "RuleError",
    "evaluate",
    "first_possible",
    "parse",
    "parse_all",
    "rules_of",
    "unknown_rungs",
    "unparse",
]
