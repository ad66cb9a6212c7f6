"""The grammar of rules.

text -> one pass from left to right -> Rule, or one RuleError with the column and what is wrong there

    rule       = "when" condition ["for" duration] "then" action {"," "else" action}
    condition  = all {"or" all}
    all        = part {"and" part}
    part       = "not" part | "(" condition ")" | FLAG | NAME ["(" ZONE ")"] OPERATOR quantity
    quantity   = NUMBER [UNIT]
    action     = "step_down" | "step_up" | "hold" | "notify" | "offload" | "rung" RUNG

Never evaluates anything, and takes any text at all: length and nesting are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flyball.config import Config, LadderSettings
from flyball.errors import ConfigError
from flyball.governor.rules.facts import (
    ALIASES,
    FACTS,
    FLAG,
    PLAIN,
    TIME,
    ZONED,
    Dimension,
    bounds_mistake,
    nearest,
    unit_mistake,
    value_of,
)
from flyball.governor.rules.mistake import RuleError
from flyball.governor.rules.syntax import (
    ALWAYS_POSSIBLE,
    KINDS,
    OPERATORS,
    Action,
    And,
    Comparison,
    Condition,
    Flag,
    Not,
    Or,
    Rule,
)

LONGEST = 1000  # characters
DEEPEST = 32  # parentheses and "not" inside each other
MOST = 64  # rules in one list

_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![0-9.])")
_UNIT = re.compile(r"%|°[A-Za-z]?|/[A-Za-z]+|[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r"[<>=!≤≥≠]+")
_ZONE = re.compile(r"\"([^\"]+)\"|'([^']+)'")
_FOUND = re.compile(r"[\w.+-]{1,40}")
_RUNG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}(?![A-Za-z0-9_.+-])")  # as ladder/manifest.py has it
_KEYWORDS = ("when", "for", "then", "else", "and", "or", "not")
_ADD_WORKER = (
    "add_worker is not done by rule: how many instances a rung has is set in [engine], and on a loaded board one more "
    "worker makes it worse; use step_down or offload"
)


def parse(text: str) -> Rule:
    """Raises RuleError."""
    if len(text) > LONGEST:
        raise RuleError(f"a rule has at most {LONGEST} characters, found {len(text)}", text, LONGEST)
    rule = _Text(text).rule()
    if len(rule.text) > LONGEST:  # "a>1" is written out as "a > 1"
        raise RuleError(f"the rule has more than {LONGEST} characters when written out in full", text, len(text))
    return rule


def parse_all(texts: Sequence[str], where: str) -> tuple[Rule, ...]:
    """Every rule of the list at `where`, which is a file and key or a key. Raises ConfigError with every problem."""
    if len(texts) > MOST:
        problem = f"{where}: expected at most {MOST} rules, found {len(texts)}"
        raise ConfigError("the rules cannot be used", [problem])
    rules, problems = [], []
    for index, text in enumerate(texts):
        try:
            rules.append(parse(text))
        except RuleError as error:
            problems.append(f"{where}[{index}]: {error}")
    if problems:
        raise ConfigError("the rules cannot be used", problems)
    return tuple(rules)


def rules_of(settings: Config, ladder: str) -> tuple[Rule, ...]:
    """The rules for one ladder: the general ones, then its own. Raises ConfigError."""
    own = settings.ladder.get(ladder, LadderSettings()).rules
    general = parse_all(settings.governor.rules, "governor.rules")
    return (*general, *parse_all(own, f"ladder.{ladder}.rules"))


class _Text:
    """A rule's text and how far it was read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def rule(self) -> Rule:
        self._keyword("when", "a rule begins with 'when'")
        condition = self._or(0)
        for_s = self._duration() if self._take("for") else 0.0
        self._keyword("then", "expected 'and', 'or', 'for' or 'then'" if not for_s else "expected 'then'")
        actions = [self._action()]
        while self._mark(","):
            self._skip()
            start = self._at
            self._keyword("else", "expected 'else' after the comma")
            if actions[-1].kind in ALWAYS_POSSIBLE:
                raise self._error(f"{actions[-1]} can always be done, so that this 'else' is never reached", start)
            actions.append(self._action())
        self._skip()
        if self._at < len(self._text):
            raise self._error(f"expected ', else ACTION' or the end of the rule, found {self._found()}")
        return Rule(condition, tuple(actions), for_s)

    # -------------------------------------------------------------------------------------------- conditions

    def _or(self, depth: int) -> Condition:
        parts = [self._and(depth)]
        while self._take("or"):
            parts.append(self._and(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self, depth: int) -> Condition:
        parts = [self._part(depth)]
        while self._take("and"):
            parts.append(self._part(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _part(self, depth: int) -> Condition:
        self._skip()
        start = self._at
        if self._take("not"):
            self._check_depth(depth, start)
            return Not(self._part(depth + 1))
        if self._mark("("):
            self._check_depth(depth, start)
            inner = self._or(depth + 1)
            if not self._mark(")"):
                raise self._error(f"expected ')' for the '(' in column {start + 1}, found {self._found()}")
            return inner
        return self._statement()

    def _check_depth(self, depth: int, start: int) -> None:
        if depth >= DEEPEST:
            raise self._error(f"parentheses and 'not' go at most {DEEPEST} deep", start)

    def _statement(self) -> Condition:
        self._skip()
        start, name = self._at, self._word()
        if not name or name in _KEYWORDS:
            raise self._error(f"expected a name such as latency_p95, found {self._found(start)}", start)
        if name not in FACTS:
            raise self._error(f"unknown name {name!r}{nearest(name, FACTS)}", start)
        dimension = FACTS[name].dimension
        zone = self._zone(name)
        self._skip()
        compared, sign = self._at, self._match(_OPERATOR)
        if dimension is FLAG:
            if sign:
                raise self._error(f"{name} is a flag: it stands alone, or after 'not'", compared)
            return Flag(name)
        for operator in OPERATORS:
            if sign == operator:
                return Comparison(name, operator, *self._quantity(name, dimension, operator), zone)
        found = f"found {sign!r}" if sign else f"found {self._found()}"
        raise self._error(f"expected one of {' '.join(OPERATORS)} after {name}, {found}", compared)

    def _zone(self, name: str) -> str:
        self._skip()
        start = self._at
        if not self._mark("("):
            return ""
        if name not in ZONED:
            raise self._error(f"{name} has no zones; only {', '.join(sorted(ZONED))} takes one in parentheses", start)
        self._skip()
        found = _ZONE.match(self._text, self._at)
        if found is None or not found[0].isprintable():
            raise self._error(f'expected a zone in quotes, such as {name}("cpu-thermal"), found {self._found()}')
        self._at = found.end()
        if not self._mark(")"):
            raise self._error(f"expected ')' after the zone, found {self._found()}")
        return found[1] or found[2]

    # -------------------------------------------------------------------------------------------- quantities

    def _quantity(self, name: str, dimension: Dimension, operator: str = "") -> tuple[float, str]:
        self._skip()
        start = self._at
        digits = self._match(_NUMBER)
        if not digits:
            raise self._error(f"expected a finite number, found {self._found()}", start)
        number = float(digits)
        self._skip()
        after = self._at
        unit = self._match(_UNIT)
        if unit in _KEYWORDS:
            self._at, unit = after, PLAIN
        unit = ALIASES.get(unit, unit)
        mistake = unit_mistake(name, dimension, unit)
        if mistake:
            raise self._error(mistake, after if unit else start + len(digits))
        mistake = bounds_mistake(name, dimension, number, unit, operator)
        if mistake:
            raise self._error(mistake, start)
        return number, unit

    def _duration(self) -> float:
        return value_of(TIME, *self._quantity("a duration", TIME))

    # -------------------------------------------------------------------------------------------- actions

    def _action(self) -> Action:
        self._skip()
        start, word = self._at, self._word()
        for kind in KINDS:
            if word == kind:
                return Action(kind, self._rung()) if kind == "rung" else Action(kind)
        if word == "add_worker":
            raise self._error(_ADD_WORKER, start)
        if not word or word in _KEYWORDS:
            raise self._error(f"expected an action ({', '.join(KINDS)}), found {self._found(start)}", start)
        raise self._error(f"unknown action {word!r}{nearest(word, KINDS)}", start)

    def _rung(self) -> str:
        self._skip()
        name = self._match(_RUNG)
        if not name:
            raise self._error(f"expected a rung's name (1 to 64 letters, digits or '_.+-'), found {self._found()}")
        return name

    # -------------------------------------------------------------------------------------------- reading

    def _skip(self) -> None:
        self._match(_SPACE)

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _word(self) -> str:
        self._skip()
        return self._match(_WORD)

    def _take(self, keyword: str) -> bool:
        start = self._at
        if self._word() == keyword:
            return True
        self._at = start
        return False

    def _mark(self, mark: str) -> bool:
        self._skip()
        there = self._text.startswith(mark, self._at)
        self._at += len(mark) * there
        return there

    def _keyword(self, keyword: str, wanted: str) -> None:
        if not self._take(keyword):
            self._skip()
            raise self._error(f"{wanted}, found {self._found()}")

    def _found(self, at: int | None = None) -> str:
        start = self._at if at is None else at
        if start >= len(self._text):
            return "the end of the rule"
        word = _FOUND.match(self._text, start)
        return repr(word[0] if word else self._text[start])

    def _error(self, what: str, column: int | None = None) -> RuleError:
        return RuleError(what, self._text, self._at if column is None else column)
