"""Plots as SVG text, and the style of the pages that show them, which need nothing from elsewhere.

points -> scales -> ticks, marks, lines and labels -> <svg>

Colours are the CSS classes of STYLE, in light and in dark. Text is escaped here. No script, nothing from the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

WIDTH, HEIGHT, LOW = 680, 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 16, 44
_NAMES = 140  # the same margin for all plots over time, so that they stand above each other
_ROW, _BAR = 34, 12
_APART = 14  # between two labels, so that both can be read
_SMALL, _LARGE = 5.0, 16.0  # radius of a mark

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --dim: #5d6873; --paper: #ffffff; --line: #dfe4e8; --mark: #2f6f9f;
  --front: #b3541e; --bad: #a3212b; --good: #1f7a3d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8eb; --dim: #9aa6b1; --paper: #15191d; --line: #30373e;
  --mark: #6fb1e0; --front: #f0965a; --bad: #ff8088; --good: #6fcf8f; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 76rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.dim, figcaption { color: var(--dim); } figure { margin: 1rem 0; } svg { width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; color: var(--dim); }
.no { color: var(--bad); font-weight: 600; } .yes { color: var(--good); }
.banner { border-left: 4px solid var(--bad); padding: .4rem 1rem; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .tick, svg .title { fill: var(--dim); }
svg .grid { stroke: var(--line); fill: none; }
svg .front { stroke: var(--front); fill: none; stroke-width: 1.5; stroke-dasharray: 4 3; }
svg circle { fill: var(--mark); fill-opacity: .55; stroke: var(--mark); }
svg .on-front circle { fill: var(--front); stroke: var(--front); }
svg .bar { fill: var(--mark); fill-opacity: .7; } svg .whisker { stroke: var(--ink); fill: none; stroke-width: 1.2; }
svg .faded { opacity: .55; } svg .faded circle { stroke-dasharray: 2 2; }
svg .line { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
svg .limit { fill: none; stroke: var(--bad); stroke-dasharray: 6 4; } svg .around { fill: none; stroke: var(--dim); }
.s0 { --line-mark: #2f6f9f; } .s1 { --line-mark: #b3541e; } .s2 { --line-mark: #1f7a3d; }
.s3 { --line-mark: #8a3ea8; } .s4 { --line-mark: #8a6d00; } .s5 { --line-mark: #c2185b; }
@media (prefers-color-scheme: dark) { .s0 { --line-mark: #6fb1e0; } .s1 { --line-mark: #f0965a; }
  .s2 { --line-mark: #6fcf8f; } .s3 { --line-mark: #c98be6; } .s4 { --line-mark: #d9b93f; }
  .s5 { --line-mark: #f48fb1; } }
svg .line { stroke: var(--line-mark); } .key { display: inline-block; width: 1.4em; height: .25em;
  vertical-align: middle; margin: 0 .4em 0 1em; background: var(--line-mark); }
"""
SERIES = 6  # classes s0 to s5

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`points` with rising x; None is a gap. `kind` is a CSS class: "line s0" to "line s5", "limit", "around". A
    `stepped` line keeps each value until the next."""

    name: str
    kind: str
    points: Sequence[tuple[float, float | None]]
    stepped: bool = False


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


def lines(
    series: Sequence[Line], x_title: str, y_title: str, y_ticks: Sequence[tuple[float, str]] = (), height: int = LOW
) -> str:
    """On linear axes; the y axis is as the values are, or has the given ticks alone (then none is at its edge)."""
    xs = [x for line in series for x, _ in line.points] or [0.0, 1.0]
    ys = [y for line in series for _, y in line.points if y is not None] or [0.0, 1.0]
    ys += [y for y, _ in y_ticks]
    left, right = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1.0
    spread = max(ys) - min(ys) or abs(max(ys)) or 1.0
    bottom, top = min(ys) - 0.06 * spread, max(ys) + 0.06 * spread

    def x(value: float) -> float:
        return _NAMES + (value - left) / (right - left) * (WIDTH - _NAMES - _RIGHT)

    def y(value: float) -> float:
        return height - _BOTTOM - (value - bottom) / (top - bottom) * (height - _TOP - _BOTTOM)

    marks = y_ticks or [(t, number(t)) for t in ticks(bottom, top, 5)]
    parts = [_x_tick(x(t), height, number(t)) for t in ticks(left, right, 10)]
    parts += [_y_tick(y(t), _cut(text), _NAMES) for t, text in marks]
    parts += _titles(height, x_title, y_title)
    for line in series:
        title = f"<title>{escape(line.name)}</title>"
        parts.append(f'<g class="{line.kind}">{title}<path class="{line.kind}" d="{_way(line, x, y)}"/></g>')
    return _svg(height, parts, f"{y_title} over {x_title}")


def _way(line: Line, x: Scale, y: Scale) -> str:
    parts, pen_down = [], False
    for at, value in line.points:
        if value is None:
            pen_down = False
        elif not pen_down:
            parts.append(f"M{x(at):.1f} {y(value):.1f}")
            pen_down = True
        else:
            parts.append(f"H{x(at):.1f}V{y(value):.1f}" if line.stepped else f"L{x(at):.1f} {y(value):.1f}")
    return "".join(parts)


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


def _y_tick(y: float, text: str, left: int = _LEFT) -> str:
    return (
        f'<path class="grid" d="M{left} {y:.1f}H{WIDTH - _RIGHT}"/>'
        f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
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
