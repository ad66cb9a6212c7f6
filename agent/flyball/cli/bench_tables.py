"""What `flyball bench` shows of a profile in a terminal.

Profile -> a table of speed, a table of cost, then what speaks against figures and what else to know

Prints only. A figure that is not known is "-", never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from flyball.cli.terminal import Cell, mebibytes, milliseconds, out, percent, print_table
from flyball.ladder.profile import Energy, Profile, RungProfile


def show(profile: Profile) -> None:
    what = f"{profile.ladder} {profile.version} on {profile.machine.board}"
    out.print(Text.assemble((what, "bold"), f": {profile.scenario}, {profile.seconds:g} s a rung"), soft_wrap=True)
    out.print(f"input: {profile.inputs}", soft_wrap=True)
    shown = [r for r in profile.rungs if not r.skipped]
    bound = next((r.early_stopping for r in shown if r.early_stopping is not None), None)
    named = f"p{bound.percentile * 100:g} at most" if bound is not None else "bound"
    rate = ("?>rate",) if profile.scenario == "server" else ()
    columns: Sequence[str] = ("!rung", "valid", "?>accuracy", ">p50 ms", "?>p90 ms", ">p99 ms", f"?>{named}", ">per s",
                              *rate, "?>memory", "?>load ms")  # fmt: skip
    print_table(columns, [_speed(r, bool(rate)) for r in shown])
    spent = [(r.name, r.energy) for r in shown if r.energy is not None]
    if spent:
        out.print()
        columns = ("!rung", "power is", ">W", "?>idle W", ">mJ gross", ">mJ net", "?>FPS/W")
        print_table(columns, [_cost(name, energy) for name, energy in spent])
    lines = list(_remarks(profile.rungs))
    if lines:
        out.print()
    for line in lines:
        out.print(line, soft_wrap=True)


def _speed(rung: RungProfile, with_rate: bool) -> tuple[Cell, ...]:
    valid = Text("yes", "green") if rung.valid else Text("no", "red")
    found, early = rung.latency, rung.early_stopping
    bound = early.estimate_ms if early is not None else None
    latencies = (found.p50_ms, found.p90_ms, found.p99_ms, bound) if found is not None else (None,) * 4
    rate = (_figure(rung.rate_per_s),) if with_rate else ()
    return (rung.name, valid, percent(rung.accuracy), *map(_ms, latencies), _figure(rung.throughput_per_s), *rate,
            mebibytes(rung.rss_bytes), milliseconds(rung.load_s))  # fmt: skip


def _cost(name: str, energy: Energy) -> tuple[Cell, ...]:
    return (
        name,
        energy.scope,
        _uncertain(energy.power_w, energy.uncertainty),
        _figure(energy.idle_w),
        _figure(energy.gross_j * 1e3),
        "-" if energy.net_j is None else _uncertain(energy.net_j * 1e3, energy.net_uncertainty),
        _figure(energy.fps_per_watt),
    )


def _remarks(rungs: Sequence[RungProfile]) -> Iterator[Text]:
    """What speaks against figures and what else to know, each once with the rungs that it is about."""
    for head, style, texts in (
        ("not valid", "red", {r.name: r.reasons for r in rungs}),
        ("not measured", "red", {r.name: (r.error,) for r in rungs if r.error}),
        ("skipped", "yellow", {r.name: (r.skipped,) for r in rungs if r.skipped}),
        ("note", "dim", {r.name: r.notes for r in rungs}),
    ):
        tried = [r.name for r in rungs if not r.skipped]
        for text in dict.fromkeys(text for found in texts.values() for text in found):
            about = [name for name, found in texts.items() if text in found]
            names = "every rung" if about == tried and len(tried) > 1 else ", ".join(about)
            yield Text.assemble((head, style), f" ({names}): {text}")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _figure(value: float | None) -> str:
    """Three digits, as many as such a figure is good for."""
    return "-" if value is None else f"{value:#.3g}".rstrip(".") if value < 999.5 else f"{value:.0f}"


def _uncertain(value: float, relative: float | None) -> str:
    return f"{_figure(value)} ± {'?' if relative is None else f'{relative:.0%}'}"
