"""`flyball explain`: why a ladder is on its rung, what stands in the way of a better one, and what changed lately.

control socket -> Decisions of one ladder -> sentences, a table of the rungs, the changes

Tells only what the governor said and measured: what is not known is a dash. Decides nothing.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from flyball.cli.terminal import (
    Cell,
    ConfigOption,
    JsonOption,
    SocketOption,
    client,
    duration,
    mebibytes,
    milliseconds,
    out,
    percent,
    print_json,
    print_table,
    seconds,
)
from flyball.clock import SystemClock
from flyball.ports import Candidate, Decision, Pin

_ALL_KEPT = 10_000  # decisions; the daemon keeps far fewer
_CONSTRAINTS = ("latency", "temperature", "memory", "power", "energy", "accuracy")
_COLUMNS = ("", "!rung", ">accuracy", ">p95 ms", ">late", ">power", "?>temp", "ruled out by")

_MEASURED: Mapping[str, Callable[[float], str]] = {
    "latency_p95_s": lambda v: f"p95 {milliseconds(v)} ms",
    "late": lambda v: f"{percent(v)} late",
    "arrivals_per_s": lambda v: f"{v:.1f} requests/s",
    "contention": lambda v: f"{v:.1f} other tasks per processor",
    "temperature_c": lambda v: f"{v:.1f} °C",
    "power_w": lambda v: f"{v:.2f} W",
    "memory_available_bytes": lambda v: f"{mebibytes(v)} free",
}
_LIMITS: Mapping[str, Callable[[float], str]] = {
    "limit_deadline_s": lambda v: f"answers within {milliseconds(v)} ms",
    "limit_temperature_c": lambda v: f"{v:g} °C",
    "limit_power_w": lambda v: f"{v:g} W",
    "limit_memory_available_bytes": lambda v: f"{mebibytes(v)} free",
}


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """`changes` are those of the time asked for, the newest first; `last` is None before the first decision."""

    ladder: str
    mode: str
    active: str | None
    pin: Pin | None
    last: Decision | None
    changes: tuple[Decision, ...]


def explain(
    ladder: Annotated[str, typer.Argument(help="A ladder in service.")],
    since: Annotated[str, typer.Option(help="How far back changes are told: 90s, 10m, 2h.")] = "10m",
    changes: Annotated[bool, typer.Option("--changes", help="Tell the changes only.")] = False,
    socket: Annotated[Path | None, SocketOption] = None,
    config: Annotated[Path | None, ConfigOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Say why a ladder is on its rung, what rules the others out, and what was changed lately and what came of it.

    The governor remembers the last 128 changes of a ladder, as long as the daemon runs.

    Example: flyball explain defects --since 2h
    """
    span_s = seconds(since)
    connection = client(socket, config)
    decisions = connection.decisions(ladder, _ALL_KEPT)
    now = connection.status()
    now_s = SystemClock().monotonic_s()  # the daemon's times are this machine's
    made = changed(decisions)
    recent = [d for d in made if d.t_s >= now_s - span_s]
    told = Explanation(
        ladder=ladder,
        mode=now.mode,
        active=next((v.status.active for v in now.ladders if v.status.name == ladder), None),
        pin=next((p for p in now.pins if p.ladder == ladder), None),
        last=decisions[-1] if decisions else None,
        changes=tuple(reversed(recent)),
    )
    if as_json:
        print_json(told)
        return
    if not changes:
        _tell_present(told, made, now_s)
        out.print()
    _tell_changes(told, made, now_s, span_s)


def changed(decisions: Sequence[Decision]) -> list[Decision]:
    """Of a ladder's decisions, the newest last, those to change something: made, failed, or (where the governor only
    observes) wished, once."""
    found: list[Decision] = []
    before: Decision | None = None
    for decision in decisions:
        again = before is not None and (before.action, before.target) == (decision.action, decision.target)
        if decision.action != "stay" and (decision.acted or decision.error or not again):
            found.append(decision)
        before = decision
    return found


# -------------------------------------------------------------------------------------------------------- the present


def _tell_present(told: Explanation, made: Sequence[Decision], now_s: float) -> None:
    last, active = told.last, told.active
    since = next((d for d in reversed(made) if d.acted and d.target == active and d.source != d.target), None)
    title = Text.assemble((told.ladder, "bold"), " is on " if active else " has no active rung", (active or "", "bold"))
    if since is not None:
        title.append(f" since {duration(max(0.0, now_s - since.t_s))}")
    out.print(title.append(f"; the governor's mode is {told.mode}"))
    if told.pin is not None:
        _line("pin", _held(told.pin, now_s))
    if last is None:
        _line("now", "nothing has been decided yet")
        return
    if since is not None and since is not last:
        _line("why", since.reason)
    _line("now", _sentence(last))
    better = next_better(last, active, told.mode)
    if better is not None and better.ruled_out_by not in last.reason:
        _line("next", f"{better.rung} would be better; {better.ruled_out_by}")
    inputs = figures(last.inputs)
    if inputs:
        _line("seen", f"{inputs} ({duration(max(0.0, now_s - last.t_s))} ago)")
    limits = ", ".join(say(last.inputs[key]) for key, say in _LIMITS.items() if key in last.inputs)
    if limits:
        _line("limits", limits)
    if last.candidates:
        out.print()
        print_table(_COLUMNS, [_row(c, last) for c in last.candidates])
        for candidate in last.candidates:
            if candidate.ruled_out_by:
                _print(f"  {candidate.rung}: ", candidate.ruled_out_by, hang=4)


