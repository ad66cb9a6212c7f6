"""Devices as rows of a table for people, and what does not fit a table.

view.Row -> cells, lines. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from flyball.cli.terminal import Cell, duration
from flyball_fleet.view import Row

COLUMNS = ("!device", "state", ">heard", "rung", ">p95 ms", "?>rate/s", ">W", "?>C", "?>lost", "?alarms", "?groups")
COLOURS = {"ready": "green", "stale": "yellow", "lost": "red", "init": "cyan"}
MOST = 1e9  # beyond it no figure of a machine
URGENCY = ("lost", "stale", "unknown", "init", "disconnected", "sleeping", "ready")


def plain(text: str, most: int = 2000) -> str:
    """One line of what a device has said: whatever moves a cursor, changes colours or reverses the direction of
    writing is shown as an escape."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most])
    return shown if len(text) <= most else f"{shown}... ({len(text)} characters)"


def cells(row: Row, now: float) -> tuple[Cell, ...]:
    rungs = ladders(row)
    first = rungs[0] if rungs else ("", "-")
    more = f" +{len(rungs) - 1}" if len(rungs) > 1 else ""
    lost = row.gap_records + row.missing_records
    return (
        row.device,
        Text(row.state, style=COLOURS.get(row.state, "dim")),
        "-" if row.heard_at is None else duration(max(0.0, now - row.heard_at)),
        f"{plain(first[1], 64)}{more}",
        number(row, f"{first[0]}/p95_s", 1e3, 1),
        number(row, f"{first[0]}/rate_hz", 1, 1),
        number(row, "power_w", 1, 2),
        number(row, "temperature_c", 1, 0),
        str(lost) if lost else "-",
        Text(", ".join(sorted(row.alarms)), style="red") if row.alarms else "-",
        ", ".join(row.groups) or "-",
    )


def ladders(row: Row) -> list[tuple[str, str]]:
    """Ladder and active rung, as the last record has them."""
    found = [(name.removesuffix("/rung"), str(cell)) for name, cell in row.record.items() if name.endswith("/rung")]
    return sorted(found)


def number(row: Row, field: str, scale: float, digits: int) -> str:
    cell = row.record.get(field)
    if not isinstance(cell, int | float):
        return "-"
    value = float(cell) * scale
    return f"{value:.{digits}f}" if abs(value) < MOST else f"{value:.1e}"


def summary(rows: Sequence[Row]) -> str:
    """ "41 devices: 2 lost, 1 stale, 38 ready; 154 W measured on 38"."""
    counts = [(state, sum(r.state == state for r in rows)) for state in URGENCY]
    states = ", ".join(f"{n} {state}" for state, n in counts if n)
    watts = [r.record["power_w"] for r in rows if isinstance(r.record.get("power_w"), int | float)]
    power = f"; {sum(float(w) for w in watts if w is not None):.1f} W measured on {len(watts)}" if watts else ""
    raised = sum(bool(r.alarms) for r in rows)
    alarms = f"; alarms on {raised}" if raised else ""
    return f"{len(rows)} device{'' if len(rows) == 1 else 's'}: {states}{alarms}{power}" if rows else "no devices yet"


def urgent_first(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda r: (URGENCY.index(r.state) if r.state in URGENCY else 0, not r.alarms, r.device))
