"""The demonstration itself: the real daemon, pictures at a steady pace, load beside it, and a report.

private daemon -> measure the rungs -> limit = 1.5 x the p95 of the top one -> pictures flow -> load comes -> load goes

Everything that is decided is decided by the daemon; this module only sets the scene, watches and reports.
"""

from __future__ import annotations

import io
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live
from rich.progress import track

from flyball.client import Client
from flyball.demo.burners import Burners
from flyball.demo.pictured import example_ladder, usable
from flyball.demo.private_daemon import private_daemon, set_limit, short_place
from flyball.demo.report import Report, Spending, report
from flyball.demo.stolen import matters, quietest, stolen_since
from flyball.demo.stream import Picture, Stream, ask, pictures
from flyball.demo.summary import kept_back, summary
from flyball.demo.view import Frame, line, picture
from flyball.errors import ConfigError, FlyballError
from flyball.ports import Decision
from flyball.sensing.sensors.host import CpuUtilization

MEASURE_S = 3.0
# Looks at the top rung, a second and a half each, where a hypervisor robs them: its p95 is the limit of the whole run.
MOST_LOOKS, MOST_SHARE = 8, 0.25  # the latter of the demonstration's time
LOAD_FROM, LOAD_UNTIL = 0.2, 0.45  # of the time in which pictures flow
SETTLE_S = 2.0  # on the top rung, until the daemon knows the pictures' pace: it remembers that of the measuring
LIMIT_FACTOR = 1.5
BUSY = 0.6  # of one core, by the top rung alone: the pace at which a rival for the core is felt
RATE_MAX_HZ = 60.0
BURNERS_PER_CORE = 3  # weaker load does not hurt a sleeping single-threaded worker: the scheduler favours it
_PICTURES = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """`burners`: None = the usual 3 for each core, 0 = none."""

    seconds: float
    burners: int | None = None
    json_file: Path | None = None
    svg: Path | None = None
    ladder: Path | None = None


