"""Two batches become one: as many records as the larger had, nothing invented, every number accounted for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.uplink.columns import Cell
from flyball.uplink.messages import Batch
from flyball.uplink.thinning import MAX_THINNED, merge

CELLS = st.none() | st.decimals(-100, 100, places=2).map(float)


def batch(first: int, columns: dict[str, list[Cell]], **more: object) -> Batch:
    count = len(next(iter(columns.values())))
    values = {"epoch": "e", "boot": "b", "clk": "synced", **more}
    return Batch(first_seq=first, count=count, columns={n: tuple(c) for n, c in columns.items()}, **values)  # type: ignore[arg-type]


@given(st.lists(CELLS, min_size=1, max_size=70), st.lists(CELLS, min_size=1, max_size=70))
def test_the_larger_keeps_its_numbers_and_the_others_are_gone(one: list[Cell], other: list[Cell]) -> None:
    first, second = batch(0, {"x": one}), batch(len(one), {"x": other})
    merged = merge(first, second)
    assert merged is not None
    kept = {merged.batch.first_seq + i for i in range(merged.batch.count)}
    gone = set(range(merged.gone[0], merged.gone[1] + 1))
    assert merged.batch.count == max(len(one), len(other))
    assert kept | gone == set(range(len(one) + len(other)))
    assert not kept & gone
    values = [v for v in [*one, *other] if v is not None]
    for cell in merged.batch.columns["x"]:
        assert cell is None or min(values) <= cell <= max(values)  # type: ignore[operator,type-var]
    assert any(c is not None for c in merged.batch.columns["x"]) == bool(values)


def test_each_figure_becomes_what_it_means() -> None:
    merged = merge(
        batch(0, {"mono": [1.0, 2.0], "energy_j": [10.0, 12.0], "defects/errors": [1, None],
                  "defects/p99_s": [0.1, 0.9], "power_w": [1.0, 2.0],
                  "defects/rung": ["big", "small"], "throttled": ["", "heat"]}),
        batch(2, {"mono": [3.0, 4.0], "energy_j": [15.0, 19.0], "defects/errors": [2, 3], "defects/p99_s": [None, 0.2],
                  "power_w": [2.5, 3.1], "late": [7, 8], "throttled": ["heat,volts", ""]}),
    )  # fmt: skip
    assert merged is not None
    assert merged.batch.columns == {
        "mono": (2.0, 4.0),
        "energy_j": (12.0, 19.0),
        "defects/errors": (1, 5),
        "defects/p99_s": (0.9, 0.2),
        "power_w": (1.5, 2.8),
        "defects/rung": ("small", None),
        "throttled": ("heat", "heat,volts"),
        "late": (None, 8),
    }
    assert (merged.batch.thinned, merged.gone) == (2, (2, 3))


@pytest.mark.parametrize("other", [{"boot": "b2"}, {"clk": "unsynced"}, {"epoch": "e2"}, {"thinned": MAX_THINNED}])
def test_what_cannot_stand_as_one_stays_two(other: dict[str, object]) -> None:
    assert merge(batch(0, {"x": [1.0]}), batch(1, {"x": [2.0]}, **other)) is None
