"""What documents are told of their mistakes, in words of TOML."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from flyball.config import Config, Count, LadderName
from flyball.document import decode, describe, quoted
from flyball.ladder.manifest import Manifest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Literal["text", "json"], "one of text, json"),
        (Literal[1], "1"),
        (Count, "a whole number from 1 to 4096"),
        (Annotated[float, Meta(gt=0)] | None, "a number above 0"),
        (LadderName, "1 to 64 letters, digits, '.', '_' or '-'"),
        (LadderName | None, "1 to 64 letters, digits, '.', '_' or '-'"),
        (tuple[Literal["a", "b"], ...], "a list, each one of a, b"),
        (dict[str, str | bool], "a table, each value text or true or false"),
        (Config, "a table"),
    ],
)
def test_types_in_words(kind: Any, words: str) -> None:
    assert describe(kind) == words


def test_no_name_of_python_leaks() -> None:
    problems: list[str] = []
    decode({"ladder": {"task": 3}, "rung": [{"backend": 1, "pre": [{"step": "resize"}]}]}, Manifest, "F", problems)
    text = "\n".join(problems)
    assert "F: ladder.version: missing; expected 1 to 64 letters, digits or '_.+-'" in text
    assert "F: ladder.task: expected one of tensor, image-classification, found 3" in text
    assert "F: rung[0].pre[0].width: missing; expected a whole number from 1 to 16384" in text
    for leak in ("Annotated", "Literal", "`", "str", "int "):
        assert leak not in text.replace("string", ""), text


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    low: int
    high: int = 3

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low: above high")


def test_a_fragment_may_lack_what_others_bring() -> None:
    problems: list[str] = []
    assert decode({"low": 5}, Pair, "F", problems, fragment=True) is None
    assert decode({"high": 5}, Pair, "F", problems, fragment=True) is None
    assert problems == []
    decode({"hihg": 5, "low": "a"}, Pair, "F", problems, fragment=True)
    assert len(problems) == 2
    problems.clear()
    assert decode({"low": 5}, Pair, lambda key: f"<{key}>", problems) is None
    assert problems == ["<file>: file: low: above high"]


@given(st.text())
def test_any_text_can_be_quoted(text: str) -> None:
    assert tomllib.loads(f"x = {quoted(text)}") == {"x": text}
