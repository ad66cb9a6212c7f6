"""A profile as one HTML page: tables and plots, in light and in dark.

Profile -> Pareto front -> plots.py -> page

The page holds everything that it shows: no script, nothing from the network. What is not valid is faded and says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from flyball.ladder.profile import Profile, RungProfile
from flyball.plots import STYLE, Bar, Point, bars, scatter

_SPEED = ("rung", "valid", "accuracy", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "bound ms", "per s", "rate", "load s")
_COST = ("rung", "memory MiB", "peak MiB", "°C max", "throttled s", "W", "scope", "idle W", "mJ gross", "mJ net",
         "FPS/W")  # fmt: skip


def page(profile: Profile) -> str:
    shown = [rung for rung in profile.rungs if rung.latency is not None]
    title = f"{profile.ladder} {profile.version} on {profile.machine.board}"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f'<h1>{escape(title)}</h1><p class="dim">{escape(_conditions(profile))}</p>',
        *_banner(profile),
        _table(_SPEED, [_speed(rung) for rung in profile.rungs]),
    ]
    if shown:
        parts += [*_pareto(shown), *_spread(shown), *_energy(shown)]
        parts += ["<h2>Memory, heat, power</h2>", _table(_COST, [_cost(rung) for rung in shown])]
    parts += _notes(profile)
    return "\n".join([*parts, "</body></html>\n"])


def front(rungs: Sequence[RungProfile]) -> set[str]:
    """The rungs that no other one beats: at least as good in accuracy, median latency and energy, and better in one.
    What is not known of any of them does not count; what is known of the one only speaks for neither."""
    return {r.name for r in rungs if r.latency and not any(_beats(other, r) for other in rungs if other is not r)}


def _beats(one: RungProfile, other: RungProfile) -> bool:
    if one.latency is None or other.latency is None:
        return False
    gains = [other.latency.p50_ms - one.latency.p50_ms]
    if one.accuracy is not None and other.accuracy is not None:
        gains.append(one.accuracy - other.accuracy)
    if one.energy is not None and other.energy is not None and one.energy.scope == other.energy.scope:
        gains.append(other.energy.gross_j - one.energy.gross_j)
    return min(gains) >= 0 and max(gains) > 0


def _conditions(profile: Profile) -> str:
    machine, setup = profile.machine, profile.setup
    facts = [
        profile.measured + ("" if profile.clock_synchronized else " (by a clock that is not synchronized)"),
        f"scenario {profile.scenario}, {profile.seconds:g} s a rung",
        f"input: {profile.inputs}",
        ", ".join(
            part for part in (machine.cpu or machine.soc, f"{machine.cpus} CPUs" if machine.cpus else "") if part
        ),
        f"{machine.arch}, Linux {machine.kernel}",
        f"power mode {machine.power_mode}" if machine.power_mode else "",
        f"CPU governor {machine.cpu_governor}" if machine.cpu_governor else "",
        f"{setup.lanes} lanes, {setup.slots} slots, threads: {setup.threads or 'as the rung says'}, wake: {setup.wake}",
        f"Flyball {profile.flyball}",
    ]
    return " · ".join(fact for fact in facts if fact)


def _banner(profile: Profile) -> list[str]:
    if profile.valid:
        return []
    return ['<p class="banner"><b class="no">Not valid.</b> At least one rung was not measured as it must be; '
            "its figures are shown faded, and what speaks against them stands below.</p>"]  # fmt: skip


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{title}</th>" for title in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _speed(rung: RungProfile) -> str:
    at, early = rung.latency, rung.early_stopping
    state = "skipped" if rung.skipped else "yes" if rung.valid else "no"
    figures = [
        None if rung.accuracy is None else f"{rung.accuracy:.2%}",
        *(_ms(value) for value in ((at.p50_ms, at.p90_ms, at.p95_ms, at.p99_ms) if at else (None,) * 4)),
        _ms(early.estimate_ms if early else None),
        _short(rung.throughput_per_s),
        _short(rung.rate_per_s),
        _short(rung.load_s),
    ]
    return _row([f"<td>{escape(rung.name)}</td>", f'<td class="{state}">{state}</td>'], figures)


def _cost(rung: RungProfile) -> str:
    spent = rung.energy
    figures = [
        *(_short(None if size is None else size / (1 << 20)) for size in (rung.rss_bytes, rung.peak_rss_bytes)),
        _short(rung.temperature_max_c),
        _short(rung.throttled_s),
        uncertain(spent.power_w, spent.uncertainty) if spent else None,
        spent.scope if spent else None,
        _short(spent.idle_w) if spent else None,
        _short(spent.gross_j * 1e3) if spent else None,
        uncertain(spent.net_j * 1e3, spent.net_uncertainty) if spent and spent.net_j is not None else None,
        _short(spent.fps_per_watt) if spent else None,
    ]
    return _row([f"<td>{escape(rung.name)}</td>"], figures)


def _row(cells: Sequence[str], figures: Sequence[str | None]) -> str:
    rest = "".join(f"<td>{'-' if figure is None else escape(figure)}</td>" for figure in figures)
    return f"<tr>{''.join(cells)}{rest}</tr>"


def _pareto(rungs: Sequence[RungProfile]) -> list[str]:
    rated = [rung for rung in rungs if rung.accuracy is not None]
    if not rated:
        return ['<h2>Accuracy, latency, energy</h2><p class="dim">The manifest gives no accuracy to compare by.</p>']
    best = front([rung for rung in rated if rung.valid] or rated)  # one that is not valid hides none that is
    most = max((r.energy.gross_j for r in rated if r.energy is not None), default=0.0)
    points = [
        Point(
            label=r.name,
            x=r.latency.p50_ms,
            y=r.accuracy,
            size=r.energy.gross_j / most if r.energy is not None else None,
            front=r.name in best,
            faded=not r.valid,
            tip=_tip(r),
        )
        for r in rated
        if r.latency is not None and r.latency.p50_ms > 0 and r.accuracy is not None
    ]
    plot = scatter(points, "median latency, ms", "accuracy", lambda v: f"{v * 100:.5g}%")
    return _figure("Accuracy, latency, energy", plot,
                   "The larger the mark, the more energy an inference takes. Joined by the line: rungs that no other "
                   "one beats in accuracy, median latency and energy together.")  # fmt: skip


def _spread(rungs: Sequence[RungProfile]) -> list[str]:
    rows = [
        Bar(label=r.name, faded=not r.valid, tip=_tip(r),
            filled=r.latency.p50_ms, ends=(r.latency.p90_ms, r.latency.p99_ms))
        for r in rungs if r.latency is not None
    ]  # fmt: skip
    return _figure("Latency", bars(rows, "ms: bar to the median, marks at the 90th and 99th percentile"), "")


def _energy(rungs: Sequence[RungProfile]) -> list[str]:
    found = [(rung, rung.energy) for rung in rungs if rung.energy is not None]
    if not found:
        return ['<h2>Energy</h2><p class="dim">There is no energy figure; the notes say why.</p>']
    rows = [
        Bar(label=rung.name, faded=not rung.valid, tip=_tip(rung),
            filled=None if energy.net_j is None else energy.net_j * 1e3, ends=(energy.gross_j * 1e3,))
        for rung, energy in found
    ]  # fmt: skip
    scopes = ", ".join(sorted({f"{energy.scope} ({energy.source})" for _, energy in found}))
    return _figure("Energy", bars(rows, "mJ per inference: bar without idle power, mark with it"), f"Scope: {scopes}.")


def _figure(title: str, svg: str, caption: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2><figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"]


def _tip(rung: RungProfile) -> str:
    facts = [rung.name, "" if rung.valid else "not valid"]
    if rung.accuracy is not None:
        facts.append(f"accuracy {rung.accuracy:.2%}")
    if rung.latency is not None:
        facts.append(f"p50 {_ms(rung.latency.p50_ms)} ms, p99 {_ms(rung.latency.p99_ms)} ms")
    if rung.energy is not None:
        facts.append(f"{_short(rung.energy.gross_j * 1e3)} mJ gross ({rung.energy.scope})")
    return "; ".join(fact for fact in facts if fact)


def _notes(profile: Profile) -> list[str]:
    lines = []
    for rung in profile.rungs:
        texts = [*rung.reasons, *(t for t in (rung.error, rung.skipped) if t), *rung.notes]
        if texts:
            lines.append(f"<li><b>{escape(rung.name)}</b>: {escape('; '.join(texts))}</li>")
    return [f"<h2>What to know of these figures</h2><ul>{''.join(lines)}</ul>"] if lines else []


def uncertain(value: float, relative: float | None) -> str:
    """For people: "5.12 ± 25%"; "?" where the uncertainty is not known."""
    return f"{_short(value)} ± {'?' if relative is None else f'{relative:.0%}'}"


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
