"""Packed columns give back the cells that went in, and hostile ones are refused."""

import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import MessageError
from flyball.uplink import batch, messages
from flyball.uplink.columns import Cell, Column, pack, unpack
from flyball.uplink.messages import MAX_INFLATED, Batch, encode

CELLS = (
    st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.decimals(-10000, 10000, places=3).map(float)
)
COLUMNS = (
    st.lists(CELLS, min_size=1, max_size=70)
    | st.lists(st.none() | st.decimals(-(10**6), 10**6, places=3).map(float), min_size=1, max_size=70)
    | st.lists(st.none() | st.integers(-(2**60), 2**60), min_size=1, max_size=70)
    | st.lists(st.none() | st.sampled_from(["big", "small"]), min_size=1, max_size=70)
    | st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=70)
)


def wire(columns: object, count: object = 3, first_seq: object = 0, **more: object) -> bytes:
    header = {"schema": 1, "epoch": "e", "first_seq": first_seq, "count": count, "boot": "b", "clk": "synced"}
    return json.dumps({**header, "columns": columns, **more}).encode()


@given(COLUMNS)
def test_cells_come_back_exactly(cells: list[Cell]) -> None:
    back = unpack(pack(cells), len(cells))
    assert back == tuple(cells)
    assert [type(c) for c in back] == [type(c) for c in cells]


@given(st.dictionaries(st.text(min_size=1, max_size=20), COLUMNS, max_size=8), st.integers(0, 2**52), st.booleans())
def test_a_batch_comes_back_over_the_wire(columns: dict[str, list[Cell]], first: int, hist: bool) -> None:
    count = min(map(len, columns.values()), default=1)
    sent = Batch(
        epoch="e",
        first_seq=first,
        count=count,
        boot="b",
        clk="unsynced",
        hist=hist,
        columns={name: tuple(cells[:count]) for name, cells in columns.items()},
    )
    encoded = batch.encode(sent)
    assert batch.decode(encoded.payload, deflated=encoded.deflated) == sent
    late = batch.mark_hist(encoded)
    assert batch.decode(late.payload, deflated=late.deflated).hist


def test_a_steady_count_costs_next_to_nothing() -> None:
    column = pack([1700000000.0 + i for i in range(60)])
    assert isinstance(column, Column)
    assert len(messages.encode(column).payload) < 160
    assert len(zlib.compress(messages.encode(column).payload)) < 50


def test_noise_around_a_value_is_offsets_and_a_slope_is_deltas() -> None:
    noise = random.Random(1)
    flat = pack([round(50 + noise.gauss(0, 2), 1) for _ in range(60)])
    slope = pack([round(50 + 3.7 * i + noise.gauss(0, 0.2), 1) for i in range(60)])
    assert isinstance(flat, Column)
    assert isinstance(slope, Column)
    assert flat.o
    assert slope.d
    assert 30 < slope.s < 45


def test_what_is_not_finite_was_not_measured() -> None:
    assert unpack(pack([1.5, float("nan"), float("inf"), 2.5]), 4) == (1.5, None, None, 2.5)


def test_a_field_that_came_later_is_null_before() -> None:
    rows: list[dict[str, Cell]] = [{"a": 1}, {"a": 2, "b": 2.5}, {"b": 3.5}]
    table = batch.table(rows)
    assert table == {"a": (1, 2, None), "b": (None, 2.5, 3.5)}
    sent = Batch(epoch="e", first_seq=0, count=3, boot="b", clk="synced", columns=table)
    encoded = batch.encode(sent)
    assert batch.rows(batch.decode(encoded.payload, deflated=encoded.deflated)) == rows


def test_plain_lists_are_columns_too() -> None:
    assert batch.decode(wire({"a": [1, 2.5, None]})).columns == {"a": (1, 2.5, None)}


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (wire({"a": [1, 2]}), "columns.a: expected 3 cells, found 2"),
        (wire({"a": {"d": [1, 2]}}), "columns.a: expected 3 cells, found 2"),
        (wire({"a": {"d": [1, 2, 3], "o": [1, 2, 3]}}), "columns.a: expected one of c, d, o, i, found 2"),
        (wire({"a": {}}), "expected one of c, d, o, i, found 0"),
        (wire({"a": {"w": ["x"], "i": [0, 0, 1]}}), "columns.a: word 1: expected 0 to 0"),
        (wire({"a": {"w": ["x"], "i": [0, 0, -1]}}), "columns.a: word -1"),
        (wire({"a": {"o": [0, 0, 2**63]}}), r"\$\.columns"),
        (wire({"a": {"k": 400, "o": [0, 0, 1]}}), r"\$\.columns"),
        (wire({"a": {"z": 10**9, "o": [0, 0, 1]}}), r"\$\.columns"),
        (wire({"a": {"x": 1}}), r"\$\.columns"),
        (wire({"a": {"c": 1}}, count=601), "count: expected 1 to 600, found 601"),
        (wire({"a": {"c": 1}}, count=0), "count: expected 1 to 600, found 0"),
        (wire({"a": {"c": 1}}, count=-1), "count: expected 1 to 600"),
        (wire({"a": {"c": 1}}, count=2**63), r"count|range"),
        (wire({"a": {"c": 1}}, first_seq=-1), "first_seq"),
        (wire({"a": {"c": 1}}, first_seq=2**53), "first_seq"),
        (wire({f"c{n}": {"c": 1} for n in range(257)}), "columns: expected at most 256, found 257"),
        (wire({"n" * 129: {"c": 1}}), "names of 1 to 128"),
        (wire({"": {"c": 1}}), "names of 1 to 128"),
        (wire({}, clk="maybe"), r"\$\.clk"),
        (wire([]), r"\$\.columns"),
        (b"\xff", "malformed"),
    ],
)
def test_hostile_batches_are_refused_with_the_place(payload: bytes, complaint: str) -> None:
    with pytest.raises(MessageError, match=complaint):
        batch.decode(payload)


def test_a_bomb_is_refused_before_it_is_read() -> None:
    with pytest.raises(MessageError, match="inflated"):
        batch.decode(zlib.compress(b" " * (MAX_INFLATED + 1)), deflated=True)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_batch_or_refused(payload: bytes, deflated: bool) -> None:
    try:
        batch.decode(payload, deflated=deflated)
    except MessageError as error:
        assert str(error)  # noqa: PT017  # any other exception fails the test


def test_a_batch_with_columns_of_several_lengths_is_not_sent() -> None:
    with pytest.raises(MessageError, match=r"columns\.b: expected 2 cells, found 1"):
        batch.encode(Batch(epoch="e", first_seq=0, count=2, boot="b", clk="synced", columns={"a": (1, 2), "b": (1,)}))


def test_a_batch_as_a_plain_message_is_understood() -> None:
    sent = Batch(epoch="e", first_seq=5, count=2, boot="b", clk="synced", columns={"a": (1, None)})
    encoded = encode(sent)
    assert batch.decode(encoded.payload, deflated=encoded.deflated) == sent
