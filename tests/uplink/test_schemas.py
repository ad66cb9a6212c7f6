"""docs/protocol is what the code says, and the code's own messages keep to it."""

import json
from pathlib import Path

import pytest

from flyball.uplink.messages import Message
from flyball.uplink.record import LadderRecord, Record
from flyball.uplink.schemas import TOPICS, schemas, with_table
from flyball.uplink.topics import Device, parse

DOCS = Path(__file__).resolve().parents[2] / "docs/protocol"
HOW = "run  python -m flyball.uplink.schemas docs/protocol"


def test_the_schemas_are_current() -> None:
    present = {path.stem: json.loads(path.read_text()) for path in DOCS.glob("*.json")}
    assert present == json.loads(json.dumps(schemas())), HOW


def test_the_table_of_topics_is_current() -> None:
    text = (DOCS / "README.md").read_text()
    assert with_table(text) == text, HOW


@pytest.mark.parametrize("entry", TOPICS, ids=lambda e: e.name)
def test_every_topic_is_one_that_the_code_knows_and_its_payload_has_a_schema_version(entry) -> None:  # type: ignore[no-untyped-def]
    if not entry.suffix.startswith("_server"):
        assert parse(f"{Device('acme', 'edge-1').root}/{entry.suffix}")
    assert issubclass(entry.kind, Message) or "schema" in entry.kind.__struct_fields__


def test_every_column_is_explained() -> None:
    text = (DOCS / "README.md").read_text()
    missing = [f for f in Record.__struct_fields__ if f != "ladders" and f"`{f}`" not in text]
    missing += [f for f in LadderRecord.__struct_fields__ if f"`{f}`" not in text and f"LADDER/{f}`" not in text]
    assert missing == []
