"""How much longer each rung works when others want the processor, and what the machine's signals say meanwhile.

    python bench/contention.py [--quick] [--json] [--write]

Every rung of examples/defects/ladder that runs on the processor, and four MobileNets, one after the other through the
runner (sessions with one thread), beside 0, 1, 2, 3, 4, 6 and 8 burners per core. One request at a time, some 20 a
second at irregular distances, so that the rung itself leaves the machine idle. A burner does nothing but compute, each
in a session of its own: the kernel shares the processor out by sessions first (sched_autogroup). Level 0 comes twice,
first and last: worst_drift is the quotient of the two, of the rung that changed most.
The last line: how many rungs and levels; slow_down_small_at_8 and slow_down_large_at_8, mean work beside 8 burners per
core over mean work alone of the smallest and the largest MobileNet; worst_slow_down of all.

Then the simulator that is fed from these figures is held against the real daemon: three rungs of the defects beside 0,
1 and 3 burners per core, the same requests at random for both, latency from the moment at which each was due until its
answer is there. What is in that and not in the simulator: bench/_simulator.py.

simulator_p50_error_pct    how far its p50 is from the live one, relative to it; the median of the points
simulator_p95_error_pct    the same of p95
simulator_error_pct        the median of both together
simulator_worst_error_pct  the worst of both
simulator_late_points      how far its share of late requests is from the live one, in points; the mean

--write puts the curves into bench/contention.json, from which the governor is simulated; its fields stand, each with
what it means, in bench/_curves.py. --quick: three rungs beside 0, 2 and 8 burners per core, one live beside 0 and 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import itertools
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import _simulator
import msgspec
import uvloop
from _curves import LARGE, SMALL, Contention, Level, Rung, summary, table
from _rig import IMAGENET, arguments, ended, images, ladder_of, missing, percentile, replace, show, within

from flyball.clock import SystemClock
from flyball.config import Engine, Sensing
from flyball.demo import surface
from flyball.demo.burners import Burners
from flyball.demo.stage import check_writable
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.events import Events
from flyball.ladder.manifest import LadderFolder, load
from flyball.ports import InferRequest, RungStatus, Tensor, Timing
from flyball.sensing.board import identify
from flyball.sensing.contract import Roots
from flyball.sensing.sensors.estimated import model_for
from flyball.sensing.sensors.host import CpuUtilization, parse_loadavg
from flyball.sensing.sensors.pressure import parse_total
from flyball.sensing.sysfs import optional_text, read_text

HERE = Path(__file__).resolve().parent
COMMITTED = HERE / "contention.json"
DEFECTS = HERE.parent / "examples/defects/ladder"
# With the accuracy that ../shared/data/README.md gives.
MOBILENETS = {"v1_0.25_128": 0.455, "v1_0.5_160": 0.685, "v1_0.75_192": 0.806, "v2_1.0_224": 0.888}
MOBILENET_SOURCE = "1,000 pictures, one per class, perhaps of the training set: for the order alone"
LEVELS = (0, 1, 2, 3, 4, 6, 8)  # burners per core
QUICK_LEVELS = (0, 2, 8)
QUICK_RUNGS = (SMALL, LARGE, "r224-fp32")
LIVE_RUNGS, LIVE_LEVELS, LIVE_S = ("r224-fp32", "r112-fp32", "r56-fp32"), (0, 1, 3), 15.0
QUICK_S, QUICK_LIVE_LEVELS, QUICK_LIVE_S = 1.2, (0, 2), 3.0
WHOLE_S, SECONDS = 6.0, (0.5, 600.0)  # from some ten answers on
PER_S = 20.0
PAUSE_S = 0.005  # at least, between an answer and the next request
LOOK_S = 0.1  # between two looks at the signals
SETTLE_S = 1.0  # until the burners burn
ENGINE = Engine(threads=1, request_timeout_s=60.0)
PROC = Path("/proc")
STANDBY_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Subject:
    """One rung in its runner, with the request that it is asked."""

    ladder: str
    rung: str
    runner: LadderRunner
    request: InferRequest
    accuracy: float | None
    accuracy_source: str
    open_s: float  # from asking for the rung until it could answer

    def own_name(self) -> str:
        """In the runner: a ladder with one rung has named it after the model's file."""
        names = [r.name for r in self.runner.status().rungs]
        return self.rung if self.rung in names else names[0]

    def status(self) -> RungStatus:
        return next(r for r in self.runner.status().rungs if r.name == self.own_name())


