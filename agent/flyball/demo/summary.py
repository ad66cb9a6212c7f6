"""The demo's report as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flyball.demo.report import Report
from flyball.demo.stolen import matters


def summary(result: Report) -> RenderableType:
    scope = "no power sensor, estimated" if result.power_scope == "estimated" else result.power_scope
    rungs = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("rung", "time", "images", "p50 ms", "p95 ms", "accuracy", f"gross J/inference ({scope})"):
        rungs.add_column(column, justify="left" if column == "rung" else "right")
    for name, entry in result.rungs.items():
        rungs.add_row(
            name,
            f"{entry.share * 100:.0f} %",
            str(entry.requests),
            _figure(entry.p50_ms, 1),
            _figure(entry.p95_ms, 1),
            _percent(entry.accuracy),
            _figure(entry.j_per_inference, 3),
        )
    switches = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("at s", "from", "to", "why"):
        switches.add_column(column)
    for switch in result.switches:
        switches.add_row(f"{switch.t:.1f}", switch.source, switch.target, switch.reason)
    failures = Text(str(result.failures), style="bold red" if result.failures else "bold green")
    energy = "no energy figure" if result.energy_j is None else f"{result.energy_j:.1f} J gross ({scope})"
    head = Text.assemble(
        f"{result.requests} requests in {result.seconds:.0f} s, failed: ", failures,
        f", accuracy {_percent(result.accuracy)}, limit {result.latency_limit_ms:.1f} ms, {energy}",
    )  # fmt: skip
    parts: list[RenderableType] = [Text(), head, Text(), rungs, Text()]
    if matters(result.cpu_stolen) or matters(result.cpu_stolen_after):
        parts[2:2] = [Text(stolen(result), style="yellow")]
    parts.append(switches if result.switches else Text("no change of rung"))
    if result.ended_on and result.ended_on != next(iter(result.rungs)):
        parts.append(Text(f"at the end on {result.ended_on}: {result.ended_because}", style="yellow"))
    return Group(*parts, *(Text(error, style="red") for error in result.errors))


def stolen(result: Report) -> str:
    after = result.cpu_stolen_after
    since = "" if after is None else f", {after * 100:.0f} % after the load went"
    return f"{kept_back(result.cpu_stolen)}{since}: answers may have been late, and rungs left, for that alone"


def kept_back(share: float | None) -> str:
    part = "an unknown part" if share is None else f"{share * 100:.0f} %"
    return f"the host of this machine kept back {part} of the processor time that was asked for"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.2f} %"
