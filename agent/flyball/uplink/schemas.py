"""The JSON Schema of every payload, and the table of topics: the protocol's reference, made from its code.

Struct -> schemas() -> docs/protocol/<name>.json; TOPICS -> table() -> docs/protocol/README.md

    python -m flyball.uplink.schemas docs/protocol

Writes only when called so; a test keeps the files current.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from flyball.uplink import messages

MARKS = ("<!-- topics: made by python -m flyball.uplink.schemas -->", "<!-- end of topics -->")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`name` is the file's; `retain` says for how long where not for ever. Everything is QoS 1."""

    suffix: str
    name: str
    kind: type[msgspec.Struct]
    writer: str
    retain: str
    what: str


TOPICS = (
    Entry(suffix="status", name="status", kind=messages.Status, writer="device, and its will", retain="yes",
          what="presence: init, ready, sleeping, disconnected, lost"),
    Entry(suffix="birth", name="birth", kind=messages.Birth, writer="device", retain="yes",
          what="hardware, software, ladders, and every command with the JSON Schema of its arguments"),
    Entry(suffix="twin/desired", name="twin-desired", kind=messages.TwinDesired, writer="server", retain="yes",
          what="what the device is to be, as a whole"),
    Entry(suffix="twin/reported", name="twin-reported", kind=messages.TwinReported, writer="device", retain="yes",
          what="what it is, and what of the desired was refused"),
    Entry(suffix="cmd/TYPE/ID/req", name="command-request", kind=messages.Request, writer="server",
          retain="never; with expiry", what="an order"),
    Entry(suffix="cmd/TYPE/ID/st", name="command-state", kind=messages.CommandState, writer="device",
          retain="yes, 7 days", what="what became of it"),
    Entry(suffix="t/STREAM", name="telemetry", kind=messages.BatchMessage, writer="device", retain="no",
          what="a batch of records as columns"),
    Entry(suffix="e/KIND", name="event", kind=messages.EventMessage, writer="device", retain="no",
          what="a decision, a switch, a worker's restart, throttling, ..."),
    Entry(suffix="gap", name="gap", kind=messages.Gap, writer="device", retain="no",
          what="sequence numbers that will not come, and why"),
    Entry(suffix="a/ALARM", name="alarm", kind=messages.Alarm, writer="device", retain="yes",
          what="what is wrong now; an empty payload clears it"),
    Entry(suffix="sig/NAME", name="signal", kind=messages.Signal, writer="server", retain="no; 60 s",
          what="rebirth, sync, probe (the answer to e/probe)"),
    Entry(suffix="_server/ID/state", name="server-state", kind=messages.ServerState, writer="server, and its will",
          retain="yes", what="a fleet server's presence; `_server` stands in the device's place"),
)  # fmt: skip


def schemas() -> dict[str, dict[str, Any]]:
    """By file name without its end."""
    return {
        entry.name: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"{entry.suffix}, schema {messages.SCHEMA}",
            **msgspec.json.schema(_with_plain_defaults(entry.kind)),
        }
        for entry in TOPICS
    }


def _with_plain_defaults(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same but for defaults that are JSON text, which no schema can be made of."""
    fields = msgspec.structs.fields(kind)
    if not any(isinstance(f.default, msgspec.Raw) for f in fields):
        return kind
    plain: list[Any] = []
    for f in fields:
        if isinstance(f.default, msgspec.Raw):
            plain.append((f.name, Any, msgspec.field(default=msgspec.json.decode(f.default))))
        elif f.default_factory is not msgspec.NODEFAULT:
            plain.append((f.name, f.type, msgspec.field(default_factory=f.default_factory)))
        elif f.default is not msgspec.NODEFAULT:
            plain.append((f.name, f.type, msgspec.field(default=f.default)))
        else:
            plain.append((f.name, f.type))
    return msgspec.defstruct(kind.__name__, plain, kw_only=True, namespace={"__doc__": kind.__doc__})


def table() -> str:
    lines = ["| topic | writer | retained | what | schema |", "|---|---|---|---|---|"]
    lines += [f"| `{e.suffix}` | {e.writer} | {e.retain} | {e.what} | [{e.name}.json]({e.name}.json) |" for e in TOPICS]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Raises ValueError when the marks are not there."""
    before, _, rest = text.partition(MARKS[0])
    _, found, after = rest.partition(MARKS[1])
    if not found:
        raise ValueError(f"expected the lines {MARKS[0]} and {MARKS[1]}")
    return f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}"


def main(folder: Path) -> None:
    for name, schema in schemas().items():
        (folder / f"{name}.json").write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n")
    readme = folder / "README.md"
    readme.write_text(with_table(readme.read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
