"""The total: one measurement, never a sum, never a part."""

import pytest
from fake_sensors import reading
from hypothesis import given
from hypothesis import strategies as st

from flyball.ports import Reading, Scope
from flyball.sensing.total import explain_no_total, total_power, without_superseded


def power(name: str, scope: Scope, value: float = 5.0) -> Reading:
    return reading(value, t_s=1.0, name=name, quantity="power", scope=scope)


RAIL, OTHER_RAIL = power("VDD_CPU", "rail"), power("VDD_SOC", "rail")
MODULE, ESTIMATE = power("VDD_IN", "module"), power("estimated", "estimated")


@pytest.mark.parametrize(
    ("readings", "total"),
    [
        ([], None),
        ([RAIL], None),
        ([RAIL, OTHER_RAIL, power("gpu", "chip"), power("pmic", "soc")], None),
        ([RAIL, MODULE, ESTIMATE], MODULE),
        ([RAIL, ESTIMATE], ESTIMATE),
        ([MODULE, power("plug", "wall")], power("plug", "wall")),
        ([power("a", "machine"), power("b", "machine"), ESTIMATE], ESTIMATE),
        ([power("a", "machine"), power("b", "machine"), MODULE], MODULE),
        ([reading(50.0, t_s=1.0, scope="machine")], None),
    ],
)
def test_the_rule(readings: list[Reading], total: Reading | None) -> None:
    assert total_power(readings) == total


def test_the_reason_why_there_is_none() -> None:
    assert explain_no_total([]) == "nothing measures or estimates power here"
    assert "VDD_CPU (rail), VDD_SOC (rail)" in explain_no_total([RAIL, OTHER_RAIL])


def test_the_estimate_stands_back_behind_a_measured_total_only() -> None:
    assert without_superseded([RAIL, MODULE, ESTIMATE]) == (RAIL, MODULE)
    assert without_superseded([RAIL, ESTIMATE]) == (RAIL, ESTIMATE)


@given(st.lists(st.sampled_from(["wall", "machine", "module", "rail", "soc", "chip", "estimated"]), max_size=8))
def test_a_total_is_always_one_of_the_readings_and_no_part(scopes: list[Scope]) -> None:
    readings = [power(f"n{i}", scope, float(i)) for i, scope in enumerate(scopes)]
    total = total_power(readings)
    assert total is None or (total in readings and total.scope not in ("rail", "soc", "chip", "zone"))
    assert total_power(reversed(readings)) == total