@dataclass(slots=True, kw_only=True)
class Cell:
    """What was seen of one rung beside so many burners; several runs may go into one."""

    burners_per_core: int
    burners: int
    timings: list[Timing] = field(default_factory=list)
    runnable: list[int] = field(default_factory=list)
    rivals: list[int] = field(default_factory=list)
    utilization: list[float] = field(default_factory=list)
    stalls: list[tuple[float, int]] = field(default_factory=list)  # (seconds, microseconds in which some task waited)

    def work_s(self) -> list[float]:
        return [t.pre_s + t.run_s + t.post_s for t in self.timings]

    def add(self, other: Cell) -> None:
        self.timings += other.timings
        self.runnable += other.runnable
        self.rivals += other.rivals
        self.utilization += other.utilization
        self.stalls += other.stalls

    def level(self) -> Level:
        work_s, total_s = self.work_s(), [t.total_s for t in self.timings]
        watched_s = sum(seconds for seconds, _ in self.stalls)
        return Level(
            burners_per_core=self.burners_per_core,
            burners=self.burners,
            n=len(work_s),
            work_mean_s=round(statistics.fmean(work_s), 7),
            work_std_s=round(statistics.stdev(work_s), 7) if len(work_s) > 1 else None,
            work_p50_s=round(percentile(work_s, 0.5), 7),
            work_p95_s=round(percentile(work_s, 0.95), 7),
            work_p99_s=round(percentile(work_s, 0.99), 7),
            total_p50_s=round(percentile(total_s, 0.5), 7),
            total_p95_s=round(percentile(total_s, 0.95), 7),
            runnable=_mean(self.runnable),
            rivals=_mean(self.rivals),
            cpu_utilization=_mean(self.utilization),
            cpu_some=round(min(1.0, sum(us for _, us in self.stalls) / 1e6 / watched_s), 4) if watched_s else None,
        )


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 4) if values else None


@contextlib.asynccontextmanager
async def subjects(wanted: Sequence[str]) -> AsyncIterator[list[Subject]]:
    """Every rung open, the defects' on standby: a worker without work takes no processor. Of `wanted` only, if any."""
    async with contextlib.AsyncExitStack() as stack:
        found: list[Subject] = []
        for name, accuracy in MOBILENETS.items():
            if wanted and name not in wanted:
                continue
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flyball-bench-")))
            runner = _runner(await ladder_of(_model(name), root), stack)
            began_s = time.monotonic()
            await runner.start()
            open_s = time.monotonic() - began_s
            request = InferRequest(inputs=tuple(images(runner.interface, 1)))
            found.append(Subject("mobilenet", name, runner, request, accuracy, MOBILENET_SOURCE, open_s))
        folder = load(DEFECTS)
        runner = _runner(folder, stack)
        picture, _ = surface.draw(surface.DEMO_SEEDS.start)
        request = InferRequest(inputs=(Tensor("image", "UINT8", picture.shape, picture.tobytes()),))
        source = folder.manifest.ladder.accuracy_source
        for rung in folder.manifest.rung:
            if "cpu" in rung.accelerators and rung.name in (wanted or (rung.name,)):
                began_s = time.monotonic()
                await (runner.switch(rung.name, "bench") if runner.status().active else runner.start(rung.name))
                open_s = time.monotonic() - began_s
                found.append(Subject(folder.name, rung.name, runner, request, rung.accuracy, source, open_s))
        gc.collect()
        gc.freeze()  # as the daemon does once it is ready
        yield found


def _runner(folder: LadderFolder, stack: contextlib.AsyncExitStack) -> LadderRunner:
    runner = LadderRunner(folder, ENGINE, Standby(STANDBY_BYTES), Events(), SystemClock())
    runner.limit_to(["cpu"])
    stack.push_async_callback(runner.close)
    return runner


def _model(name: str) -> Path:
    return IMAGENET / f"mobilenet_{name}_quant.tflite"


def _runnable() -> int:
    return parse_loadavg(read_text(PROC / "loadavg"))[1]


async def _look(cell: Cell) -> None:
    """Until cancelled. The kernel sums what PSI counts every 2 s: between two changes of the sum lies what it says."""
    changes: list[tuple[float, int]] = []
    try:
        while True:
            cell.runnable.append(_runnable())
            text = optional_text(PROC / "pressure/cpu")
            total_us = parse_total(text, "some") if text else 0
            if not changes or total_us != changes[-1][1]:
                changes.append((time.monotonic(), total_us))
            await asyncio.sleep(LOOK_S * random.uniform(0.5, 1.5))
    finally:
        known = changes[1:]  # of the first one, it is not known since when it has stood there
        cell.stalls += [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(known)]


