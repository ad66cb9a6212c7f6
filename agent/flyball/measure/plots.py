"""A profile's plots as SVG text, for a page that needs nothing from elsewhere.

points -> scales -> ticks, marks and labels -> <svg>

Colours are the page's CSS classes, so that light and dark are the page's business. Text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

WIDTH, HEIGHT = 680, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 16, 44
_ROW, _BAR = 34, 12
_APART = 14  # between two labels, so that both can be read
_SMALL, _LARGE = 5.0, 16.0  # radius of a mark

Scale: TypeAlias = Callable[[float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """`size` 0 to 1 is the mark's area; None: an empty mark. `tip` is shown when pointed at."""

    label: str
    x: float
    y: float
    size: float | None
    front: bool
    faded: bool
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One rung along an axis: a bar up to `filled` (None: none), then a line with a mark at each of the `ends`."""

    label: str
    filled: float | None
    ends: Sequence[float]
    faded: bool
    tip: str


def scatter(points: Sequence[Point], x_title: str, y_title: str, y_text: Callable[[float], str]) -> str:
    """Positive x on a logarithmic axis, y on a linear one; the front's points joined by a line."""
    lowest, highest = min(p.x for p in points) / 1.3, max(p.x for p in points) * 1.6
    spread = max(p.y for p in points) - min(p.y for p in points) or 0.01
    bottom, top = min(p.y for p in points) - 0.15 * spread, max(p.y for p in points) + 0.15 * spread
    log_low, log_high = math.log(lowest), math.log(highest)

    def x(value: float) -> float:
        return _LEFT + (math.log(value) - log_low) / (log_high - log_low) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - _TOP - _BOTTOM)

    parts = [_x_tick(x(t), HEIGHT, number(t)) for t in log_ticks(lowest, highest)]
    parts += [_y_tick(y(t), y_text(t)) for t in ticks(bottom, top)]
    parts += _titles(HEIGHT, x_title, y_title)
    line = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in sorted(points, key=lambda p: p.x) if p.front)
    parts.append(f'<polyline class="front" points="{line}"/>')
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (y(p.y), p.x)):
        parts.append(_mark(point, x(point.x), y(point.y), taken))
    return _svg(HEIGHT, parts, f"{y_title} against {x_title}")


def bars(rows: Sequence[Bar], x_title: str) -> str:
    """Values from 0 on a linear axis, one row each."""
    height = _TOP + _ROW * len(rows) + _BOTTOM
    highest = max([row.filled or 0.0 for row in rows] + [end for row in rows for end in row.ends]) * 1.05 or 1.0
    left = _LEFT + 60

    def x(value: float) -> float:
        return left + value / highest * (WIDTH - left - _RIGHT)

    parts = [_x_tick(x(t), height, number(t)) for t in ticks(0.0, highest)]
    parts += _titles(height, x_title, "")
    for i, row in enumerate(rows):
        middle = _TOP + _ROW * (i + 0.5)
        shape = [f"<title>{escape(row.tip)}</title>"]
        shape.append(f'<text class="name" x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">'
                     f"{escape(_cut(row.label))}</text>")  # fmt: skip
        if row.filled is not None:
            shape.append(f'<rect class="bar" x="{left}" y="{middle - _BAR / 2:.1f}" '
                         f'width="{x(row.filled) - left:.1f}" height="{_BAR}" rx="2"/>')  # fmt: skip
        before = row.filled or 0.0
        for end in row.ends:
            shape.append(f'<path class="whisker" d="M{x(before):.1f} {middle:.1f}H{x(end):.1f}m0 {-_BAR / 2}v{_BAR}"/>')
            before = end
        parts.append(f'<g class="{"faded" if row.faded else ""}">{"".join(shape)}</g>')
    return _svg(height, parts, x_title)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most so many."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * f for f in (1, 2, 5, 10, 20) if (high - low) / (step * f) <= most)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between two positive numbers; powers of ten alone where these are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 5 else (1, 2, 5)
    return [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]


def number(value: float) -> str:
    """Short, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _mark(point: Point, x: float, y: float, taken: list[tuple[float, float]]) -> str:
    radius = _SMALL if point.size is None else math.sqrt(_SMALL**2 + point.size * (_LARGE**2 - _SMALL**2))
    label_y = y + 4
    while any(abs(label_y - other_y) < _APART and abs(x - other_x) < 130 for other_x, other_y in taken):
        label_y += _APART
    taken.append((x, label_y))
    kind = " ".join(
        name for name, wanted in (("mark", True), ("on-front", point.front), ("faded", point.faded)) if wanted
    )
    return (
        f'<g class="{kind}"><title>{escape(point.tip)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        f'<text class="name" x="{x + radius + 5:.1f}" y="{label_y:.1f}">{escape(_cut(point.label))}</text></g>'
    )


def _cut(label: str) -> str:
    return label if len(label) <= 20 else f"{label[:18]}…"


def _x_tick(x: float, height: int, text: str) -> str:
    base = height - _BOTTOM
    return (
        f'<path class="grid" d="M{x:.1f} {_TOP}V{base}"/>'
        f'<text class="tick" x="{x:.1f}" y="{base + 16}" text-anchor="middle">{escape(text)}</text>'
    )


def _y_tick(y: float, text: str) -> str:
    return (
        f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
    )


def _titles(height: int, x_title: str, y_title: str) -> list[str]:
    middle = (_TOP + height - _BOTTOM) / 2
    return [
        f'<text class="title" x="{WIDTH / 2}" y="{height - 6}" text-anchor="middle">{escape(x_title)}</text>',
        f'<text class="title" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>",
    ]


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return f"{head}{''.join(parts)}</svg>"