def perform(options: DemoOptions) -> int:
    """Runs the demonstration; 0 when no request failed, 1 otherwise. Raises FlyballError."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width of its own
    signal.signal(signal.SIGTERM, _interrupt)  # so that the daemon and the burners end with it
    # Mistakes are told before anything starts.
    folder = usable(options.ladder or example_ladder())
    for name, file in (("--json", options.json_file), ("--svg", options.svg)):
        if file is not None:
            check_writable(name, file)
    line_up = list(track(pictures(_PICTURES), "drawing pictures", total=_PICTURES, console=console, transient=True))
    with ExitStack() as scene:
        home = Path(scene.enter_context(tempfile.TemporaryDirectory(prefix="flyball-demo-", dir=short_place())))
        client = scene.enter_context(private_daemon(home, folder))
        known = client.status().ladders[0].status.rungs
        rungs = [r.name for r in known if r.state not in ("failed", "no-accelerator")]
        began_s = time.monotonic()
        cpu = CpuUtilization(Path("/proc"))
        aim = measure(client, folder.name, rungs, line_up, console, cpu, began_s + MOST_SHARE * options.seconds)
        set_limit(client, home, aim.limit_s)
        left_s = max(options.seconds - (time.monotonic() - began_s), options.seconds / 2)  # rungs may be very slow
        result, frame = run(options, client, folder.name, rungs, line_up, aim, left_s, console)
    finish(result, frame, options, console)
    return 1 if result.failures else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def check_writable(option: str, file: Path) -> None:
    """Before a minute is spent on what is to be written there. Raises ConfigError."""
    new = not file.exists()
    try:
        file.open("ab").close()
        if new:
            file.unlink()
    except OSError as error:
        raise ConfigError(f"{option} {file}: cannot be written: {error.strerror}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """`stolen` of the processor time asked for while the top rung was looked at; None: cannot be told."""

    limit_s: float
    rate_hz: float
    stolen: float | None


def measure(
    client: Client,
    ladder: str,
    rungs: Sequence[str],
    line_up: Sequence[Picture],
    console: Console,
    cpu: CpuUtilization,
    until_s: float,
    seconds: float = MEASURE_S,
) -> Aim:
    """Measures every rung, the top one again until `until_s` (monotonic) where the looks were robbed. The limit is 1.5
    x its p95."""

    def look(name: str, its_s: float) -> tuple[float | None, tuple[float, float]]:
        """What was stolen meanwhile, and p50 and p95 in seconds."""
        stolen_since(cpu)
        latencies: list[float] = []
        end_s = time.monotonic() + its_s
        while time.monotonic() < end_s or len(latencies) < 5:
            sample = ask(client, ladder, line_up[len(latencies) % len(line_up)])
            if sample.error:
                raise FlyballError(f"the rung {name} could not be measured: {sample.error}")
            latencies.append(sample.latency_s)
            time.sleep(sample.latency_s / 2)  # not back to back: the pictures will not flow so either
        return stolen_since(cpu), (statistics.median(latencies), statistics.quantiles(latencies, n=20)[-1])

    top, others = rungs[0], rungs[1:]
    stolen, p50_s, p95_s = None, 0.0, 0.0
    # Weakest first, so that the strongest is active, and warm, when the pictures begin to flow.
    for name in track([*reversed(others), top], "measuring the rungs", console=console, transient=True):
        client.switch(ladder, name, None)
        if name == top:  # it carries the limit: it gets half of the time, and more where it was robbed
            ((stolen, (p50_s, p95_s)),) = quietest(partial(look, top, seconds / 2), 1, MOST_LOOKS, until_s)
        else:
            _, (p50_s, p95_s) = look(name, seconds / 2 / len(others))
        console.print(f"  {name:<14} p50 {p50_s * 1e3:6.2f} ms   p95 {p95_s * 1e3:6.2f} ms")
    if matters(stolen):
        console.print(f"{kept_back(stolen)} at the best: the limit may be too long", soft_wrap=True)
    aim = Aim(limit_s=LIMIT_FACTOR * p95_s, rate_hz=min(RATE_MAX_HZ, BUSY / p50_s), stolen=stolen)
    console.print(f"latency limit: {LIMIT_FACTOR} x the p95 of {top} = {aim.limit_s * 1e3:.1f} ms")
    console.print(f"pace: {aim.rate_hz:.0f} pictures a second\n")
    return aim


def run(
    options: DemoOptions,
    client: Client,
    ladder: str,
    rungs: Sequence[str],
    line_up: Sequence[Picture],
    aim: Aim,
    total_s: float,
    console: Console,
) -> tuple[Report, Frame]:
    """Pictures flow; load comes after a fifth of the time and stays for a quarter of it."""
    burners = BURNERS_PER_CORE * (os.cpu_count() or 1) if options.burners is None else options.burners
    load_from_s, load_until_s = LOAD_FROM * total_s, LOAD_UNTIL * total_s
    cpu, cpu_after = CpuUtilization(Path("/proc")), CpuUtilization(Path("/proc"))
    stolen_since(cpu)
    watcher = Client(client.socket_path)
    stream = Stream(client, ladder, line_up, aim.rate_hz)
    started_s = time.monotonic()
    before = watcher.status()
    spending = Spending(before)
    stream.start()
    load: ExitStack | None = None
    settling, came_s = True, 0.0
    load_s: tuple[float, float] | None = None  # when it came and went
    changes: dict[float, Decision] = {}  # the daemon's ring is bounded: what matters is collected on the way
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=console, auto_refresh=False)) if console.is_terminal else None
        while (elapsed_s := time.monotonic() - started_s) < total_s:
            if settling and elapsed_s >= min(SETTLE_S, load_from_s):
                watcher.switch(ladder, "auto", None)
                settling = False
            if load is None and burners and load_from_s <= elapsed_s < load_until_s:
                load = stack.enter_context(ExitStack())
                load.enter_context(Burners(burners, load_until_s - elapsed_s + 5.0))
                came_s = elapsed_s
            if load is not None and load_s is None and elapsed_s >= load_until_s:
                load.close()
                load_s = (round(came_s, 2), round(time.monotonic() - started_s, 2))
                stolen_since(cpu_after)
            phase = f"{burners} burners beside it" if load_from_s <= elapsed_s < load_until_s and burners else "calm"
            stream.check()
            recent = watcher.decisions(ladder, limit=50)
            changes.update(_changes(recent, started_s))
            now = watcher.status()
            spending.add(now)
            frame = Frame(
                elapsed_s=elapsed_s,
                total_s=total_s,
                phase=phase,
                limit_s=aim.limit_s,
                rungs=rungs,
                samples=list(stream.samples),
                now=now,
                decisions=list(changes.values()),
                joules=dict(spending.joules),
                started_s=started_s,
            )
            if live is not None:
                live.update(picture(frame, console.height), refresh=True)
            else:
                console.print(line(frame), soft_wrap=True)
            time.sleep(0.5 if live is not None else 1.0)
    stream.stop()
    recent, after = watcher.decisions(ladder, limit=50), watcher.status()
    changes.update(_changes(recent, started_s))
    spending.add(after)
    watcher.close()
    energy_j = after.energy.joules - before.energy.joules if after.energy and before.energy else None
    result = report(
        stream.samples,
        list({**changes, **{d.t_s: d for d in recent[-1:]}}.values()),
        started_s,
        aim.limit_s,
        rungs,
        spending.joules,
        energy_j,
        after.energy.scope if after.energy else "none",
        limit_stolen=aim.stolen,
        cpu_stolen=stolen_since(cpu),
        cpu_stolen_after=stolen_since(cpu_after) if load_s else None,
        load_s=load_s,
        ended_on=after.ladders[0].status.active or "",
    )
    return result, frame


def _changes(recent: Sequence[Decision], since_s: float) -> dict[float, Decision]:
    """Of the rung, made or tried, by their time."""
    return {d.t_s: d for d in recent if d.t_s >= since_s and (d.source != d.target or d.error)}


def save_picture(frame: Frame, path: Path) -> None:
    canvas = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    canvas.print(picture(frame))
    canvas.save_svg(str(path), title="flyball demo")


def finish(result: Report, frame: Frame, options: DemoOptions, console: Console) -> None:
    console.print(summary(result))
    if options.svg is not None:
        save_picture(frame, options.svg)
        console.print(f"written: {options.svg}", soft_wrap=True)
    if options.json_file is not None:
        options.json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        console.print(f"written: {options.json_file}", soft_wrap=True)