async def observe(subject: Subject, cell: Cell, seconds: float, dice: random.Random) -> None:
    """Raises FlyballError when the rung does not answer."""
    await subject.runner.switch(subject.own_name(), "bench")
    for _ in range(3):
        await subject.runner.infer(subject.request)
    utilization = CpuUtilization(PROC)
    utilization.since_last()
    looking = asyncio.create_task(_look(cell))
    try:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            cell.rivals.append(_runnable())
            answer = await subject.runner.infer(subject.request)
            cell.timings.append(answer.timing)
            await asyncio.sleep(max(PAUSE_S, dice.uniform(0.5, 1.5) / PER_S - answer.timing.total_s))
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    shares = utilization.since_last()
    if shares is not None:
        cell.utilization.append(shares.busy)


async def measure(levels: Sequence[int], wanted: Sequence[str], seconds: float, quiet: bool) -> Contention:
    cpus = len(os.sched_getaffinity(0))
    dice = random.Random(1)
    async with subjects(wanted) as found:
        opened = [s.status() for s in found]
        cells = [{n: Cell(burners_per_core=n, burners=n * cpus) for n in levels} for _ in found]
        again = [Cell(burners_per_core=0, burners=0) for _ in found]
        for number, level in enumerate((*levels, 0)):
            if not quiet:
                print(f"  {level} burner(s) per core, {number + 1} of {len(levels) + 1}", file=sys.stderr, flush=True)
            with Burners(level * cpus, limit_s=60 + len(found) * (seconds + 20)):
                await asyncio.sleep(SETTLE_S)
                for index, subject in enumerate(found):
                    cell = cells[index][level] if number < len(levels) else again[index]
                    await observe(subject, cell, seconds, dice)
    model = model_for(identify(Roots()), Sensing())
    core_w = (model.load_w - model.idle_w) / cpus
    return Contention(
        date=datetime.date.today().isoformat(),
        machine=f"{_processor()}, Linux {platform.release()}",
        cpus=cpus,
        autogroup=optional_text(PROC / "sys/kernel/sched_autogroup_enabled") == "1",
        idle_w=model.idle_w,
        load_w=model.load_w,
        power_basis=model.basis,
        per_s=PER_S,
        seconds=seconds,
        rungs=tuple(rung_of(*each, core_w) for each in zip(found, opened, cells, again, strict=True)),
    )


def rung_of(subject: Subject, status: RungStatus, cells: dict[int, Cell], again: Cell, core_w: float) -> Rung:
    """`again`: the rung alone after everything else, which counts as alone too."""
    before_s, after_s = statistics.fmean(cells[0].work_s()), statistics.fmean(again.work_s())
    cells[0].add(again)
    return Rung(
        ladder=subject.ladder,
        rung=subject.rung,
        precision=status.precision,
        accuracy=subject.accuracy,
        accuracy_source=subject.accuracy_source,
        open_s=subject.open_s,
        load_s=status.load_s,
        rss_bytes=status.rss_bytes,
        joules=round(statistics.fmean(cells[0].work_s()) * core_w, 6),
        drift=round(after_s / before_s, 3),
        levels=tuple(cell.level() for cell in cells.values()),
    )


def _processor() -> str:
    lines = (PROC / "cpuinfo").read_text().splitlines()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine())


def main() -> int:
    parser = arguments(__doc__, f"three rungs beside three levels, {QUICK_S:g} s each; one live beside two")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {COMMITTED.name}")
    parser.add_argument("--seconds", type=within(*SECONDS), help="for each rung and level (default: 6, 12 minutes)")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--write is for a whole run: leave out --quick")
    if options.quick and options.seconds is not None:
        parser.error(f"--quick takes {QUICK_S:g} s for each: leave out --seconds")
    if missing(*(_model(name) for name in MOBILENETS)):
        return 1
    if options.write:
        check_writable("--write", COMMITTED)
    if options.quick:
        result = uvloop.run(measure(QUICK_LEVELS, QUICK_RUNGS, QUICK_S, options.json))
    else:
        result = uvloop.run(measure(LEVELS, (), options.seconds or WHOLE_S, options.json))
    if options.write:
        replace(COMMITTED, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    levels, live_s = (QUICK_LIVE_LEVELS, QUICK_LIVE_S) if options.quick else (LIVE_LEVELS, LIVE_S)
    points = _simulator.compare(result, LIVE_RUNGS, levels, live_s, options.json)
    if not options.json:
        print(table(result))
        print(_simulator.table(points))
    show({**summary(result), **_simulator.summary(points)}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
