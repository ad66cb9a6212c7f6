"""Every rung of a ladder measured on this machine, one after the other, each alone and warm.

rung -> LadderRunner of its own -> warm-up -> idle power -> warm-up -> the scenario's run -> verdict -> RungProfile

The runner is the daemon's, so that a latency is what the daemon's own serving sees. Never lets one rung's failure end
the others' measuring, and draws nothing while a run goes on but one tick a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass

import msgspec

from flyball.clock import Clock
from flyball.config import Engine
from flyball.engine.requests import slots_for
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.errors import FlyballError, UnavailableError
from flyball.events import Events
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ladder.profile import RungProfile, Scenario
from flyball.measure.conditions import (
    children,
    disturbance,
    dropped,
    frequency_limits,
    on_battery,
    others_share,
    peak_resident_bytes,
    processor_time,
)
from flyball.measure.consumption import draw
from flyball.measure.inputs import inputs
from flyball.measure.scenario import MOST_ARRIVALS, Load, drive
from flyball.measure.verdict import SHORTEST_S, Observed, profile_of, unmeasured
from flyball.ports import InferRequest
from flyball.sensing.contract import Roots
from flyball.sensing.energy import PowerSource
from flyball.sensing.total import explain_no_total, total_power

IDLE_S = 5.0
_SETTLE_S = 1.0  # after a warm-up, before idle power is taken
_REWARM_S = 0.5  # clocks and caches again, after idling
_SERVER_SHARE = 0.6  # of the capacity that the warm-up found
_TICK_S = 1.0
_INTERRUPTED = "interrupted before it was measured"

Tell = Callable[[str, str, float], None]  # rung, phase, seconds of Plan.rung_s that are done


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    scenario: Scenario = "single"
    seconds: float = SHORTEST_S
    rate_per_s: float | None = None  # of the arrivals, in the scenario server; None: found for each rung
    seed: int = 1

    @property
    def warm_s(self) -> float:
        """Of the warm-up, which does not count."""
        return min(5.0, max(0.5, self.seconds / 6))

    @property
    def rung_s(self) -> float:
        """What one rung takes once it is open."""
        return self.warm_s + _SETTLE_S + IDLE_S + _REWARM_S + self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is watched while a rung works. `source` is a running sampler with this period, whose window holds all of
    `Plan.rung_s` and some seconds more."""

    source: PowerSource
    period_s: float
    clock: Clock
    roots: Roots


