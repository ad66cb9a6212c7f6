"""The daemon: the only place that builds the rooms and connects them.

configuration -> sockets -> sensing, engine, governor, serving, uplink -> READY -> until SIGTERM (SIGHUP: reload)

Run by systemd as `python -m flyball.daemon`, which imports nothing of the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import uvloop

from flyball import __version__
from flyball.clock import SystemClock, wall_is_synchronized
from flyball.config import Config, LadderSettings, load
from flyball.control_api import DaemonInfo
from flyball.engine.catalog import EngineCatalog
from flyball.engine.devices import list_devices
from flyball.engine.lineup import Lineup, difference, read
from flyball.errors import EX_CONFIG, ConfigError, FlyballError, LadderError
from flyball.events import Events
from flyball.governor.governor import Governor
from flyball.governor.load import score
from flyball.governor.profile import Figures
from flyball.governor.recording import Recordings
from flyball.governor.rules import parse_all
from flyball.governor.shelf import Shelf
from flyball.governor.survey import Sources
from flyball.ladder.manifest import LadderFolder
from flyball.ladder.store import Store
from flyball.ops import log as logs
from flyball.ops.notify import Notifier
from flyball.ops.watchdog import Heartbeats, Watchdog
from flyball.ports import AcceleratorInfo, Reading, ReloadReport
from flyball.remote import Host, Remote, secrets_of
from flyball.sensing.alarms import Alarms
from flyball.sensing.board import identify
from flyball.sensing.contract import Roots
from flyball.sensing.discovery import discover
from flyball.sensing.energy import EnergyMeter
from flyball.sensing.sampler import Sampler
from flyball.serving.body import Intake
from flyball.serving.control import Controls, control_app
from flyball.serving.guard import Guard
from flyball.serving.http import HttpApi, metrics_app
from flyball.serving.listen import Listener, Listeners, Patience
from flyball.serving.metrics import Metrics
from flyball.serving.rate import RateLimit
from flyball.serving.sockets import ControlSocket, bind_tcp
from flyball.uplink import homeassistant
from flyball.uplink.configuring import Configuring, Tables, at_start
from flyball.uplink.facts import birth_facts
from flyball.uplink.journal import Journal
from flyball.uplink.logbook import Logbook
from flyball.uplink.record import Recorder
from flyball.uplink.twin import Twin
from flyball.uplink.uplink import Uplink

log = logging.getLogger("flyball.daemon")

_BODIES_BYTES = 64 << 20  # all request bodies that are held at once
_TEND_S = 1.0  # between two looks at the workers' memory and signs of life, at most
_GOVERNOR = "governor"
EX_RESTART = 75  # EX_TEMPFAIL of sysexits.h: the unit file's Restart=on-failure starts the daemon again


class Daemon:
    """One daemon's life. Implements ports.Reloading and ports.Probing for the control socket."""

    def __init__(self, config_path: Path | None, named: Sequence[Path], socket: Path | None) -> None:
        """Raises ConfigError, and LadderError when a folder named on the command line is no ladder."""
        self._config_path = config_path
        self._named = tuple(named)
        self._overlay: Tables = {}
        self._config = self._load_at_start()
        self._socket_path = socket or self._config.paths.socket_path()
        self._store = Store(self._config.paths.ladders_dir())
        self._lineup = self._read_lineup(self._config)
        unreadable = [p for p in self._lineup.problems if any(str(n.resolve()) in p for n in self._named)]
        if unreadable:
            raise LadderError("a ladder named on the command line cannot be served", unreadable)

        clock, events, roots = SystemClock(), Events(), Roots()
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._notifier = Notifier()
        self._heartbeats = Heartbeats(clock)
        self._board = identify(roots)
        sensing = self._config.sensing
        self._sampler = Sampler(
            discover(roots, sensing),
            sensing.period_s,
            sensing.window_s,
            clock,
            events,
            periods=sensing.periods,
            total=sensing.total,
        )
        self._meter = EnergyMeter(self._sampler)
        self._alarms = Alarms(events, clock)
        self._catalog = EngineCatalog(self._config.engine, events, clock)
        power_mode = self._board.tegra.power_mode if self._board.tegra else ""
        self._shelf = Shelf(self._config.paths.state_dir() / "profiles", power_mode)
        self._governor = Governor(
            self._config,
            self._catalog,
            events,
            Sources(
                readings=self._sampler,
                clock=clock,
                cpus=os.cpu_count() or 1,
                meter=self._meter,
                floor=self._floor,
                figures=self._figures,
                load_score=self._load_score,
                synchronized=wall_is_synchronized,
            ),
        )
        known = secrets_of(self._config)
        self._logbook = Logbook(known)
        remote = Remote(self._host())
        journal = Journal(self._config.paths.state_dir())
        configuring = Configuring(remote, journal, self._config.uplink.commands.trial_s)
        self._uplink = Uplink(
            self._config.uplink,
            snapshot=Recorder(
                self._catalog,
                self._sampler,
                self._meter,
                clock,
                self._config.uplink.telemetry_period_s,
                self._load_score,
            ),
            birth_facts=lambda: birth_facts(self._board.name, self._board.cpus, self._sampler, self._catalog.ladders()),
            handlers=remote.orders(configuring, self._governor, self._logbook, known),
            events=events,
            clock=clock,
            state_dir=self._config.paths.state_dir(),
            journal=journal,
            twin=Twin(configuring, journal),
            home=lambda: homeassistant.view(self._catalog, self._sampler),
        )
        self._counted: dict[tuple[str, str, str], tuple[float, int]] = {}  # (ladder, version, rung) -> busy, answers
        self._reloading = asyncio.Lock()
        self._stop = asyncio.Event()
        self.exit_code = 0

    # ------------------------------------------------------------------------------------------------ the fleet

    def _load(self, overlay: Tables) -> Config:
        """Raises ConfigError."""
        return load(self._config_path, rules=parse_all, overlay=overlay)

    def _load_at_start(self) -> Config:
        """With what the fleet has set, unless that does not fit any more: then the machine's own files alone. Raises
        ConfigError when those have mistakes."""
        own = self._load({})
        overlay = at_start(own.paths.state_dir()) if own.uplink.enabled else {}
        try:
            config = self._load(overlay)
        except ConfigError as error:
            log.error("what the fleet has set does not fit the configuration any more, so it does not hold: %s", error)
            return own
        self._overlay = overlay
        return config

    def _host(self) -> Host:
        def overlay(tables: Tables) -> None:
            self._overlay = tables

        def end() -> None:
            self.exit_code = EX_RESTART
            self._stop.set()

        return Host(
            config_path=self._config_path,
            store=self._store,
            catalog=self._catalog,
            sensors=self._sampler,
            config=lambda: self._config,
            load=self._load,
            overlay=overlay,
            reload=self.reload,
            stuck=self._heartbeats.stuck,
            end=end,
        )

    # ------------------------------------------------------------------------------------------------ life

    async def run(self) -> None:
        """Until asked to stop, then drains. Raises ConfigError when a listener cannot be bound."""
        with contextlib.ExitStack() as bound:
            if self._config.uplink.enabled:
                logging.getLogger().addHandler(self._logbook)
                bound.callback(logging.getLogger().removeHandler, self._logbook)
            listeners = Listeners(self._bind(bound), Patience(drain_s=self._config.engine.drain_timeout_s))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
            self._sampler.start()
            try:
                async with listeners:
                    await self._serve()
            finally:
                await self._catalog.close()
                self._sampler.stop()
        log.info("stopped")

    async def _serve(self) -> None:
        self._heartbeats.register(_GOVERNOR, max(30.0, 10 * self._config.governor.period_s))
        jobs = [
            asyncio.create_task(self._tend(), name="tend"),
            asyncio.create_task(self._governor.run(self._every_period), name=_GOVERNOR),
            asyncio.create_task(Watchdog(self._notifier, self._heartbeats).run(), name="watchdog"),
            asyncio.create_task(self._begin(), name="begin"),
        ]
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            waiting = {stop, *jobs}
            while not stop.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a job that ends with an exception ends the daemon: systemd starts it afresh
        finally:
            self._notifier.stopping()
            await self._uplink.stop()
            for task in (stop, *jobs):
                task.cancel()
            await asyncio.gather(stop, *jobs, return_exceptions=True)

    async def _begin(self) -> None:
        """Ladders first, then READY: until then the API is up and answers what it can."""
        for problem in self._lineup.problems:
            log.error("a ladder cannot be served: %s", problem)
        async with self._reloading:  # a reload may come while the first ladders still load
            await self._take(self._lineup)
        await self._uplink.start()
        # What is there now stays. A full collection would look through all of it: some 10 ms without an answer.
        gc.collect()
        gc.freeze()
        names = ", ".join(f"{r.name} {r.version}" for r in self._catalog.ladders()) or "no ladder"
        self._notifier.ready(f"serving {names}")
        log.info("flyball %s is ready: %s, control socket %s", __version__, names, self._socket_path)

    async def _tend(self) -> None:
        """Looks after the workers where the governor looks too rarely for that."""
        while True:
            rarely = self._config.governor.period_s > _TEND_S  # a reload may change that
            await asyncio.sleep(_TEND_S if rarely else 60.0)
            if rarely:
                self._catalog.tend()

    def _every_period(self) -> None:
        """Rides on the governor's wake-up instead of having one of its own."""
        self._heartbeats.beat(_GOVERNOR)
        if self._config.governor.period_s <= _TEND_S:
            self._catalog.tend()
        self._alarms.look(self._sampler.latest())
        busy: dict[tuple[str, str], float] = {}
        answers: dict[tuple[str, str], int] = {}
        counted: dict[tuple[str, str, str], tuple[float, int]] = {}
        for runner in self._catalog.ladders():
            totals = runner.totals()
            for name, busy_s in totals.busy_s_by_rung.items():
                key = (runner.name, runner.version, name)
                count = totals.answers_by_rung.get(name, 0)
                counted[key] = (busy_s, count)
                before_s, before = self._counted.get(key, (0.0, 0))
                busy[runner.name, name] = counted[key][0] - before_s
                answers[runner.name, name] = count - before
        self._counted = counted
        at_rest = not any(runner.opening() for runner in self._catalog.ladders())
        self._meter.account(self._clock.monotonic_s(), busy, answers, at_rest)

    # ------------------------------------------------------------------------------------------------ listeners

    def _bind(self, bound: contextlib.ExitStack) -> list[Listener]:
        uplink = self._uplink.state if self._config.uplink.enabled else None
        metrics = Metrics(self._catalog, self._sampler, self._meter, uplink, self._load_score, self._governor.figures)
        intake = Intake(_BODIES_BYTES)
        control = self._control_socket()
        bound.callback(control.remove)
        controls = Controls(
            catalog=self._catalog,
            readings=self._sampler,
            energy=self._meter,
            steering=self._governor,
            pins=self._governor.pins,
            reloading=self,
            probing=self,
            info=self._info,
            recording=Recordings(self._governor.record, __version__, self._board.name).open,
            clock=self._clock,
            started_s=self._started_s,
            uplink=uplink,
        )
        listeners = [Listener([control.listener], control_app(controls, metrics, self._max_input_bytes, intake))]
        serving = self._config.serving
        rate = RateLimit(serving.rate_per_s, serving.rate_burst, self._clock) if serving.rate_per_s else None
        api = HttpApi(self._catalog, metrics, self._max_input_bytes, intake, allow_pin=serving.allow_pin, rate=rate)
        for key, endpoint in (("serving.http", serving.http), ("serving.metrics", serving.metrics)):
            if endpoint:
                sockets = bind_tcp(endpoint, key)
                for sock in sockets:
                    bound.callback(sock.close)
                app = metrics_app(metrics) if key == "serving.metrics" else api
                listeners.append(Listener(sockets, Guard(app, serving.allowed_hosts)))
        return listeners

    def _control_socket(self) -> ControlSocket:
        try:
            self._socket_path.parent.mkdir(parents=True, exist_ok=True)
            self._config.paths.state_dir().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"paths: {error.filename} cannot be made: {error.strerror}") from None
        return ControlSocket(self._socket_path)

    def _info(self) -> DaemonInfo:
        device = self._config.uplink.device_id()
        return DaemonInfo(version=__version__, device=device, board=self._board.name, mode=self._governor.mode())

    def _max_input_bytes(self, ladder: str) -> int:
        return self._catalog.get(ladder).folder.manifest.ladder.max_input_bytes

    def _floor(self, ladder: str) -> float | None:
        return self._catalog.get(ladder).folder.manifest.ladder.accuracy_floor

    def _figures(self, ladder: str, version: str) -> Mapping[str, Figures]:
        settings = self._config.ladder.get(ladder, LadderSettings())
        return self._shelf.figures(self._catalog.get(ladder, version).folder, settings.profile)

    def _load_score(self, readings: Sequence[Reading]) -> float | None:
        found = score(readings, self._config.governor.load)
        return None if found is None else found.value

    async def devices(self) -> Sequence[AcceleratorInfo]:
        return await list_devices()

    # ------------------------------------------------------------------------------------------------ ladders, reload

    def _read_lineup(self, config: Config) -> Lineup:
        configured = {name: Path(s.path) for name, s in config.ladder.items() if s.path}
        return read(self._store.current(), configured, self._named)

    async def _take(self, lineup: Lineup) -> tuple[list[str], list[str]]:
        """Puts into service what is new or changed and out of it what is gone; (done, problems)."""
        present = {r.name: r.folder for r in self._catalog.ladders()}
        failed = [r.name for r in self._catalog.ladders() if r.status().state == "failed"]
        changes = difference(lineup.folders, present, failed, kept=list(present) if lineup.problems else ())
        done: list[str] = []
        problems: list[str] = []

        async def load_one(folder: LadderFolder) -> None:
            settings = self._config.ladder.get(folder.name, LadderSettings())
            pinned = settings.rung
            if pinned and folder.rung(pinned) is None:
                known = ", ".join(r.name for r in folder.manifest.rung)
                problems.append(f"[ladder.{folder.name}] rung: the ladder has no rung {pinned!r} (it has: {known})")
                log.error("%s", problems[-1])
                pinned = ""
            try:
                await self._catalog.load(folder, pinned, settings)
                if pinned:
                    await self._governor.pin(folder.name, pinned, None)
                done.append(f"ladder {folder.name} {folder.version}: in service")
            except FlyballError as error:
                log.error("%s", error)
                problems.append(str(error))

        await asyncio.gather(*(load_one(folder) for folder in changes.load))
        for name in changes.remove:
            await self._catalog.remove(name)
            done.append(f"ladder {name}: out of service")
        return done, problems

    def _on_hangup(self) -> None:
        task = asyncio.get_running_loop().create_task(self.reload())
        task.add_done_callback(lambda t: _log_report(t.result()))

    async def reload(self) -> ReloadReport:
        """Reads the configuration and the ladders again. A configuration with a mistake changes nothing at all."""
        async with self._reloading:
            try:
                fresh = self._load(self._overlay)
            except ConfigError as error:
                return ReloadReport(problems=error.problems or (str(error),))
            self._notifier.reloading()
            applied = []
            if (fresh.governor, fresh.ladder) != (self._config.governor, self._config.ladder):
                applied.append("governor and ladders: limits, modes, pins, cache, cascade")
            sections = [f.name for f in msgspec.structs.fields(Config) if f.name not in ("governor", "ladder")]
            restart = [s for s in sections if getattr(fresh, s) != getattr(self._config, s)]
            self._config = msgspec.structs.replace(self._config, governor=fresh.governor, ladder=fresh.ladder)
            self._shelf.forget()
            self._governor.apply(self._config)
            self._catalog.configure(self._config.ladder)
            lineup = self._read_lineup(self._config)
            done, problems = await self._take(lineup)
            self._notifier.ready("reloaded")
            return ReloadReport(
                applied=(*applied, *done),
                restart_needed=tuple(f"[{section}]" for section in restart),
                problems=(*lineup.problems, *problems),
            )


def _log_report(report: ReloadReport) -> None:
    for line in report.applied:
        log.info("reloaded: %s", line)
    for line in report.restart_needed:
        log.warning("takes effect at the next start: %s", line)
    for line in report.problems:
        log.error("not reloaded: %s", line)


def serve(config: Path | None, ladders: Sequence[Path], socket: Path | None) -> int:
    """Runs a daemon to its end. Raises ConfigError, LadderError before it has begun to serve."""

    async def life() -> int:
        daemon = Daemon(config, ladders, socket)
        logs.configure(daemon._config.log)
        await daemon.run()
        return daemon.exit_code

    return uvloop.run(life())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flyball.daemon", description="The Flyball daemon.")
    parser.add_argument("--config", type=Path, help="configuration file (default: /etc/flyball/flyball.toml)")
    parser.add_argument("--ladder", type=Path, action="append", default=[], help="serve this folder too; repeatable")
    parser.add_argument("--socket", type=Path, help="path of the control socket")
    options = parser.parse_args(arguments)
    try:
        return serve(options.config, options.ladder, options.socket)
    except (ConfigError, LadderError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - logging is not configured before the configuration is
        return EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
