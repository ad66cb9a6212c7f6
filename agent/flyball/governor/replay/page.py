"""Runs on one trace as an HTML page: a table of scores, and latency, rung, temperature and power over time.

Runs + scores -> flyball.plots -> page

The page holds everything that it shows: no script, nothing from the network. Of long traces each plot has some 600
points: of latency and temperature the highest of each stretch, of power the mean.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from html import escape

from flyball.governor.replay.run import Run
from flyball.governor.replay.score import Score
from flyball.plots import SERIES, STYLE, Line, lines

POINTS = 600
MOST_CHANGES = 200
_HOURS_FROM_S = 3 * 3600.0
_BROKEN = ' style="white-space: normal"'  # of heads, so that the last columns are seen without moving
_TEXT = ' style="text-align: left; white-space: normal"'  # sentences, which the style of figures would not break

Values = Sequence[float | None]
Fold = Callable[[Sequence[float]], float]


def page(runs: Sequence[Run], scores: Sequence[Score], names: Sequence[str] = ()) -> str:
    """Of runs on traces of equal length; limits are drawn of each that has its own. `names` stand for the policies'
    where two runs have the same."""
    names = names or [run.policy for run in runs]
    header = runs[0].trace.header
    title = f"{header.name}, seed {header.seed}: {header.ladder}"
    drawn = _drawn(runs, scores)
    limits = header.limits
    facts = [
        f"{len(runs[0].periods)} periods of {header.period_s:g} s",
        f"deadline {limits.deadline_s * 1e3:.1f} ms for {limits.quantile:.0%}" if limits.deadline_s else "",
        f"{limits.temperature_c:g} °C at most" if limits.temperature_c is not None else "",
        "simulated, from measured profiles; energy and power are estimates",
    ]
    legend = "".join(f'<span class="key s{i}"></span>{escape(names[k])}' for i, k in enumerate(drawn))
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f'<h1>{escape(title)}</h1><p class="dim">{escape(header.about)}<br>'
            f"{escape(' · '.join(fact for fact in facts if fact))}</p>",
            f'<div class="wide">{_table(names, scores)}</div><p>{legend}</p>',
            *_plots([runs[k] for k in drawn], [names[k] for k in drawn]),
            *_changes(runs[0], names[0]),
            "</body></html>\n",
        ]
    )


def _drawn(runs: Sequence[Run], scores: Sequence[Score]) -> list[int]:
    """As many as there are colours: of many, the static rungs but the best one are left to the table."""
    places = list(range(len(runs)))
    if len(runs) > SERIES:
        still = [k for k in places if runs[k].policy.startswith("static:")]
        best = max(still, key=lambda k: scores[k].worth, default=None)
        places = [k for k in places if k not in still or k == best]
    return places[:SERIES]


def row(score: Score) -> tuple[str, ...]:
    """For people, as HEADS says; "-" where there is nothing to judge by."""
    interval = score.violations_interval
    return (
        "-" if score.violations is None or interval is None
        else f"{score.violations:.2%} ({interval[0] * 100:.1f}-{interval[1] * 100:.1f})",
        "-" if score.accuracy is None else f"{score.accuracy:.2%}",
        "-" if score.on_time_accuracy is None else f"{score.on_time_accuracy:.2%}",
        "-" if score.joules_per_answer is None else f"{score.joules_per_answer * 1e3:.1f}",
        "-" if score.gross_joules_per_answer is None else f"{score.gross_joules_per_answer * 1e3:.0f}",
        f"{score.switches_per_h:.1f}",
        f"{score.throttled_s:.0f}",
        f"{score.over_cap_s:.0f}",
        "-" if score.recovery_s is None else f"{score.recovery_s:.1f}",
        "-" if score.prediction_error is None else f"{score.prediction_error:.0%}",
        "-" if score.regret is None else f"{score.regret:.4f}",
    )  # fmt: skip


HEADS = ("missed (95 %)", "accuracy", "on time", "mJ", "mJ gross", "switches/h", "throttled s", "over cap s",
         "recovery s", "p95 error", "regret")  # fmt: skip


def _table(names: Sequence[str], scores: Sequence[Score]) -> str:
    head = "".join(f"<th{_BROKEN}>{escape(h)}</th>" for h in ("policy", *HEADS))
    body = "".join(
        f"<tr><td{_BROKEN if ' ' in name else ''}>{escape(name)}</td>"
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in row(score))}</tr>"
        for name, score in zip(names, scores, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plots(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    first = runs[0].trace
    unit, size_s = ("h", 3600.0) if first.seconds >= _HOURS_FROM_S else ("min", 60.0)
    rungs = [rung.name for rung in first.header.rungs]
    places = {name: float(len(rungs) - 1 - i) for i, name in enumerate(rungs)}

    def over_time(values: Values, fold: Fold) -> list[tuple[float, float | None]]:
        width = max(1, -(-len(values) // POINTS))
        points: list[tuple[float, float | None]] = []
        for i in range(0, len(values), width):
            some = [value for value in values[i : i + width] if value is not None]
            at = i * first.header.period_s / size_s
            points.append((at, fold(some) if some else None))
        return points

    def own(of: Callable[[Run], Values], fold: Fold, stepped: bool = False) -> list[Line]:
        """The first run last, so that no other is drawn over it: the page is about that one."""
        drawn = [
            Line(name=name, kind=f"line s{i}", points=over_time(of(run), fold), stepped=stepped)
            for i, (name, run) in enumerate(zip(names, runs, strict=True))
        ]
        return drawn[::-1]

    def each(of: Callable[[Run], Values]) -> list[Values]:
        """Once, what is the same for several runs."""
        return [values for values in {tuple(of(run)): run for run in runs} if any(v is not None for v in values)]

    def limits(name: str, of: Callable[[Run], Values]) -> list[Line]:
        return [Line(name=name, kind="limit", points=over_time(v, min), stepped=True) for v in each(of)]

    def constant(value: float | None, factor: float = 1.0) -> Values:
        return [None if value is None else value * factor] * len(first.steps)

    latency = own(lambda r: [None if v is None else v * 1e3 for v in r.p95_s], max)
    latency += limits("deadline", lambda r: constant(r.trace.header.limits.deadline_s, 1e3))
    rung = own(lambda r: [places[p.rung] if p.rung is not None else None for p in r.periods], lambda v: v[-1], True)
    heat = own(lambda r: [p.temp_c for p in r.periods], max)
    heat += limits("limit", lambda r: constant(r.trace.header.limits.temperature_c))
    ambient = each(lambda r: [s.ambient_c for s in r.trace.steps])
    heat += [Line(name="ambient", kind="around", points=over_time(values, max)) for values in ambient]
    power = own(lambda r: [p.power_w for p in r.periods], statistics.fmean)
    power += limits("cap", lambda r: [s.power_cap_w or r.trace.header.limits.power_w for s in r.trace.steps])
    missed = own(lambda r: [100.0 * p.missed / p.arrivals if p.arrivals else None for p in r.periods], statistics.fmean)
    contention = [Line(name="contention", kind="around", points=over_time([s.contention for s in first.steps], max))]
    per_s = [step.arrivals / first.header.period_s for step in first.steps]
    load = [Line(name="requests", kind="around", points=over_time(per_s, statistics.fmean))]
    named = [(place, name) for name, place in places.items()]
    figures = [
        _figure("Latency", lines(latency, unit, "p95, ms"), "95th percentile of the window; dashed: the deadline."),
        _figure("Missed", lines(missed, unit, "late or refused, %"), ""),
        _figure("Rung", lines(rung, unit, "", named), "The active rung, strongest at the top."),
        _figure("Temperature", lines(heat, unit, "°C"), "Dashed: the limit; grey: the ambient."),
        _figure("Power", lines(power, unit, "W"), "Of the machine; dashed: the cap, where there is one."),
        _figure("Requests", lines(load, unit, "per second"), ""),
    ]
    if any(step.contention for step in first.steps):
        caption = "Foreign tasks that run or want to."
        figures.append(_figure("Contention", lines(contention, unit, "tasks per processor"), caption))
    return figures


def _changes(run: Run, name: str) -> list[str]:
    if not run.changes:
        return []
    start_s = run.trace.steps[0].t_s
    rows = "".join(
        f"<tr><td>{(c.t_s - start_s) / 60.0:.1f}</td><td>{escape(c.source or '-')}</td><td>{escape(c.target)}</td>"
        f"<td>{escape(c.binding)}</td>"
        f"<td{_TEXT}>{escape(c.reason + (f' (failed: {c.error})' if c.error else ''))}</td></tr>"
        for c in run.changes[:MOST_CHANGES]
    )
    more = len(run.changes) - MOST_CHANGES
    note = f'<p class="dim">and {more} more</p>' if more > 0 else ""
    heads = "".join(f"<th>{head}</th>" for head in ("min", "from", "to", "binding")) + f"<th{_TEXT}>reason</th>"
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return [f"<h2>Changes of rung: {escape(name)}</h2>", f'<div class="wide">{table}</div>{note}']


def _figure(title: str, svg: str, caption: str) -> str:
    return f"<h2>{escape(title)}</h2><figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
