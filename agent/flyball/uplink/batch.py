"""A batch of telemetry, as it travels on t/<stream> and as a table.

Batch (a cell per record in every column) -> encode -> JSON with packed columns, deflated -> decode -> Batch

Pure. Bounds everything that comes from outside: bytes inflated, records, columns, names, numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from flyball.errors import MessageError
from flyball.uplink import messages
from flyball.uplink.columns import MAX_INT, Cell, pack, unpack
from flyball.uplink.messages import Batch, BatchMessage, Encoded

MAX_RECORDS = 600
MAX_COLUMNS = 256
MAX_NAME = 128

Row = Mapping[str, Cell]


def encode(batch: Batch) -> Encoded:
    """Raises MessageError when it is larger than the protocol allows; half as many records may do."""
    _check(batch.count, batch.first_seq, batch.columns)
    fields = {f: getattr(batch, f) for f in Batch.__struct_fields__ if f != "columns"}
    packed = {}
    for name, cells in batch.columns.items():
        if len(cells) != batch.count:
            raise MessageError(f"columns.{name[:MAX_NAME]}: expected {batch.count} cells, found {len(cells)}")
        packed[name] = pack(cells)
    return messages.encode(BatchMessage(columns=packed, **fields))


def decode(payload: bytes, *, deflated: bool = False) -> Batch:
    """Raises MessageError that names what is wrong."""
    message = messages.decode(payload, BatchMessage, deflated=deflated)
    _check(message.count, message.first_seq, message.columns)
    columns = {}
    for name, column in message.columns.items():
        try:
            columns[name] = unpack(column, message.count)
        except MessageError as error:
            raise MessageError(f"columns.{name}: {error}") from None
    fields = {f: getattr(message, f) for f in BatchMessage.__struct_fields__ if f != "columns"}
    return Batch(columns=columns, **fields)


def mark_hist(encoded: Encoded) -> Encoded:
    """The same batch, told late."""
    message = messages.decode(encoded.payload, BatchMessage, deflated=encoded.deflated)
    return messages.encode(msgspec.structs.replace(message, hist=True))


def table(rows: Sequence[Row]) -> dict[str, tuple[Cell, ...]]:
    """Column name -> one cell per row, null where a row does not have it; in the order in which names appear."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row.get(name) for row in rows) for name in names}


def rows(batch: Batch) -> list[dict[str, Cell]]:
    """One mapping per record, without what was not measured."""
    return [
        {name: cells[i] for name, cells in batch.columns.items() if cells[i] is not None} for i in range(batch.count)
    ]


def _check(count: int, first_seq: int, columns: Mapping[str, object]) -> None:
    if not 1 <= count <= MAX_RECORDS:
        raise MessageError(f"count: expected 1 to {MAX_RECORDS}, found {count}")
    if not 0 <= first_seq <= MAX_INT - count:
        raise MessageError(f"first_seq: expected 0 to {MAX_INT - count}, found {first_seq}")
    if len(columns) > MAX_COLUMNS:
        raise MessageError(f"columns: expected at most {MAX_COLUMNS}, found {len(columns)}")
    for name in columns:
        if not 1 <= len(name) <= MAX_NAME:
            raise MessageError(f"columns: expected names of 1 to {MAX_NAME} characters, found {name[:MAX_NAME]!r}...")
