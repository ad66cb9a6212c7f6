"""The live table on a small screen."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flyball_fleet.cli import frame
from flyball_fleet.view import Row


def row(i: int, state: str = "ready") -> Row:
    record = {"a-ladder-with-a-name/rung": "r112-fp32", "a-ladder-with-a-name/p95_s": 0.021, "power_w": 4.25}
    return Row(
        device=f"press-line-{i:03}", state=state, epoch="e", session=1, commands="verified", heard_at=990.0,
        record=dict(record) if state == "ready" else {}, alarms={"hot": "x"} if i == 7 else {},
        groups=("press", "hall2"),
    )  # fmt: skip


def screen(rows: list[Row], width: int, height: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    out.print(frame(rows, 1000.0, width, height))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 10), (200, 60)])
@pytest.mark.parametrize("number", [0, 1, 500])
def test_it_fits_and_says_what_it_leaves_out(number: int, width: int, height: int) -> None:
    rows = [row(i, "lost" if i == 300 else "stale" if i == 301 else "ready") for i in range(number)]
    lines = screen(rows, width, height)
    assert len(lines) <= height - 1
    assert max(map(len, lines)) <= width
    if number == 500:
        assert lines[0].startswith("500 devices: 1 lost, 1 stale, 498 ready")
        assert [line.split()[0] for line in lines[2:5]] == ["press-line-300", "press-line-301", "press-line-007"]
        left_out = 500 - (len(lines) - 3)
        assert lines[-1].startswith(f"{left_out} more")
    if number == 0:
        assert lines == ["no devices yet"]
