"""The demo's live picture: what is active, how fast, how right, at what cost, and why. Values in, renderables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flyball.control_api import Status
from flyball.demo.stream import Sample
from flyball.ports import Decision, Reading

_BARS = "▁▂▃▄▅▆▇█"
_RECENT_S = 5.0
_CHART_COLUMNS = 60
_WIDTH = 100
_LOW = 24  # lines; on a lower terminal the empty lines go, and the older reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Everything that one picture shows. `joules` are gross, by rung, since the pictures began to flow."""

    elapsed_s: float
    total_s: float
    phase: str
    limit_s: float
    rungs: Sequence[str]
    samples: Sequence[Sample]
    now: Status
    decisions: Sequence[Decision]
    joules: Mapping[str, float]
    started_s: float

    @property
    def active(self) -> str:
        return self.now.ladders[0].status.active or "-"

    @property
    def now_s(self) -> float:
        return self.started_s + self.elapsed_s


def latencies(frame: Frame) -> tuple[float | None, float | None, float | None, float]:
    """p50, p95, p99 in seconds and answers per second, of the last five seconds."""
    recent = sorted(s.latency_s for s in frame.samples if s.t_s > frame.now_s - _RECENT_S and not s.error)
    span_s = min(_RECENT_S, frame.now_s - frame.started_s)
    if not recent or span_s <= 0:
        return None, None, None, 0.0
    pick = [recent[min(len(recent) - 1, int(q * len(recent)))] for q in (0.5, 0.95, 0.99)]
    return pick[0], pick[1], pick[2], len(recent) / span_s


def accuracy(samples: Sequence[Sample]) -> float | None:
    answered = [s for s in samples if not s.error]
    return sum(s.right for s in answered) / len(answered) if answered else None


def reading(frame: Frame, quantity: str) -> Reading | None:
    found = [r for r in frame.now.readings if r.quantity == quantity]
    return max(found, key=lambda r: r.value) if found else None


def watts(frame: Frame) -> str:
    power = reading(frame, "power")
    if power is None:
        return "no power figure"
    if power.scope == "estimated":
        return f"{power.value:.1f} W (no power sensor, estimated ±{(power.uncertainty or 0) * 100:.0f} %)"
    return f"{power.value:.2f} W ({power.scope})"


def line(frame: Frame) -> str:
    """The same in one line, for logs and pipes."""
    p50_s, p95_s, p99_s, rate = latencies(frame)
    share = accuracy(frame.samples)
    return (
        f"{frame.elapsed_s:5.1f} s  {frame.phase:<9} rung {frame.active:<12} p50/p95/p99 "
        f"{_ms(p50_s)}/{_ms(p95_s)}/{_ms(p99_s)} ms (limit {frame.limit_s * 1e3:.1f})  {rate:.1f} images/s  "
        f"accuracy {'-' if share is None else f'{share * 100:.2f} %'}  {watts(frame)}"
    )


def picture(frame: Frame, height: int = _LOW) -> RenderableType:
    """What was decided and why stands above the figures: a terminal of few lines cuts off the end."""
    low = height < _LOW
    parts = [_rungs(frame), _reasons(frame, 2 if low else 5), _figures(frame), _chart(frame)]
    gaps = parts if low else [part for one in parts for part in (one, Text())][:-1]
    return Panel(
        Group(*gaps),
        title=f"[bold]flyball demo[/]  {frame.elapsed_s:.0f} of {frame.total_s:.0f} s",
        subtitle=f"[bold]{frame.phase}[/]",
        width=_WIDTH,
    )


def _rungs(frame: Frame) -> RenderableType:
    text = Text("rung      ")
    for name in frame.rungs:
        text.append(f" {name} ", style="bold black on green" if name == frame.active else "dim")
        text.append(" ")
    return text


def _figures(frame: Frame) -> RenderableType:
    p50_s, p95_s, p99_s, rate = latencies(frame)
    share = accuracy(frame.samples)
    cpu, free, heat = (reading(frame, q) for q in ("cpu_utilization", "memory_available", "temperature"))
    broken = p95_s is not None and p95_s > frame.limit_s
    table = Table.grid(padding=(0, 2))
    table.add_row("latency", Text.assemble(
        "p50 ", _ms(p50_s), "  p95 ", (_ms(p95_s), "bold red" if broken else "bold green"), "  p99 ", _ms(p99_s),
        f" ms   limit {frame.limit_s * 1e3:.1f} ms (p95)",
    ))  # fmt: skip
    failures = sum(bool(s.error) for s in frame.samples)
    table.add_row("answers", f"{rate:.1f} images/s   {len(frame.samples)} so far, {failures} failed   accuracy "
                  + ("-" if share is None else f"{share * 100:.2f} %"))  # fmt: skip
    table.add_row("machine", "   ".join([
        "cpu -" if cpu is None else f"cpu {cpu.value * 100:.0f} %",
        "memory free -" if free is None else f"memory free {free.value / (1 << 30):.1f} GiB",
        "no temperature sensor" if heat is None else f"{heat.value:.0f} °C",
    ]))  # fmt: skip
    joules, answers = frame.joules.get(frame.active), sum(s.rung == frame.active for s in frame.samples)
    cost = "-" if joules is None or not answers else f"{joules / answers:.3f} J/inference gross"
    table.add_row("energy", f"{watts(frame)}   {cost}")
    return table


def _chart(frame: Frame) -> RenderableType:
    """The slowest answer of every second or so, against the limit."""
    width_s = max(1.0, frame.total_s / _CHART_COLUMNS)
    columns: dict[int, float] = {}
    for sample in frame.samples:
        column = int((sample.t_s - frame.started_s) / width_s)
        columns[column] = max(columns.get(column, 0.0), sample.latency_s)
    text = Text("slowest    ")
    top_s = 2 * frame.limit_s
    for column in range(max(columns, default=-1) + 1):
        value_s = columns.get(column)
        if value_s is None:
            text.append(" ")
            continue
        level = min(len(_BARS) - 1, int(value_s / top_s * len(_BARS)))
        text.append(_BARS[level], style="red" if value_s > frame.limit_s else "green")
    return text


def _reasons(frame: Frame, most: int) -> RenderableType:
    changes = [d for d in frame.decisions if d.source != d.target or d.error][-most:]
    lines: list[RenderableType] = [
        Text.assemble((f"{d.t_s - frame.started_s:6.1f} s ", "dim"), (f"{d.source} → {d.target}  ", "bold"), d.reason)
        for d in changes
    ]
    return Group(*(lines or [Text("no change of rung yet", style="dim")]))


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:.1f}"
