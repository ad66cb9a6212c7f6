"""Which rules fire, on what is known and what is not."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rules_grammar import rules as any_rule

from flyball.governor.rules import Action, Facts, evaluate, first_possible, parse, unknown_rungs
from flyball.governor.rules.evaluation import holds
from flyball.governor.rules.facts import FACTS

LATE = "when latency_p95 > 200 ms for 10 s then step_down"


def truth(condition: str, facts: Facts) -> bool | None:
    return holds(parse(f"when {condition} then hold").condition, facts)


def why(text: str, facts: Facts) -> str:
    (fired,), _ = evaluate([parse(text)], facts, {}, 0.0)
    return fired.why


# ---------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("operator", "below", "same", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
        ("==", False, True, False),
        ("!=", True, False, True),
    ],
)
def test_comparisons(operator: str, below: bool, same: bool, above: bool) -> None:
    condition = f"latency_p95 {operator} 200 ms"
    assert [truth(condition, {"latency_p95": value}) for value in (0.1, 0.2, 0.3)] == [below, same, above]


YES, NO, UNKNOWN = "throttled", "not throttled", "under_voltage"
OUTCOMES = {YES: True, NO: False, UNKNOWN: None}


@pytest.mark.parametrize("one", OUTCOMES)
@pytest.mark.parametrize("other", OUTCOMES)
def test_three_values(one: str, other: str) -> None:
    facts: Facts = {"throttled": True, "under_voltage": None}
    outcomes = {OUTCOMES[one], OUTCOMES[other]}
    both = False if False in outcomes else None if None in outcomes else True
    either = True if True in outcomes else None if None in outcomes else False
    assert truth(f"{one} and {other}", facts) is both
    assert truth(f"{one} or {other}", facts) is either
    assert truth(f"not ({one} and {other})", facts) is (None if both is None else not both)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 10**400, True, {"a": 0.9}, "0.9"])
def test_what_is_no_measurement_is_unknown(value: Any) -> None:
    assert truth("cpu > 80 %", {"cpu": value}) is None
    assert truth("not cpu > 80 %", {"cpu": value}) is None
    assert truth("cpu > 80 %", {}) is None


def test_a_zero_is_a_measurement() -> None:
    assert truth("cpu < 80 %", {"cpu": 0.0}) is True
    assert truth("queue == 0", {"queue": 0}) is True


def test_temperatures_by_zone_and_of_the_hottest() -> None:
    zones = {"cpu": 60.0, "gpu": 75.0, "pmic": math.nan}
    facts: Facts = {"temperature": zones}
    assert truth("temperature == 75 C", facts) is True
    assert truth('temperature("cpu") > 70 C', facts) is False
    assert truth('temperature("pmic") > 70 C', facts) is None
    assert truth('temperature("nowhere") > 70 C', facts) is None
    assert truth("temperature > 70 C", {"temperature": 71.0}) is True
    assert truth('temperature("cpu") > 70 C', {"temperature": 71.0}) is None
    assert truth("temperature > 70 C", {"temperature": {}}) is None


@pytest.mark.parametrize(("value", "found"), [(True, True), (False, False), (1.0, True), (0, False), (math.nan, None)])
def test_flags(value: float, found: bool | None) -> None:
    assert truth("throttled", {"throttled": value}) is found


# ---------------------------------------------------------------------------------------------------- time


def looks(text: str, name: str, values: list[float | None]) -> list[float | None]:
    """For how long it has held where it fires, None where it does not; one look a second."""
    rule, found = parse(text), []
    since: Mapping[str, float] = {}
    for now_s, value in enumerate(values):
        fired, since = evaluate([rule], {name: value}, since, 100.0 + now_s)
        found.append(fired[0].held_s if fired else None)
    return found


def test_a_condition_must_hold_for_so_long() -> None:
    assert looks("when cpu > 80 % for 2 s then hold", "cpu", [0.9, 0.9, 0.9, 0.9]) == [None, None, 2.0, 3.0]
    assert looks("when cpu > 80 % then hold", "cpu", [0.9, 0.9]) == [0.0, 1.0]


@pytest.mark.parametrize("gap", [0.1, None, math.nan])
def test_a_break_begins_anew(gap: float | None) -> None:
    found = looks("when cpu > 80 % for 2 s then hold", "cpu", [0.9, 0.9, gap, 0.9, 0.9, 0.9])
    assert found == [None, None, None, None, None, 2.0]


def test_since_is_kept_by_text_for_what_holds_and_nothing_else() -> None:
    rules = [parse(LATE), parse("when throttled then notify"), parse("when cpu > 80 % then hold")]
    facts: Facts = {"latency_p95": 0.3, "throttled": False}
    fired, since = evaluate(rules, facts, {LATE: 5.0, rules[1].text: 6.0, rules[2].text: 7.0, "gone": 1.0}, 9.0)
    assert fired == ()
    assert since == {LATE: 5.0}


def test_a_time_to_come_is_now() -> None:
    """`since` of a clock that was set back, or of another boot."""
    fired, since = evaluate([parse(LATE)], {"latency_p95": 0.3}, {LATE: 1000.0}, 9.0)
    assert (fired, since) == ((), {LATE: 9.0})


def test_rules_fire_in_their_order() -> None:
    rules = [
        parse("when throttled then notify"),
        parse("when cpu > 1 % then hold"),
        parse("when cpu > 5 % then step_up"),
    ]
    fired, _ = evaluate(rules, {"throttled": True, "cpu": 0.5}, {}, 0.0)
    assert [f.rule for f in fired] == rules
    assert [f.actions for f in fired] == [(Action("notify"),), (Action("hold"),), (Action("step_up"),)]


# ---------------------------------------------------------------------------------------------------- reasons


def test_the_reason_has_the_values_and_the_time() -> None:
    (fired,), _ = evaluate([parse(LATE)], {"latency_p95": 0.212}, {LATE: 50.0}, 62.0)
    assert fired.why == "latency_p95 212 ms > 200 ms for 12 s"
    assert fired.held_s == 12.0


HOT_NIGHT: Facts = {
    "temperature": {"cpu": 71.25, "gpu": 60.0},
    "hour": 23.5,
    "cpu": 0.3,
    "throttled": False,
    "memory_available": 3.5e9,
    "arrivals": 20.0,
    "queue": 12345,
}


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("temperature > 70 C", "temperature 71.25 C > 70 C"),
        ('temperature("cpu") > 70 C', 'temperature("cpu") 71.25 C > 70 C'),
        ("hour >= 22 or hour < 6", "hour 23.5 >= 22"),
        ("hour >= 22 and temperature > 70 C", "hour 23.5 >= 22 and temperature 71.25 C > 70 C"),
        ("not throttled", "not throttled"),
        ("not cpu > 80 %", "cpu 30 % <= 80 %"),
        ("not cpu != 30 %", "cpu 30 % == 30 %"),
        ("not cpu == 31 %", "cpu 30 % != 31 %"),
        ("not (cpu > 80 % and hour > 5)", "cpu 30 % <= 80 %"),
        ("not (cpu > 80 % or throttled)", "cpu 30 % <= 80 % and not throttled"),
        ("throttled or not (gpu > 5 % and cpu > 80 %)", "cpu 30 % <= 80 %"),
        ("memory_available < 4 GiB", "memory_available 3.26 GiB < 4 GiB"),
        ("memory_available < 4000000000 B", "memory_available 3500000000 B < 4000000000 B"),
        ("arrivals > 5 /s", "arrivals 20 /s > 5 /s"),
        ("queue > 5", "queue 12345 > 5"),
        ("cpu > 0.29999999", "cpu 0.3 > 0.29999999"),
        ("cpu >= 30 %", "cpu 30 % >= 30 %"),
    ],
)
def test_the_reason_names_what_decided(condition: str, text: str) -> None:
    assert why(f"when {condition} then notify", HOT_NIGHT) == text


# ---------------------------------------------------------------------------------------------------- actions


@pytest.mark.parametrize(
    ("actions", "active", "remote", "wanted"),
    [
        ("step_down", "a", (), Action("step_down")),
        ("step_down", "c", (), None),
        ("step_up", "a", (), None),
        ("step_up", "c", (), Action("step_up")),
        ("step_down, else notify", "c", (), Action("notify")),
        ("offload, else step_down", "a", (), Action("step_down")),
        ("offload, else step_down", "a", ("b",), Action("offload")),
        ("offload, else step_down", "a", ("elsewhere",), Action("step_down")),
        ("rung b, else hold", "a", (), Action("rung", "b")),
        ("rung x, else hold", "a", (), Action("hold")),
        ("rung x", "a", (), None),
        ("step_down, else rung c", None, (), Action("rung", "c")),
        ("step_up, else step_down", "closed", (), None),
    ],
)
def test_the_first_possible_action(
    actions: str, active: str | None, remote: tuple[str, ...], wanted: Action | None
) -> None:
    rule = parse(f"when throttled then {actions}")
    assert first_possible(rule.actions, ("a", "b", "c"), active, remote) == wanted


def test_a_rung_that_the_ladder_does_not_have_is_named() -> None:
    rules = [parse("when throttled then rung b"), parse("when throttled then step_down, else rung x")]
    (problem,) = unknown_rungs(rules, ("a", "b"))
    assert problem == (
        "the rule 'when throttled then step_down, else rung x' asks for the rung 'x', which the ladder does not have "
        "(it has: a, b); that action is left out"
    )


# ---------------------------------------------------------------------------------------------------- properties

odd = st.floats() | st.booleans() | st.none() | st.integers()
fact_values = odd | st.dictionaries(st.sampled_from(["a", "b", "cpu-thermal"]), st.floats(), max_size=3)
any_facts = st.dictionaries(st.sampled_from(sorted(FACTS)), fact_values)


@given(st.lists(any_rule, max_size=4), any_facts, st.floats(), st.floats())
def test_nothing_is_raised_whatever_the_facts_are(rules: list[Any], facts: Any, since_s: float, now_s: float) -> None:
    fired, since = evaluate(rules, facts, {rule.text: since_s for rule in rules}, now_s)
    true = {rule.text for rule in rules if holds(rule.condition, facts) is True}
    assert set(since) == true
    assert {f.rule.text for f in fired} <= true
    assert all(f.held_s >= f.rule.for_s and f.why and "unknown" not in f.why for f in fired)


@given(st.lists(any_rule, max_size=3), any_facts, st.floats(0, 1e6))
def test_the_same_facts_give_the_same(rules: list[Any], facts: Any, now_s: float) -> None:
    assert evaluate(rules, facts, {}, now_s) == evaluate(rules, facts, {}, now_s)


@given(any_rule, any_facts)
def test_a_condition_and_its_opposite_are_never_both_true(rule: Any, facts: Any) -> None:
    text = rule.text.removeprefix("when ").rsplit(" then ", 1)[0]
    if not rule.for_s:
        found, opposite = truth(text, facts), truth(f"not ({text})", facts)
        assert opposite is (None if found is None else not found)
