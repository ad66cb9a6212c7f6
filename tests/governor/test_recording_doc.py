"""docs/replay.md on recordings: its example is read by what reads recordings, and no field is left out of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from flyball.errors import ConfigError
from flyball.governor.recording import Begun, Done, Ended, Line, Looked
from flyball.governor.replay.recorded import check
from flyball.governor.replay.trace import kind_of
from flyball.governor.values import LadderView, Limits, Machine, Rung, Seen, View
from flyball.ports import Decision

TEXT = (Path(__file__).resolve().parents[2] / "docs/replay.md").read_text()
SECTION = TEXT.partition("\n## A recording as a file\n")[2].partition("\n## ")[0]
EXAMPLE = re.search(r"```jsonl\n(.*?)```", SECTION, re.DOTALL)
KINDS = (Begun, Looked, Done, Ended, View, Machine, LadderView, Rung, Seen, Limits, Decision)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    assert EXAMPLE is not None, "docs/replay.md has an example of a recording"
    file = tmp_path / "example.jsonl"
    file.write_text(EXAMPLE[1])
    return file


def test_the_example_is_a_recording_with_every_kind_of_line(example: Path) -> None:
    assert kind_of(example) == "recorded"
    found = check(example)
    assert (found.looks, found.decisions, found.changes) == (1, 1, 1)
    assert found.ended == "the reader was too slow"
    assert not found.cut


def test_what_the_example_leaves_out_was_not_known(example: Path) -> None:
    line = next(line for line in example.read_bytes().splitlines() if line.startswith(b'{"kind":"looked"'))
    view = msgspec.json.decode(line, type=Looked).view
    assert view.machine.power_w is None
    assert view.machine.memory_pressure is None
    assert view.ladders[0].limits.power_w is None
    assert view.ladders[0].limits.quantile == 0.95


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_named(kind: type[msgspec.Struct]) -> None:
    named = set(re.findall(r"`([a-z_0-9]+)(?:\[\])?`", SECTION.replace(EXAMPLE[1] if EXAMPLE else "", "")))
    assert [field.name for field in msgspec.structs.fields(kind) if field.name not in named] == []


def test_a_misspelt_field_of_the_example_would_be_seen(example: Path) -> None:
    example.write_text(example.read_text().replace('"now_s":812.4', '"nows":812.4'))
    with pytest.raises(ConfigError, match=r"example\.jsonl:2: .*now_s"):
        check(example)


def unknown(given: object, read: object, way: str = "") -> list[str]:
    """The keys of the example that no field took; maps whose keys are the user's are equal on both sides."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [found for key in given for found in
                ([f"{way}.{key}"] if key not in read else unknown(given[key], read[key], f"{way}.{key}"))]  # fmt: skip
    if isinstance(given, list) and isinstance(read, list):
        pairs = zip(given, read, strict=True)
        return [found for i, (one, other) in enumerate(pairs) for found in unknown(one, other, f"{way}[{i}]")]
    return [] if given == read else [f"{way}: {given!r} was read as {read!r}"]


def test_the_example_has_no_field_that_is_none(example: Path) -> None:
    for line in example.read_bytes().splitlines():
        read = msgspec.json.encode(msgspec.json.decode(line, type=Line))
        assert unknown(json.loads(line), json.loads(read)) == []
