"""docs/rules.md says what the grammar takes."""

import re
from pathlib import Path

import pytest

from flyball.governor.rules import parse, parse_all
from flyball.governor.rules.facts import FACTS, FLAG, PLAIN
from flyball.governor.rules.grammar import DEEPEST, LONGEST, MOST
from flyball.governor.rules.syntax import KINDS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/rules.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def table() -> str:
    """Every name that a rule may speak of; paste it into the document when it has changed."""
    rows = []
    for name, fact in FACTS.items():
        units = ", ".join(f"`{unit}`" for unit in fact.dimension.units if unit != PLAIN)
        plain = "plain" * (PLAIN in fact.dimension.units)
        shown = "a flag" if fact.dimension is FLAG else ", ".join(part for part in (units, plain) if part)
        rows.append(f"| `{name}` | {shown} | {fact.meaning} |")
    return "\n".join(rows)


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


EXAMPLES = [line for block in blocks("rules") for line in block.splitlines()]


def test_the_table_of_names_is_current() -> None:
    assert table() in TEXT


def test_every_action_is_in_the_table() -> None:
    assert {row.split(" ")[0] for row in re.findall(r"^\| `([a-z_]+(?: NAME)?)` \| ", TEXT, re.MULTILINE)} >= set(KINDS)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_rules_as_they_are_printed(example: str) -> None:
    assert parse(example).text == example


def test_the_rules_in_the_configuration_example_are_rules() -> None:
    texts = re.findall(r"\"(when [^\"]+)\"|'(when [^']+)'", "".join(blocks("toml")))
    assert len(parse_all(["".join(pair) for pair in texts], "docs")) == 4


def test_the_sizes_are_told() -> None:
    assert f"{LONGEST:,} characters, a list at most {MOST} rules, and parentheses go at most {DEEPEST} deep" in TEXT