class Bench:
    """Set `stop` to end soon: what was measured until then is given, marked as interrupted."""

    def __init__(
        self, folder: LadderFolder, config: Engine, plan: Plan, around: Surroundings, tell: Tell, stop: asyncio.Event
    ) -> None:
        self._folder = folder
        self._config = config
        self._plan = plan
        self._around = around
        self._tell = tell
        self._stop = stop
        self._requests = [InferRequest(inputs=tensors) for tensors in inputs(folder)]
        self._done_s = 0.0  # of the rung's plan

    async def measure(self, rung: Rung, present: Collection[str]) -> RungProfile:
        """`present` are the kinds of accelerators here. A rung that cannot be measured is a result, no exception."""
        if not runnable(rung, present):
            return unmeasured(rung, skipped=f"none of its accelerators is present: {', '.join(rung.accelerators)}")
        if self._stop.is_set():
            return unmeasured(rung, error=_INTERRUPTED)
        try:
            return await self._measure_alone(rung)
        except (FlyballError, OSError) as error:  # OSError: no descriptor, no memory for slots
            return unmeasured(rung, error=str(error))

    async def _measure_alone(self, rung: Rung) -> RungProfile:
        self._done_s = 0.0
        self._tell(rung.name, "opening", 0.0)
        runner = LadderRunner(_alone(self._folder, rung), self._config, Standby(0), Events(), self._around.clock)
        try:
            await self._unless_stopped(runner.start(rung.name))
            return await self._measure_open(runner, rung)
        finally:
            await runner.close()

    async def _measure_open(self, runner: LadderRunner, rung: Rung) -> RungProfile:
        plan, around = self._plan, self._around
        gc.collect()
        gc.freeze()  # as the daemon does once it is ready
        status = runner.status().rungs[0]
        warm = await self._load(runner, rung, "warming up", "offline", plan.warm_s)
        await self._pause(rung, "settling", _SETTLE_S)
        proc, pid = around.roots.proc, os.getpid()
        idle_start_s, before = around.clock.monotonic_s(), processor_time(proc, pid)
        await self._pause(rung, "idling", IDLE_S)
        idle_end_s, others_idle = around.clock.monotonic_s(), others_share(before, processor_time(proc, pid))
        await self._load(runner, rung, "warming up", "single", _REWARM_S)
        if self._stop.is_set():
            raise UnavailableError(_INTERRUPTED)
        rate_per_s = self._rate_per_s(warm)
        limits, known = frequency_limits(around.roots), tuple(around.source.latest())
        before, restarts = processor_time(proc, pid), runner.totals().worker_restarts
        run = await self._load(runner, rung, "measuring", plan.scenario, plan.seconds, rate_per_s or 0.0)
        others = others_share(before, processor_time(proc, pid))
        peak_rss_bytes = _peak_bytes(around.roots, pid)
        total = total_power(around.source.latest())
        power_s = around.source.period_s(total.sensor) if total is not None else around.period_s
        await asyncio.sleep(2 * power_s)  # until there are readings after the end as well
        latest = tuple(around.source.latest())
        return profile_of(
            rung,
            Observed(
                scenario=plan.scenario,
                seconds=plan.seconds,
                run=run,
                restarts=sum(runner.totals().worker_restarts.values()) - sum(restarts.values()),
                interrupted=self._stop.is_set() and run.duration_s < plan.seconds,
                load_s=status.load_s,
                rss_bytes=status.rss_bytes,
                peak_rss_bytes=peak_rss_bytes,
                rate_per_s=rate_per_s,
                power=draw(around.source, total_power(latest), run.start_s, run.end_s, power_s),
                idle=draw(around.source, total_power(latest), idle_start_s, idle_end_s, power_s),
                no_power="" if total_power(latest) else explain_no_total(latest),
                limits_dropped=dropped(limits, frequency_limits(around.roots)),
                disturbance=disturbance(around.source, (*known, *latest), run.start_s, run.end_s),
                others=others,
                others_idle=others_idle,
                battery=on_battery(around.roots),
            ),
        )

    def _rate_per_s(self, warm: Load) -> float | None:
        if self._plan.scenario != "server":
            return None
        if self._plan.rate_per_s is None and not warm.inferences:
            why = next(iter(warm.errors), "no answer came in time")
            raise UnavailableError(f"no rate can be found, since nothing was answered in the warm-up: {why}")
        found = min(_SERVER_SHARE * warm.per_s, MOST_ARRIVALS / self._plan.seconds * 0.99)
        return self._plan.rate_per_s or found

    async def _load(
        self, runner: LadderRunner, rung: Rung, phase: str, scenario: Scenario, seconds: float, rate_per_s: float = 0.0
    ) -> Load:
        async def ask(number: int) -> object:
            return await runner.infer(self._requests[number % len(self._requests)])

        room = max(self._config.slots, slots_for(rung, self._config.lanes))
        async with self._told(rung, phase, seconds):
            return await drive(
                scenario, ask, seconds, self._around.clock.monotonic_s, self._stop,
                in_flight=room, rate_per_s=rate_per_s, seed=self._plan.seed,
            )  # fmt: skip

    async def _pause(self, rung: Rung, phase: str, seconds: float) -> None:
        async with self._told(rung, phase, seconds):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)

    @contextlib.asynccontextmanager
    async def _told(self, rung: Rung, phase: str, seconds: float) -> AsyncIterator[None]:
        ticker = asyncio.create_task(self._tick(rung.name, phase, seconds))
        try:
            yield
        finally:
            ticker.cancel()
            self._done_s += seconds

    async def _tick(self, rung: str, phase: str, seconds: float) -> None:
        began_s = self._around.clock.monotonic_s()
        while True:
            spent_s = self._around.clock.monotonic_s() - began_s
            self._tell(rung, phase, self._done_s + min(spent_s, seconds))
            await asyncio.sleep(_TICK_S)

    async def _unless_stopped(self, work: Awaitable[None]) -> None:
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise UnavailableError(_INTERRUPTED)
        task.result()


def runnable(rung: Rung, present: Collection[str]) -> bool:
    """Whether one of the rung's accelerators is among these kinds."""
    return any(kind in present for kind in rung.accelerators)


def _alone(folder: LadderFolder, rung: Rung) -> LadderFolder:
    """The ladder with this rung only: none that could answer in its place."""
    manifest = msgspec.structs.replace(folder.manifest, rung=(msgspec.structs.replace(rung, twin=""),))
    return msgspec.structs.replace(folder, manifest=manifest)


def _peak_bytes(roots: Roots, pid: int) -> int | None:
    try:
        return peak_resident_bytes(roots.proc, children(roots.proc, pid))
    except (OSError, ValueError):
        return None