def next_better(last: Decision, active: str | None, mode: str) -> Candidate | None:
    """The least of the rungs that are more accurate than the active one, where something rules it out. In other modes
    better is something else, which the reason says."""
    here = next((c for c in last.candidates if c.rung == active), None)
    if here is None or here.accuracy is None or mode in ("energy-first", "throughput-first"):
        return None
    more = [c for c in last.candidates if c.accuracy is not None and c.accuracy > here.accuracy]
    nearest = min(more, key=lambda c: c.accuracy or 0.0, default=None)
    return nearest if nearest is not None and nearest.ruled_out_by else None


def _held(pin: Pin, now_s: float) -> str:
    until = "until released" if pin.until_s is None else f"for {duration(max(0.0, pin.until_s - now_s))} more"
    return f"held on {pin.rung} {until}" + (", against the limits of temperature and memory too" if pin.force else "")


def _sentence(decision: Decision) -> str:
    moved = decision.source != decision.target
    if not moved:
        return f"stays: {decision.reason}"
    failed = f" failed ({decision.error})" if decision.error else "" if decision.acted else " advised only"
    return f"{decision.source or 'none'} -> {decision.target}{failed}: {decision.reason}"


def figures(values: Mapping[str, float]) -> str:
    """What was measured, in words; what was not is left out."""
    return ", ".join(say(values[key]) for key, say in _MEASURED.items() if key in values)


def _row(candidate: Candidate, last: Decision) -> tuple[Cell, ...]:
    mark = Text("●", "green") if candidate.rung == last.source else Text("→") if candidate.rung == last.target else ""
    head = candidate.ruled_out_by.partition(":")[0]
    return (
        mark,
        candidate.rung,
        percent(candidate.accuracy),
        milliseconds(candidate.predicted_p95_s),
        percent(candidate.predicted_late),
        "-" if candidate.predicted_power_w is None else f"{candidate.predicted_power_w:.2f} W",
        "-" if candidate.predicted_temperature_c is None else f"{candidate.predicted_temperature_c:.1f} °C",
        head if head in _CONSTRAINTS else "cannot be had" if head else "",
    )


# -------------------------------------------------------------------------------------------------------- the changes


def _tell_changes(told: Explanation, made: Sequence[Decision], now_s: float, span_s: float) -> None:
    if not told.changes:
        older = f"; the last one was {duration(now_s - made[-1].t_s)} ago" if made else ""
        out.print(f"{told.ladder}: no changes in the last {duration(span_s)}{older}")
        return
    out.print(Text(f"changes of {told.ladder} in the last {duration(span_s)}, the newest first", "bold"))
    for decision in told.changes:
        _tell_change(decision, now_s)


def _tell_change(decision: Decision, now_s: float) -> None:
    at = time.strftime("%H:%M:%S", time.localtime(decision.wall_s))
    moved = decision.source != decision.target
    what = f"{decision.source or 'none'} -> {decision.target}" if moved else f"held on {decision.source or 'none'}"
    if decision.error:
        what += f" failed ({decision.error})"
    elif moved and not decision.acted:
        what += " advised only"
    ago = f"  ({duration(max(0.0, now_s - decision.t_s))} ago)"
    binding = f"  {decision.binding}" if decision.binding else ""
    out.print(Text.assemble(f"{at}  ", (what, "bold"), binding, (ago, "dim")), soft_wrap=True)
    _print("    why:  ", decision.reason + (" (it was predicted to hold)" if decision.unforeseen else ""), hang=10)
    outcome = figures(decision.outcome)
    if outcome:
        _print("    then: ", outcome, hang=10)


# ------------------------------------------------------------------------------------------------------------ printing


def _line(name: str, text: str) -> None:
    _print(f"  {name}:".ljust(10), text, hang=10)


def _print(head: str, body: str, hang: int) -> None:
    """Wrapped, further lines indented by `hang`, where somebody reads; whole where a program does."""
    if not (out.is_terminal or "COLUMNS" in os.environ):
        out.print(Text.assemble((head, "bold"), body), soft_wrap=True)
        return
    first, *rest = textwrap.wrap(
        body or "-",
        max(out.width, 40),
        initial_indent=" " * len(head),
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    out.print(Text.assemble((head, "bold"), first[len(head) :]), soft_wrap=True)
    for line in rest:
        out.print(line, soft_wrap=True)
