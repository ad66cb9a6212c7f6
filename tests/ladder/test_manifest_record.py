"""Canary answers written into a manifest's text."""

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from flyball.ladder.record import with_canaries

TEXT = """schema = 1
[ladder]
name = "big"  # the ladder has a rung's name

[[rung]]
# a comment stays
name = "big"
sha256 = "aa"
pre = [{ step = "resize" }]

[[rung]]
name = "small"
canary = [[1.0, 2.0],
  [3.0]]  # an old one
sha256 = "bb"
[rung.options]
threads = 1
"""


def test_each_rung_gets_its_own_and_everything_else_stays() -> None:
    text = with_canaries(TEXT, {"big": [[0.123456789, 1e-9], []], "small": [[5]]})
    big, small = tomllib.loads(text)["rung"]
    assert big["canary"] == [[0.123457, 1e-9], []]
    assert small["canary"] == [[5.0]]
    assert small["options"] == {"threads": 1}
    assert "# a comment stays" in text
    assert "an old one" not in text


def test_a_rung_without_a_sample_keeps_what_it_has() -> None:
    assert tomllib.loads(with_canaries(TEXT, {"big": [[1.0]]}))["rung"][1]["canary"] == [[1.0, 2.0], [3.0]]


def test_twice_is_the_same_as_once() -> None:
    once = with_canaries(TEXT, {"small": [[7.5]]})
    assert with_canaries(once, {"small": [[7.5]]}) == once


@pytest.mark.parametrize("ladder", ["ladder", "ladder-int8"])
def test_the_example_ladders_take_it(ladder: str) -> None:
    text = (Path(__file__).parents[2] / "examples/defects" / ladder / "flyball-ladder.toml").read_text()
    names = [r["name"] for r in tomllib.loads(text)["rung"]]
    after = tomllib.loads(with_canaries(text, {name: [[0.5], []] for name in names}))
    assert [r["canary"] for r in after["rung"]] == [[[0.5], []]] * len(names)
