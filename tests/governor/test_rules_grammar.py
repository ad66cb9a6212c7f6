"""The grammar of rules: what it takes, and what it says of everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import ConfigError
from flyball.governor.rules import Action, Rule, RuleError, parse, parse_all, unparse
from flyball.governor.rules.facts import FACTS, FLAG, PLAIN, TIME, ZONED, bounds_mistake, value_of
from flyball.governor.rules.grammar import DEEPEST, LONGEST, MOST
from flyball.governor.rules.syntax import (
    ALWAYS_POSSIBLE,
    KINDS,
    OPERATORS,
    And,
    Comparison,
    Condition,
    Flag,
    Not,
    Or,
)

HOT = Comparison("temperature", ">", 70.0, "C")
BUSY = Comparison("cpu", ">", 80.0, "%")
THROTTLED = Flag("throttled")


def mistake(text: str) -> tuple[str, int]:
    with pytest.raises(RuleError) as caught:
        parse(text)
    return caught.value.what, caught.value.column


# ---------------------------------------------------------------------------------------------------- what it takes


def test_a_whole_rule() -> None:
    rule = parse("when latency_p95 > 200 ms for 10 s then step_down")
    assert rule.condition == Comparison("latency_p95", ">", 200.0, "ms")
    assert rule.for_s == 10.0
    assert rule.actions == (Action("step_down"),)
    assert rule.text == "when latency_p95 > 200 ms for 10 s then step_down"


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("cpu > 80 % and temperature > 70 C", And((BUSY, HOT))),
        ("cpu > 80 % and temperature > 70 C or throttled", Or((And((BUSY, HOT)), THROTTLED))),
        ("throttled or cpu > 80 % and temperature > 70 C", Or((THROTTLED, And((BUSY, HOT))))),
        ("(throttled or cpu > 80 %) and temperature > 70 C", And((Or((THROTTLED, BUSY)), HOT))),
        ("not throttled and cpu > 80 %", And((Not(THROTTLED), BUSY))),
        ("not (throttled and cpu > 80 %)", Not(And((THROTTLED, BUSY)))),
        ("((throttled))", THROTTLED),
        ("throttled or cpu > 80 % or temperature > 70 C", Or((THROTTLED, BUSY, HOT))),
    ],
)
def test_what_binds_stronger(text: str, condition: Condition) -> None:
    assert parse(f"when {text} then hold").condition == condition


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("latency_p50 > 200 ms", 0.2),
        ("latency_p99>.5s", 0.5),
        ("memory_available < 64 MiB", 64 * 1024**2),
        ("memory_available < 1.5GiB", 1.5 * 1024**3),
        ("cpu > 57 %", 0.57),
        ("cpu > 0.57", 0.57),
        ("slow_down > 150 %", 1.5),
        ("temperature < -10 °C", -10.0),
        ("power > 6500 mW", 6.5),
        ("arrivals > 20/s", 20.0),
        ("runnable >= 2 tasks", 2.0),
        ("queue == 3", 3.0),
        ("queue != 3 requests", 3.0),
        ("hour >= 22.5", 22.5),
        ("latency_p95 <= 1e-3 s", 0.001),
    ],
)
def test_quantities_are_in_base_units(text: str, limit: float) -> None:
    condition = parse(f"when {text} then hold").condition
    assert isinstance(condition, Comparison)
    assert condition.limit == limit


@pytest.mark.parametrize(
    ("written", "for_s"), [("for 250 ms", 0.25), ("for 10 s", 10), ("for 2 min", 120), ("for 1.5h", 5400), ("", 0)]
)
def test_durations(written: str, for_s: float) -> None:
    assert parse(f"when throttled {written} then hold").for_s == for_s


def test_the_zone_of_a_temperature() -> None:
    wanted = Comparison("temperature", ">", 70.0, "C", "cpu-thermal")
    assert parse('when temperature("cpu-thermal") > 70 C then hold').condition == wanted
    assert parse("when temperature ( 'cpu-thermal' ) > 70 C then hold").condition == wanted


@pytest.mark.parametrize("name", ["r112-int8", "8bit.v2", "a+b_c", "else", "x" * 64])
def test_a_rung_of_any_name_that_a_manifest_takes(name: str) -> None:
    assert parse(f"when throttled then rung {name}, else step_down").actions == (
        Action("rung", name),
        Action("step_down"),
    )


def test_how_a_rule_was_spaced_makes_no_difference() -> None:
    tight = parse("when(cpu>80%)for 60s then offload,else step_down")
    wide = parse("  when cpu  >  80 %\n  for 1 min\tthen offload , else step_down ")
    assert tight == wide
    assert tight.text == wide.text == "when cpu > 80 % for 1 min then offload, else step_down"


# ---------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 0, "begins with 'when', found the end of the rule"),
        ("if cpu > 80 % then hold", 0, "begins with 'when', found 'if'"),
        ("when latncy_p95 > 1 s then hold", 5, "unknown name 'latncy_p95'; did you mean 'latency_p95'?"),
        ("when zzz > 1 s then hold", 5, "known: latency_p50, "),
        ("when then hold", 5, "expected a name such as latency_p95, found 'then'"),
        ("when cpu then hold", 9, "expected one of < <= > >= == != after cpu, found 'then'"),
        ("when cpu = 5 % then hold", 9, "found '='"),
        ("when 5 % < cpu then hold", 5, "expected a name such as latency_p95, found '5'"),
        ("when throttled == 1 then hold", 15, "throttled is a flag: it stands alone"),
        ("when cpu > high then hold", 11, "expected a finite number, found 'high'"),
        ("when cpu > nan then hold", 11, "expected a finite number, found 'nan'"),
        ("when power > inf W then hold", 13, "expected a finite number, found 'inf'"),
        ("when power > 1e999 W then hold", 13, "the number is too large"),
        ("when power > 1.2.3 W then hold", 13, "expected a finite number, found '1.2.3'"),
        ("when latency_p95 > 200 then hold", 22, "latency_p95 needs a unit: ms, s, min or h"),
        ("when latency_p95 > 200 MiB then hold", 23, "latency_p95 is not measured in 'MiB'; expected ms, s, min or h"),
        ("when memory_available < 64 MB then hold", 27, "unknown unit 'MB'; expected B, KiB, MiB or GiB; did you mean"),
        ("when latency_p95 > 2 m then hold", 21, "did you mean 'min'?"),
        ("when cpu > 80 then hold", 11, "cpu is never above 1 (100 %), so that this says nothing; did you mean 80 %?"),
        ("when cpu > 101 % then hold", 11, "cpu is never above 1 (100 %)"),
        ("when power > -1 W then hold", 13, "power is never below 0"),
        ("when temperature < -300 C then hold", 19, "temperature is never below -273.15"),
        ("when hour > 25 then hold", 12, "hour is never above 24"),
        ("when throttled for 10 then hold", 21, "a duration needs a unit: ms, s, min or h"),
        ("when throttled for -1 s then hold", 19, "a duration is never below 0"),
        ("when throttled for nan s then hold", 19, "expected a finite number, found 'nan'"),
        ("when throttled for 1e308 h then hold", 19, "the number is too large"),
        ("when throttled for ever then hold", 19, "expected a finite number, found 'ever'"),
        ("when (throttled then hold", 16, "expected ')' for the '(' in column 6, found 'then'"),
        ("when throttled) then hold", 14, "expected 'and', 'or', 'for' or 'then', found ')'"),
        ("when throttled hold", 15, "expected 'and', 'or', 'for' or 'then', found 'hold'"),
        ("when throttled for 1 s hold", 23, "expected 'then', found 'hold'"),
        ("when throttled then", 19, "expected an action (step_down, step_up, "),
        ("when throttled then stepdown", 20, "unknown action 'stepdown'; did you mean 'step_down'?"),
        ("when throttled then add_worker", 20, "instances a rung has is set in [engine]"),
        ("when throttled then step_down, else add_worker", 36, "use step_down or offload"),
        ("when throttled then rung", 24, "expected a rung's name"),
        ("when throttled then rung -x", 25, "expected a rung's name"),
        ("when throttled then rung " + "x" * 65, 25, "expected a rung's name"),
        ("when throttled then step_down twice", 30, "expected ', else ACTION' or the end of the rule, found 'twice'"),
        ("when throttled then step_down, hold", 31, "expected 'else' after the comma"),
        ("when throttled then notify, else step_down", 28, "notify can always be done"),
        ("when temperature(cpu) > 7 C then hold", 17, "expected a zone in quotes, such as temperature("),
        ('when temperature("") > 7 C then hold', 17, "expected a zone in quotes"),
        ('when temperature("a\tb") > 7 C then hold', 17, "expected a zone in quotes"),
        ('when temperature("a" > 7 C then hold', 21, "expected ')' after the zone"),
        ('when power("a") > 7 W then hold', 10, "power has no zones; only temperature takes one"),
        ("when cpu ≥ 5 % then hold", 9, "found '≥'"),
        ("when 中 then hold", 5, "found '中'"),
    ],
)
def test_a_mistake_is_named_with_its_column(text: str, column: int, words: str) -> None:
    what, found = mistake(text)
    assert words in what
    assert found == column


def test_the_message_counts_columns_from_one_and_points_at_the_place() -> None:
    with pytest.raises(RuleError) as caught:
        parse("when cpu > 80 % then stepdown")
    assert str(caught.value).splitlines() == [
        "column 22: unknown action 'stepdown'; did you mean 'step_down'?",
        "      when cpu > 80 % then stepdown",
        "                           ^",
    ]
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("before", ["\x1b[31m", "\u4e2d\u6587", "e\u0301", "\u202e", "\x00\ud800", " " * 900])
def test_the_caret_stands_under_the_place_whatever_comes_before(before: str) -> None:
    text = f'when temperature("{before}") > 5 W then hold' if before.strip() else f"when{before}x > 5"
    with pytest.raises(RuleError) as caught:
        parse(text)
    _, shown, caret = str(caught.value).split("\n")
    assert len(caret) <= 80
    assert shown.isprintable()
    at = caret.index("^")
    assert shown[at] == text[caught.value.column]


def test_of_a_long_rule_the_part_around_the_place_is_shown() -> None:
    with pytest.raises(RuleError) as caught:
        parse("when cpu > 5 % then " + "rung x, else " * 30 + "hold tight" + " " * 300 + "!")
    _, shown, caret = str(caught.value).split("\n")
    assert shown.strip().startswith("...")
    assert shown.endswith("...")
    assert len(shown) < 120
    assert shown[caret.index("^") :].startswith("tight")


@pytest.mark.parametrize("zone", ['the "big" one', "the 'big' one", "cpu thermal (0)"])
def test_zones_of_any_printable_name(zone: str) -> None:
    rule = Rule(Comparison("temperature", ">", 70.0, "C", zone), (Action("hold"),))
    assert parse(rule.text) == rule


def test_long_rules_are_refused() -> None:
    longest = "when throttled" + " " * (LONGEST - len("when throttledthen hold")) + "then hold"
    assert parse(longest).text == "when throttled then hold"
    assert mistake(longest + " ") == (f"a rule has at most {LONGEST} characters, found {LONGEST + 1}", LONGEST)
    tight = "when cpu>1%" + "or cpu>1%" * 108 + "then hold"
    assert len(tight) <= LONGEST
    assert "written out in full" in mistake(tight)[0]


@pytest.mark.parametrize(("opening", "closing"), [("(", ")"), ("not ", ""), ("not(", ")")])
def test_deep_rules_are_refused(opening: str, closing: str) -> None:
    deep = DEEPEST // (2 if opening == "not(" else 1)
    assert parse(f"when {opening * deep}throttled{closing * deep} then hold").actions == (Action("hold"),)
    what, column = mistake(f"when {opening * (deep + 1)}throttled{closing * (deep + 1)} then hold")
    assert what == f"parentheses and 'not' go at most {DEEPEST} deep"
    assert column == 5 + len(opening) * deep
    mistake(f"when {opening * 240}")


# ---------------------------------------------------------------------------------------------------- lists


def test_every_problem_of_a_list_is_told_with_its_place() -> None:
    good = "when throttled then hold"
    with pytest.raises(ConfigError) as caught:
        parse_all([good, "when x then hold", good, "when cpu > 80 then hold"], "a.toml: governor.rules")
    problems = caught.value.problems
    assert [problem.split(": unknown")[0].split(": cpu")[0] for problem in problems] == [
        "a.toml: governor.rules[1]: column 6",
        "a.toml: governor.rules[3]: column 12",
    ]
    assert parse_all([good, good], "") == (parse(good), parse(good))


def test_a_list_is_bounded() -> None:
    assert len(parse_all(["when throttled then hold"] * MOST, "here")) == MOST
    with pytest.raises(ConfigError, match=f"here: expected at most {MOST} rules, found {MOST + 1}"):
        parse_all(["when throttled then hold"] * (MOST + 1), "here")


# ---------------------------------------------------------------------------------------------------- properties

printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
zones = printable.filter(lambda zone: zone.isprintable() and not ('"' in zone and "'" in zone))


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    name = draw(st.sampled_from([name for name, fact in FACTS.items() if fact.dimension is not FLAG]))
    dimension = FACTS[name].dimension
    unit = draw(st.sampled_from(sorted(dimension.units)))
    number = draw(st.floats(-1e15, 1e300) | st.integers(0, 5000).map(lambda i: i / 10))
    value = value_of(dimension, number, unit)
    if not dimension.low <= value <= dimension.high or value == float("inf"):
        number = draw(st.floats(0, 1))
    operator = draw(st.sampled_from(OPERATORS))
    if bounds_mistake(name, dimension, number, unit, operator):  # it would never hold
        operator = "<="
    zone = draw(st.just("") | zones) if name in ZONED else ""
    return Comparison(name, operator, number, unit, zone)


flags = st.sampled_from([Flag(name) for name, fact in FACTS.items() if fact.dimension is FLAG])
conditions: st.SearchStrategy[Condition] = st.recursive(
    comparisons() | flags,
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
    ),
    max_leaves=6,
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", fullmatch=True)
moves = st.sampled_from([Action(k) for k in KINDS if k != "rung" and k not in ALWAYS_POSSIBLE]) | names.map(
    lambda name: Action("rung", name)
)
last = moves | st.sampled_from([Action(kind) for kind in KINDS if kind in ALWAYS_POSSIBLE])
actions = st.tuples(st.lists(moves, max_size=2), last).map(lambda pair: (*pair[0], pair[1]))
durations = st.floats(0, 1e9) | st.integers(0, 10**7).map(lambda i: value_of(TIME, i, "ms"))
rules = st.builds(Rule, conditions, actions, durations)


@given(rules)
def test_a_rule_written_out_is_read_as_the_same_rule(rule: Rule) -> None:
    text = unparse(rule)
    again = parse(text)
    assert again == rule
    assert again.text == text


def reads_or_points(text: str) -> None:
    found = read(text)
    if isinstance(found, Rule):
        assert parse(found.text) == found
    else:
        assert 0 <= found.column <= len(text)
        shown, caret = str(found).split("\n")[-2:]
        assert len(caret) == caret.index("^") + 1 <= len(shown) + 1


def read(text: str) -> Rule | RuleError:
    try:
        return parse(text)
    except RuleError as error:
        return error


@given(st.text())
def test_any_text_is_a_rule_or_a_mistake_in_a_column(text: str) -> None:
    reads_or_points(text)


WORDS = (
    "when for then else and or not ( ) , < <= > >= == != 1 0.5 -2 1e400 % °C ms s MiB /s cpu throttled temperature "
    "temperature('a') hour step_down rung hold notify add_worker x"
)
tokens = st.sampled_from([*WORDS.split(), PLAIN, "cpu > 5 %", "then hold"])


@given(st.lists(tokens, max_size=400), st.sampled_from(["", " "]))
def test_any_row_of_words_is_a_rule_or_a_mistake_in_a_column(words: list[str], between: str) -> None:
    reads_or_points(f"when {between.join(words)}")


@given(rules, st.data())
def test_a_rule_with_a_piece_missing_is_a_rule_or_a_mistake_in_a_column(rule: Rule, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rule.text)))
    end = data.draw(st.integers(start, len(rule.text)))
    reads_or_points(rule.text[:start] + rule.text[end:])
