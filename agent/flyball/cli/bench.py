"""`flyball bench`: what this machine makes of every rung of a ladder.

ladder -> measure/bench.py, rung by rung -> tables, and if asked for a profile (JSON) and a page (HTML)

The exit code says whether the figures may be used: 0 only when every rung that can run here was measured validly.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.progress import BarColumn, Progress, TextColumn

from flyball import __version__
from flyball.cli import INTERRUPTED
from flyball.cli.bench_tables import show
from flyball.cli.terminal import ConfigOption, configuration, duration, err, out
from flyball.clock import SystemClock, wall_is_synchronized
from flyball.config import Config
from flyball.engine.devices import list_devices
from flyball.events import Events
from flyball.ladder.manifest import LadderFolder, Rung, load
from flyball.ladder.profile import Profile, Setup, content_hash, encode, write
from flyball.ladder.store import Store
from flyball.measure.bench import Bench, Plan, Surroundings, runnable
from flyball.measure.conditions import machine
from flyball.measure.inputs import described, inputs
from flyball.measure.page import page
from flyball.measure.scenario import MOST_ARRIVALS
from flyball.measure.verdict import SHORTEST_S
from flyball.sensing.contract import Roots
from flyball.sensing.discovery import discover
from flyball.sensing.sampler import Sampler

_PERIOD_S = 0.25  # of the sensors, at most: an I2C power monitor's read takes half a millisecond
_MOST_SAMPLES = 2000  # what the sampler's windows hold of one reading
_SLACK_S = 15.0


class ScenarioName(str, Enum):
    single = "single"
    multi = "multi"
    server = "server"
    offline = "offline"


def bench(
    ladder: Annotated[str, typer.Argument(help="A ladder's folder, or the name of an installed ladder.")],
    rung: Annotated[list[str] | None, typer.Option(help="Measure this rung only; repeatable.")] = None,
    run_s: Annotated[
        float,
        typer.Option("--seconds", min=0.5, max=3600, help="How long each rung runs; from 30 s on it can be valid."),
    ] = SHORTEST_S,
    scenario: Annotated[ScenarioName, typer.Option(help="How requests come.")] = ScenarioName.single,
    rate: Annotated[
        float | None, typer.Option(min=0.01, max=100_000, help="Arrivals per second in the scenario server.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the profile as JSON.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with tables and plots.")] = None,
    config: Annotated[Path | None, ConfigOption] = None,
) -> None:
    """Measure every rung on this machine: latency, throughput, load time, memory, power and energy.

    Each rung runs alone, warm, for so many seconds. What disturbs a run makes it invalid, and the exit code 1.

    Example: flyball bench examples/defects/ladder --json profile.json --html profile.html
    """
    for name, value in (("--seconds", run_s), ("--rate", rate)):
        if value is not None and not math.isfinite(value):  # older typers let "nan" pass a range
            raise typer.BadParameter(f"{name}: expected a number, found {value}")
    if rate is not None and scenario is not ScenarioName.server:
        raise typer.BadParameter("--rate is for --scenario server")
    if rate is not None and rate * run_s > MOST_ARRIVALS:
        raise typer.BadParameter(f"--rate: {rate:g} per s for {run_s:g} s are more than {MOST_ARRIVALS} arrivals")
    for file in (json_file, html_file):
        if file is not None:
            _refuse_early(file)
    if json_file is not None and html_file is not None and json_file.resolve() == html_file.resolve():
        raise typer.BadParameter(f"--json and --html: both are {json_file}")
    settings = configuration(config)
    folder = _found(ladder, settings)
    rungs = _chosen(folder, rung or [])
    plan = Plan(scenario=scenario.value, seconds=run_s, rate_per_s=rate)
    profile, interrupted = uvloop.run(_measure(folder, rungs, settings, plan))
    written: list[str] = []
    unwritten: list[str] = []
    try:  # first, whatever becomes of the table: its reader may have gone (`| head`), the disk below it be full
        for file, content in ((json_file, encode), (html_file, _encoded_page)):
            if file is not None:
                _save(file, content(profile), written, unwritten)
    finally:  # whatever becomes of the files, minutes of measuring are not lost
        show(profile)
    for line in written:
        out.print(line, soft_wrap=True)
    for line in unwritten:
        err.print(line, soft_wrap=True)
    raise typer.Exit(INTERRUPTED if interrupted else 0 if profile.valid and not unwritten else 1)


def _encoded_page(profile: Profile) -> bytes:
    return page(profile).encode()


def _save(file: Path, content: bytes, written: list[str], unwritten: list[str]) -> None:
    try:
        write(file, content)
    except OSError as error:
        unwritten.append(f"{file}: not written: {error.strerror}")
    else:
        written.append(f"written: {file}")


def _refuse_early(file: Path) -> None:
    """Before minutes are spent on what could not be written down."""
    if str(file) == "-":
        raise typer.BadParameter("-: expected the name of a file; the table goes to the terminal")
    try:
        place = file.resolve()  # as `write` does: what a link names is written
        if place.exists() and not place.is_file():
            possible = not place.is_dir() and os.access(place, os.W_OK)  # a device, a pipe
        else:
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name[:100]}-"):
                possible = True
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        possible = False
    if not possible:
        raise typer.BadParameter(f"{file}: cannot be written: expected a file in a folder that is there and writable")


def _found(ladder: str, settings: Config) -> LadderFolder:
    store = Store(settings.paths.ladders_dir())
    if not Path(ladder).exists() and "/" not in ladder and ladder in store.names():
        return store.open(ladder)
    return load(Path(ladder))


def _chosen(folder: LadderFolder, names: Sequence[str]) -> list[Rung]:
    known = [r.name for r in folder.manifest.rung]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"--rung {unknown[0]}: the ladder has {', '.join(known)}")
    return [r for r in folder.manifest.rung if not names or r.name in names]


# ------------------------------------------------------------------------------------------------------ measuring


async def _measure(folder: LadderFolder, rungs: Sequence[Rung], settings: Config, plan: Plan) -> tuple[Profile, bool]:
    """And whether it was interrupted."""
    clock, roots, stop = SystemClock(), Roots(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    window_s = plan.rung_s + _SLACK_S
    period_s = max(min(settings.sensing.period_s, _PERIOD_S), window_s / _MOST_SAMPLES)
    sensing = settings.sensing
    sampler = Sampler(
        discover(roots, sensing), period_s, window_s, clock, Events(), periods=sensing.periods, total=sensing.total
    )
    around = Surroundings(source=sampler, period_s=period_s, clock=clock, roots=roots)
    began_s, content = clock.wall_s(), content_hash(folder)
    present = {accelerator.kind for accelerator in await list_devices()}
    sampler.start()
    try:
        tried = [rung.name for rung in rungs if runnable(rung, present)]
        with _Progress(tried, plan) as progress:
            measuring = Bench(folder, settings.engine, plan, around, progress.tell, stop)
            found = [await measuring.measure(rung, present) for rung in rungs]
    finally:
        sampler.stop()
    engine = settings.engine
    profile = Profile(
        schema=1,
        flyball=__version__,
        measured=_utc(began_s),
        clock_synchronized=wall_is_synchronized(),
        machine=machine(roots),
        ladder=folder.name,
        version=folder.version,
        content=content,
        scenario=plan.scenario,
        seconds=plan.seconds,
        inputs=described(inputs(folder)[0]),
        setup=Setup(lanes=engine.lanes, slots=engine.slots, threads=engine.threads, wake=engine.wake),
        rungs=tuple(found),
    )
    return profile, stop.is_set()


def _utc(wall_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall_s))


class _Progress:
    """On stderr: a bar that is drawn once a second, and not by a thread of its own, which would take time from the run;
    where stderr is no terminal, a line for each rung."""

    def __init__(self, rungs: Sequence[str], plan: Plan) -> None:
        self._rungs = list(rungs)
        self._rung_s = plan.rung_s
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]} left"),
            console=err, transient=True, auto_refresh=False, disable=not err.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=self._rung_s * len(self._rungs), left="")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, rung: str, phase: str, done_s: float) -> None:
        done = self._rungs.index(rung)
        if not err.is_terminal:
            if phase == "opening":
                err.print(f"{rung}: {done + 1} of {len(self._rungs)}, about {duration(self._rung_s)}", soft_wrap=True)
            return
        done_s += done * self._rung_s
        left = duration(self._rung_s * len(self._rungs) - done_s)
        self._bar.update(self._task, description=f"{rung}: {phase}", completed=done_s, left=left, refresh=True)
