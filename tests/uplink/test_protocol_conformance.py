"""The table of requirements and the tests that prove them are in step."""

import ast
import re

import pytest
from conformance import TABLE, UPLINK

ROW = re.compile(r"\| (R\d+) \| (.+) \| `([^`]+)` \|$")
MODULES = ("test_conformance_session.py", "test_conformance_orders.py", "test_conformance_records.py")


def table() -> dict[str, tuple[str, str]]:
    """Number -> requirement, test."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| R")]
    found = {}
    for line in lines:
        match = ROW.fullmatch(line)
        assert match is not None, f"no row of three columns: {line}"
        assert match[1] not in found, f"{match[1]} stands twice"
        found[match[1]] = (match[2], match[3])
    return found


def proven() -> dict[str, set[str]]:
    """Number -> tests with meets(number); every test of the suite has one."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        for node in ast.parse((UPLINK / module).read_text()).body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            marks = [d for d in node.decorator_list if isinstance(d, ast.Call) and getattr(d.func, "id", "") == "meets"]
            numbers = [ast.literal_eval(argument) for mark in marks for argument in mark.args]
            assert numbers, f"{module}: {node.name} says of no requirement that it proves it"
            for number in numbers:
                found.setdefault(number, set()).add(node.name)
    return found


def test_every_requirement_has_its_test_and_every_test_its_requirement() -> None:
    outside = {number: {test} for number, (_, test) in table().items() if "::" not in test}
    assert outside == proven()


@pytest.mark.parametrize("number", [n for n, (_, test) in table().items() if "::" in test])
def test_tests_that_are_named_elsewhere_exist(number: str) -> None:
    file, _, name = table()[number][1].partition("::")
    text = (UPLINK.parents[1] / file).read_text()
    assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{number}: there is no {name} in {file}"


def test_a_requirement_is_one_sentence() -> None:
    for number, (requirement, _) in table().items():
        assert requirement.endswith("."), number
        assert not re.search(r"[a-z]\. [A-Z]", requirement), number
